//! What a kernel is written for.

use std::fmt;

/// The device family of a program. The arrays that a program takes and returns are the same for all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Any PJRT plugin: StableHLO and nothing else.
    Portable,
    /// A TPU, with what its kernels must know of it.
    Tpu(Chip),
}

/// One device of a TPU generation as a program sees it: one chip, or one of the chip's cores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chip {
    /// The generation, as in names of topologies: `v5e`.
    pub name: &'static str,
    /// TensorCores of the device. More than one where a chip's cores act as one device.
    pub tensor_cores: usize,
    /// Vector memory of each core.
    pub vmem_bytes: usize,
    /// Of the device's share of the chip's memory.
    pub hbm_bytes_per_second: u64,
    /// Cycles a second, one bundle of instructions each.
    pub clock_hz: u64,
}

/// What is known of a generation, whole chips.
struct Generation {
    name: &'static str,
    /// What plugins call the device. libtpu 0.0.52 uses the first.
    kinds: &'static [&'static str],
    chip_cores: usize,
    /// Cores of a device where the plugin does not say, as libtpu's topologies have it.
    device_cores: usize,
    vmem_bytes: usize,
    hbm_bytes_per_second: u64,
    clock_hz: u64,
}

/// Vector memory and bandwidth as in jax 0.10.2 (`pallas/mosaic/tpu_info.py`), which libtpu's attributes do not tell.
/// The clock follows from the published peak of bf16 products and the number of multipliers; for v6e and 7x the latter is
/// a guess (two products a cell and cycle), so the clock is one too. Nothing but estimates of time depends on it.
const GENERATIONS: [Generation; 5] = [
    Generation {
        name: "v4",
        kinds: &["TPU v4"],
        chip_cores: 2,
        device_cores: 1,
        vmem_bytes: 16 << 20,
        hbm_bytes_per_second: 1_230_000_000_000,
        clock_hz: 1_050_000_000,
    },
    Generation {
        name: "v5e",
        kinds: &["TPU v5 lite", "TPU v5e"],
        chip_cores: 1,
        device_cores: 1,
        vmem_bytes: 128 << 20,
        hbm_bytes_per_second: 820_000_000_000,
        clock_hz: 1_500_000_000,
    },
    Generation {
        name: "v5p",
        kinds: &["TPU v5", "TPU v5p"],
        chip_cores: 2,
        device_cores: 2,
        vmem_bytes: 64 << 20,
        hbm_bytes_per_second: 2_460_000_000_000,
        clock_hz: 1_750_000_000,
    },
    Generation {
        name: "v6e",
        kinds: &["TPU v6 lite", "TPU v6e"],
        chip_cores: 1,
        device_cores: 1,
        vmem_bytes: 128 << 20,
        hbm_bytes_per_second: 1_640_000_000_000,
        clock_hz: 1_750_000_000,
    },
    Generation {
        name: "tpu7x",
        kinds: &["TPU7x"],
        chip_cores: 2,
        device_cores: 1,
        vmem_bytes: 64 << 20,
        hbm_bytes_per_second: 7_400_000_000_000,
        clock_hz: 2_200_000_000,
    },
];

impl Generation {
    fn chip(&self, cores: Option<usize>) -> Chip {
        let tensor_cores = cores.unwrap_or(self.device_cores);
        Chip {
            name: self.name,
            tensor_cores,
            vmem_bytes: self.vmem_bytes,
            hbm_bytes_per_second: self.hbm_bytes_per_second * tensor_cores as u64 / self.chip_cores as u64,
            clock_hz: self.clock_hz,
        }
    }
}

impl Target {
    /// The target for a device, by what its plugin calls platform and device, and the cores that the device has if the
    /// plugin says so (libtpu's attribute `num_cores`). A TPU that is not known runs portable programs.
    pub fn of(platform: &str, device_kind: &str, cores: Option<usize>) -> Target {
        if platform != "tpu" {
            return Target::Portable;
        }
        let known = GENERATIONS.iter().find(|generation| generation.kinds.contains(&device_kind));
        match known {
            Some(generation) if cores.is_none_or(|n| (1..=generation.chip_cores).contains(&n)) => {
                Target::Tpu(generation.chip(cores))
            }
            _ => {
                let cores = cores.map_or_else(String::new, |cores| format!(" with {cores} core(s)"));
                log::warn!(
                    "no kernels are written for a TPU of kind {device_kind:?}{cores}; it runs the portable programs"
                );
                Target::Portable
            }
        }
    }

    /// The target of that name: one of [`Target::names`].
    pub fn named(name: &str) -> Option<Target> {
        if name == "portable" {
            return Some(Target::Portable);
        }
        GENERATIONS
            .iter()
            .find(|generation| generation.name == name)
            .map(|known| Target::Tpu(known.chip(None)))
    }

    /// Every name that [`Target::named`] takes.
    pub fn names() -> impl Iterator<Item = &'static str> {
        std::iter::once("portable").chain(GENERATIONS.iter().map(|generation| generation.name))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Portable => f.write_str("portable"),
            Target::Tpu(chip) => f.write_str(chip.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chip(kind: &str, cores: Option<usize>) -> Option<Chip> {
        match Target::of("tpu", kind, cores) {
            Target::Tpu(chip) => Some(chip),
            Target::Portable => None,
        }
    }

    #[test]
    fn kinds_lead_to_generations() {
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
    fn a_core_that_is_a_device_has_its_share_of_the_memory() {
        let (half, whole) = (chip("TPU v4", Some(1)).unwrap(), chip("TPU v4", Some(2)).unwrap());
        assert_eq!(2 * half.hbm_bytes_per_second, whole.hbm_bytes_per_second);
        assert_eq!((half.vmem_bytes, whole.tensor_cores), (whole.vmem_bytes, 2));
    }
}
