use nucleus::dtype::Dtype;
use nucleus::kernels::{gpu, Path, Source, Spec, Target, Wanted};
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let Some(Target::Gpu(g)) = Target::named("h100") else { panic!() };
    for (batch, vocab) in [(1, 128_256), (16, 262_144), (128, 128_256), (128, 262_144), (16, 1000), (4, 20_001)] {
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            for path in [Path::Arbitrary, Path::Bounded(128)] {
                let spec = Spec { path, batch, vocab, dtype, stable: true, wanted: Wanted::default(), source: Source::Batch };
                let text = gpu::kernel_text(&spec, &g);
                for (i, part) in text.split(".version").skip(1).enumerate() {
                    std::fs::write(format!("{dir}/{}_{i}.ptx", spec.name()), format!(".version{part}")).unwrap();
                }
            }
        }
    }
}
