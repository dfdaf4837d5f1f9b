//! scratch
use nucleus::pjrt::{CompileOptions, Plugin};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let plugin = Plugin::load(std::path::Path::new("/tmp/jaxenv/lib/python3.11/site-packages/libtpu/libtpu.so")).unwrap();
    let topology = plugin.topology(&a[1], &[]).unwrap();
    let ids = topology.device_ids().unwrap();
    for f in &a[2..] {
        let text = std::fs::read_to_string(f).unwrap();
        let t = std::time::Instant::now();
        match plugin.compile_ahead(&topology, &text, &CompileOptions::for_device(ids[0])) {
            Ok(bytes) => println!("{f}: {} bytes in {:.1} s", bytes.len(), t.elapsed().as_secs_f64()),
            Err(e) => println!("{f}: FAILED {}", e.to_string().chars().take(1500).collect::<String>()),
        }
    }
}
