//! The device that a kernel is written for.

use std::fmt;

/// The device family of a program. Programs take and return the same arrays for every target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Any PJRT plugin: StableHLO only.
    Portable,
    /// A TPU, with the properties that determine its kernels.
    Tpu(Chip),
    /// An NVIDIA GPU, with the properties that determine its kernels.
    Gpu(Gpu),
}

/// The properties of a GPU that affect programs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// The name of the model, for example `h100`.
    pub name: &'static str,
    /// The number of streaming multiprocessors.
    pub multiprocessors: usize,
}

/// A model of GPUs.
struct GpuModel {
    name: &'static str,
    /// A part of the names that plugins use for the model.
    part: &'static str,
    multiprocessors: usize,
}

/// The known models. The numbers are from NVIDIA's data sheets and white papers. If a model has several variants, the
/// numbers are those of the most common variant. The numbers affect only speed.
const GPUS: [GpuModel; 9] = [
    GpuModel { name: "gh200", part: "GH200", multiprocessors: 132 },
    GpuModel { name: "h100", part: "H100", multiprocessors: 132 },
    GpuModel { name: "h200", part: "H200", multiprocessors: 132 },
    GpuModel { name: "a100", part: "A100", multiprocessors: 108 },
    GpuModel { name: "gb200", part: "GB200", multiprocessors: 148 },
    GpuModel { name: "b200", part: "B200", multiprocessors: 148 },
    GpuModel { name: "l40", part: "L40", multiprocessors: 142 },
    GpuModel { name: "l4", part: "L4", multiprocessors: 58 },
    GpuModel { name: "a10", part: "A10", multiprocessors: 72 },
];

/// The platform name of CUDA plugins.
const CUDA_PLATFORM: &str = "cuda";

/// Returns the model of a device if it is a known GPU.
fn known_gpu(platform: &str, device_kind: &str) -> Option<Gpu> {
    let known = GPUS.iter().find(|model| device_kind.contains(model.part));
    known.filter(|_| platform == CUDA_PLATFORM).map(GpuModel::gpu)
}

impl GpuModel {
    fn gpu(&self) -> Gpu {
        let &GpuModel { name, multiprocessors, .. } = self;
        Gpu { name, multiprocessors }
    }
}

/// One device of a TPU generation as a program sees it: a chip, or one core of a chip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chip {
    /// The name of the generation in the names of topologies, for example `v5e`.
    pub name: &'static str,
    /// The number of TensorCores of the device. It is greater than one if the cores of a chip form one device.
    pub tensor_cores: usize,
    /// The vector memory of each core, in bytes.
    pub vmem_bytes: usize,
    /// Whether a core computes with packed bf16. Then one instruction processes two elements per lane.
    pub packs_bf16: bool,
    /// The device's share of the chip's memory bandwidth, in bytes per second.
    pub hbm_bytes_per_second: u64,
    /// The clock frequency in hertz. A core issues one bundle of instructions per cycle.
    pub clock_hz: u64,
}

/// The properties of a generation, per chip.
struct Generation {
    name: &'static str,
    /// The names that plugins use for the device. libtpu 0.0.52 uses the first name.
    kinds: &'static [&'static str],
    chip_cores: usize,
    /// The number of cores of a device if the plugin does not report it, as in libtpu's topologies.
    device_cores: usize,
    vmem_bytes: usize,
    packs_bf16: bool,
    hbm_bytes_per_second: u64,
    clock_hz: u64,
}

/// The known generations.
///
/// Vector memory and bandwidth are from jax 0.10.2 (`pallas/mosaic/tpu_info.py`); libtpu does not report them. The
/// values of `packs_bf16` are from the schedules of libtpu 0.0.52. If a core does not pack bf16, its schedules unpack
/// every bf16 operand. The clock is derived from the published peak rate of bf16 products and the number of
/// multipliers. For v6e and 7x the number of multipliers is an assumption (two products per cell and cycle), so their
/// clock is an assumption too. Only time estimates depend on the clock.
const GENERATIONS: [Generation; 5] = [
    Generation {
        name: "v4",
        kinds: &["TPU v4"],
        chip_cores: 2,
        device_cores: 1,
        vmem_bytes: 16 << 20,
        packs_bf16: false,
        hbm_bytes_per_second: 1_230_000_000_000,
        clock_hz: 1_050_000_000,
    },
    Generation {
        name: "v5e",
        kinds: &["TPU v5 lite", "TPU v5e"],
        chip_cores: 1,
        device_cores: 1,
        vmem_bytes: 128 << 20,
        packs_bf16: false,
        hbm_bytes_per_second: 820_000_000_000,
        clock_hz: 1_500_000_000,
    },
    Generation {
        name: "v5p",
        kinds: &["TPU v5", "TPU v5p"],
        chip_cores: 2,
        device_cores: 2,
        vmem_bytes: 64 << 20,
        packs_bf16: false,
        hbm_bytes_per_second: 2_460_000_000_000,
        clock_hz: 1_750_000_000,
    },
    Generation {
        name: "v6e",
        kinds: &["TPU v6 lite", "TPU v6e"],
        chip_cores: 1,
        device_cores: 1,
        vmem_bytes: 128 << 20,
        packs_bf16: true,
        hbm_bytes_per_second: 1_640_000_000_000,
        clock_hz: 1_750_000_000,
    },
    Generation {
        name: "tpu7x",
        kinds: &["TPU7x"],
        chip_cores: 2,
        device_cores: 1,
        vmem_bytes: 64 << 20,
        packs_bf16: true,
        hbm_bytes_per_second: 7_400_000_000_000,
        clock_hz: 2_200_000_000,
    },
];

/// The platform name of TPU plugins.
const TPU_PLATFORM: &str = "tpu";

/// Returns the chip of a device, if it is a known TPU with a possible number of cores.
fn known_tpu(platform: &str, device_kind: &str, cores: Option<usize>) -> Option<Chip> {
    let known = GENERATIONS.iter().find(|generation| generation.kinds.contains(&device_kind))?;
    let possible = cores.is_none_or(|cores| (1..=known.chip_cores).contains(&cores));
    (platform == TPU_PLATFORM && possible).then(|| known.chip(cores))
}

impl Generation {
    /// Returns one device of the generation, with `cores` cores.
    fn chip(&self, cores: Option<usize>) -> Chip {
        let tensor_cores = cores.unwrap_or(self.device_cores);
        Chip {
            name: self.name,
            tensor_cores,
            vmem_bytes: self.vmem_bytes,
            packs_bf16: self.packs_bf16,
            hbm_bytes_per_second: self.hbm_bytes_per_second * tensor_cores as u64 / self.chip_cores as u64,
            clock_hz: self.clock_hz,
        }
    }
}

impl Target {
    /// Returns the target for a device.
    ///
    /// `platform` and `device_kind` are the names that the plugin reports. `cores` is the device's number of cores,
    /// if the plugin reports it (libtpu's attribute `num_cores`). An unknown TPU runs portable programs, and
    /// [`portable_reason`](Target::portable_reason) returns the reason.
    pub fn of(platform: &str, device_kind: &str, cores: Option<usize>) -> Target {
        known_tpu(platform, device_kind, cores)
            .map(Target::Tpu)
            .or_else(|| known_gpu(platform, device_kind).map(Target::Gpu))
            .unwrap_or(Target::Portable)
    }

    /// Returns the reason why [`Target::of`] returns [`Target::Portable`] for a TPU or an NVIDIA GPU. Returns `None`
    /// for a TPU or GPU that has kernels, and for every other device.
    ///
    /// A caller that creates a sampler or compiles programs should log the reason.
    pub fn portable_reason(platform: &str, device_kind: &str, cores: Option<usize>) -> Option<String> {
        let family = match platform {
            TPU_PLATFORM => "TPU",
            CUDA_PLATFORM => "GPU",
            _ => return None,
        };
        if Target::of(platform, device_kind, cores) != Target::Portable {
            return None;
        }
        let cores = cores.map_or_else(String::new, |cores| format!(" with {cores} core(s)"));
        Some(format!(
            "there are no kernels for a {family} of kind {device_kind:?}{cores}: it runs the portable programs"
        ))
    }

    /// Returns the target with this name, one of [`Target::names`].
    pub fn named(name: &str) -> Option<Target> {
        if name == "portable" {
            return Some(Target::Portable);
        }
        if let Some(model) = GPUS.iter().find(|model| model.name == name) {
            return Some(Target::Gpu(model.gpu()));
        }
        GENERATIONS
            .iter()
            .find(|generation| generation.name == name)
            .map(|known| Target::Tpu(known.chip(None)))
    }

    /// Returns every name that [`Target::named`] accepts.
    pub fn names() -> impl Iterator<Item = &'static str> {
        std::iter::once("portable")
            .chain(GENERATIONS.iter().map(|generation| generation.name))
            .chain(GPUS.iter().map(|model| model.name))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Portable => f.write_str("portable"),
            Target::Tpu(chip) => f.write_str(chip.name),
            Target::Gpu(gpu) => f.write_str(gpu.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chip(kind: &str, cores: Option<usize>) -> Option<Chip> {
        match Target::of("tpu", kind, cores) {
            Target::Tpu(chip) => Some(chip),
            Target::Portable | Target::Gpu(_) => None,
        }
    }

    #[test]
    fn device_kinds_map_to_generations() {
        for (kind, name) in [
            ("TPU v4", "v4"),
            ("TPU v5 lite", "v5e"),
            ("TPU v5", "v5p"),
            ("TPU v6 lite", "v6e"),
            ("TPU7x", "tpu7x"),
        ] {
            assert_eq!(chip(kind, None).unwrap().name, name);
            assert_eq!(Target::named(name), chip(kind, None).map(Target::Tpu));
        }
        assert_eq!(chip("TPU v99", None), None);
        assert_eq!(chip("TPU v5 lite", Some(2)), None);
        assert_eq!(Target::of("cpu", "TPU v4", None), Target::Portable);
        assert_eq!(Target::named("v99"), None);
        for name in Target::names() {
            assert_eq!(Target::named(name).unwrap().to_string(), name);
        }
    }

    #[test]
    fn only_an_unknown_tpu_or_gpu_has_a_reason_to_be_portable() {
        for (kind, cores, words) in [("TPU v99", None, "\"TPU v99\":"), ("TPU v5 lite", Some(2), "2 core(s)")]
        {
            let reason = Target::portable_reason("tpu", kind, cores).unwrap();
            assert!(reason.contains(words), "{reason}");
        }
        assert_eq!(Target::portable_reason("tpu", "TPU v4", Some(2)), None);
        let reason = Target::portable_reason("cuda", "Tesla V100", None).unwrap();
        assert!(reason.contains("a GPU of kind \"Tesla V100\""), "{reason}");
        assert_eq!(Target::portable_reason("cuda", "NVIDIA H100 80GB HBM3", None), None);
        assert_eq!(Target::portable_reason("cpu", "cpu", None), None);
    }

    #[test]
    fn a_core_that_is_a_device_has_its_share_of_the_bandwidth() {
        let (core, chip) = (chip("TPU v4", Some(1)).unwrap(), chip("TPU v4", Some(2)).unwrap());
        assert_eq!(2 * core.hbm_bytes_per_second, chip.hbm_bytes_per_second);
        assert_eq!((core.vmem_bytes, chip.tensor_cores), (chip.vmem_bytes, 2));
    }
}
