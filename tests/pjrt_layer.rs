//! The PJRT layer against real CPU plugins of three API versions, and against files that are no plugins.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nucleus::pjrt::{ApiVersion, Client, CompileOptions, ElementType, Executable, Plugin};

/// The plugin of that name as `make plugins` leaves it.
fn plugin_path(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/plugins").join(name).with_extension("so");
    assert!(path.is_file(), "{} is missing: run `make plugins`", path.display());
    path
}

fn load(name: &str) -> Arc<Plugin> {
    Plugin::load(&plugin_path(name)).unwrap()
}

fn client(name: &str) -> Arc<Client> {
    Client::create(load(name), &[]).unwrap()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect()
}

/// Two inputs, two outputs of different types and ranks.
const PROGRAM: &str = r#"
module @sum_and_compare {
  func.func public @main(%x: tensor<2x3xf32>, %y: tensor<2x3xf32>) -> (tensor<2x3xf32>, tensor<3x2xf32>, tensor<2x3xi1>) {
    %sum = stablehlo.add %x, %y : tensor<2x3xf32>
    %turned = stablehlo.transpose %x, dims = [1, 0] : (tensor<2x3xf32>) -> tensor<3x2xf32>
    %less = stablehlo.compare LT, %x, %y, FLOAT : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xi1>
    return %sum, %turned, %less : tensor<2x3xf32>, tensor<3x2xf32>, tensor<2x3xi1>
  }
}
"#;

fn compile(client: &Arc<Client>, device: usize) -> Arc<Executable> {
    client.compile(PROGRAM, &CompileOptions::for_device(client.devices()[device].id())).unwrap()
}

fn run_and_check(client: &Arc<Client>, program: &Executable, device: usize, seed: f32) {
    let x: Vec<f32> = (0..6).map(|i| seed + i as f32).collect();
    let y: Vec<f32> = (0..6).map(|i| 2.0 * seed - i as f32).collect();
    let dims = [2, 3];
    let x_on_device = client.buffer_from_host(&bytes(&x), ElementType::F32, &dims, device).unwrap();
    let y_on_device = client.buffer_from_host(&bytes(&y), ElementType::F32, &dims, device).unwrap();
    let outputs = program.execute(&[&x_on_device, &y_on_device]).unwrap();
    assert_eq!(outputs.len(), 3);
    assert_eq!(outputs[1].dims(), [3, 2]);
    assert_eq!(outputs[2].element(), ElementType::Pred);

    let mut sum = vec![0u8; outputs[0].host_size().unwrap()];
    outputs[0].to_host(&mut sum).unwrap();
    assert_eq!(floats(&sum), x.iter().zip(&y).map(|(x, y)| x + y).collect::<Vec<_>>());
    // Into memory that is aligned for bytes only.
    let mut turned = vec![0u8; 24 + 1];
    outputs[1].to_host(&mut turned[1..]).unwrap();
    assert_eq!(floats(&turned[1..]), [x[0], x[3], x[1], x[4], x[2], x[5]]);
    let mut less = vec![9u8; 6];
    outputs[2].to_host(&mut less).unwrap();
    assert_eq!(less, x.iter().zip(&y).map(|(x, y)| u8::from(x < y)).collect::<Vec<_>>());
}

fn loads_once(name: &str, version: ApiVersion) {
    let plugin = load(name);
    assert_eq!(plugin.version(), version);
    assert!(Arc::ptr_eq(&plugin, &load(name)));
    println!("{:?} {:?}", plugin, plugin.attributes().unwrap());
}

fn shows_four_devices(name: &str) {
    let client = client(name);
    assert_eq!(client.platform_name(), "cpu");
    assert_eq!(client.process_index(), 0);
    assert_eq!(client.devices().len(), 4);
    println!("{client:?} {}", client.platform_version());
    for (index, device) in client.devices().iter().enumerate() {
        println!(
            "{device:?} {} {} {:?} {:?}",
            device.id(),
            device.kind(),
            device.local_hardware_id(),
            client.memory_stats(index)
        );
        assert!(!device.kind().is_empty());
    }
}

fn compiles_and_runs(name: &str) {
    let client = client(name);
    for device in 0..client.devices().len() {
        let program = compile(&client, device);
        assert_eq!(program.num_outputs(), 3);
        assert_eq!(program.devices(), [device]);
        run_and_check(&client, &program, device, 1.5);
    }
}

macro_rules! plugins {
    ($($module:ident $name:literal $minor:literal)*) => {$(
        mod $module {
            use super::*;
            #[test]
            fn loads_once() {
                super::loads_once($name, ApiVersion { major: 0, minor: $minor });
            }
            #[test]
            fn shows_four_devices() {
                super::shows_four_devices($name);
            }
            #[test]
            fn compiles_and_runs() {
                super::compiles_and_runs($name);
            }
        }
    )*};
}

plugins! {
    lammps "lammps-jax-pjrt-cpu" 115
    fastatomstruct "fastatomstruct-xla-cpu" 106
    xla_cpu_pjrt "xla-cpu-pjrt" 81
}
