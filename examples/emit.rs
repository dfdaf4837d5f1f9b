//! scratch
use nucleus::kernels::{tpu, Path, Spec, Wanted};
use nucleus::problem::Dtype;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let path = if a[1] == "arbitrary" { Path::Arbitrary } else { Path::Bounded(a[1].parse().unwrap()) };
    let dtype = match a[4].as_str() { "f32" => Dtype::F32, "bf16" => Dtype::Bf16, _ => Dtype::F16 };
    let debug = a[5] == "debug";
    let wanted = Wanted { topk_logits: debug, weights: debug, slices: debug && path != Path::Arbitrary };
    let spec = Spec { path, batch: a[2].parse().unwrap(), vocab: a[3].parse().unwrap(), dtype, stable: true, wanted };
    let vmem: usize = a[6].parse::<usize>().unwrap() << 20;
    if a.len() > 7 { print!("{}", tpu::kernel_text(&spec, vmem)); } else { print!("{}", tpu::emit(&spec, vmem)); }
}
