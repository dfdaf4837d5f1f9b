#![allow(missing_docs)]
mod common;
use common::*; use nucleus::problem::Dtype; use nucleus::sampler::Entry; use rand::prelude::*;
#[test]
fn quick(){
  let reference=builtin(0);
  let s=with_plugin("lammps-jax-pjrt-cpu");
  let mut rng=StdRng::seed_from_u64(1);
  for vocab in [1usize,2,129] { for batch in [1usize,3,17] { for dtype in [Dtype::F32,Dtype::Bf16,Dtype::F16] {
    let t=std::time::Instant::now();
    let p=Problem::random(dtype,batch,vocab,None,&mut rng);
    let want=sample(&reference,Entry::Reference,&p,FULL_WIDTH);
    let got=sample(&s,Entry::Arbitrary,&p,FULL_WIDTH);
    assert_same(&p,&got,&want,"arbitrary");
    let got=sample(&s,Entry::Automatic,&p,FULL_WIDTH);
    assert_same(&p,&got,&want,"auto");
    let p=Problem::random(dtype,batch,vocab,Some(128),&mut rng);
    let want=sample(&reference,Entry::Reference,&p,EVERYTHING);
    let got=sample(&s,Entry::Bounded,&p,EVERYTHING);
    assert_same(&p,&got,&want,"bounded");
    println!("{vocab} {batch} {dtype:?} {:?} {:?}",t.elapsed(), s.stats());
  }}}
}
