#![allow(missing_docs)]
#[path="../tests/common/mod.rs"] mod common;
use common::*; use nucleus::problem::Dtype; use nucleus::sampler::Entry; use rand::prelude::*;
fn main(){
  let reference=builtin(0);
  let s=with_plugin("lammps-jax-pjrt-cpu");
  let mut rng=StdRng::seed_from_u64(1);
  for _ in 0..6 {
    let p=Problem::random(Dtype::F32,1,1,Some(128),&mut rng);
    let want=sample(&reference,Entry::Reference,&p,EVERYTHING);
    let got=sample(&s,Entry::Bounded,&p,EVERYTHING);
    println!("{:?} {:x?}\n{:x?}",p.rows,p.bits,p.kinds); println!("tok {:?} {:?} w {:?} {:?} wk {:?} {:?} r {:?} {:?}", got.tokens,want.tokens,got.weights,want.weights,&got.weights_k[..2],&want.weights_k[..2],got.random_low,want.random_low);
  }
}
