use nucleus::kernels::*; use nucleus::problem::Dtype;
fn main(){ let a:Vec<String>=std::env::args().collect();
 let path= if a[1]=="a" {Path::Arbitrary} else {Path::Bounded(a[1].parse().unwrap())};
 let s=Spec{path,batch:a[2].parse().unwrap(),vocab:a[3].parse().unwrap(),dtype:match a[4].as_str(){"f32"=>Dtype::F32,"bf16"=>Dtype::Bf16,_=>Dtype::F16},stable:true,wanted:Wanted{topk_logits:true,weights:true,slices:a[1]!="a"}};
 print!("{}",stablehlo::emit(&s)); }
