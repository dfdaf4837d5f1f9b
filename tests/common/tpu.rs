//! The TPUs of the tests of TPU programs.

use nucleus::kernels::{embed, tpu, Chip, Spec, Target};

use super::interpreter::Device;
pub use super::interpreter::{kinds_from, problem_of, some_hundredths, spec, Cases, Checked};

pub const MIB: usize = 1 << 20;

/// The generations, each with a libtpu topology of that generation.
pub const GENERATIONS: [(&str, &str); 5] = [
    ("v4", "v4:2x2x1"),
    ("v5e", "v5e:2x2"),
    ("v5p", "v5p:2x2x1"),
    ("v6e", "v6e:2x2"),
    ("tpu7x", "tpu7x:2x2x1"),
];

/// Returns the chip of a generation.
pub fn chip(name: &str) -> Chip {
    match Target::named(name) {
        Some(Target::Tpu(chip)) => chip,
        _ => panic!("{name} is no TPU"),
    }
}

/// Returns chips with different sizes of VMEM. There is one chip for each layout that `Layout::new` can return, because
/// each layout has a different kernel text.
pub fn layouts(spec: &Spec) -> Vec<Chip> {
    let mut found: Vec<(String, Chip)> = Vec::new();
    let mut vmem = 2 * MIB;
    while vmem <= 128 * MIB {
        let chip = Chip { vmem_bytes: vmem, ..chip("v5e") };
        let text = tpu::kernel_text(spec, &chip);
        if found.iter().all(|(other, _)| *other != text) {
            found.push((text, chip));
        }
        vmem += vmem / 24;
    }
    found.into_iter().map(|(_, chip)| chip).collect()
}

impl Device for Chip {
    fn name(&self) -> String {
        format!("{}_{}", self.name, self.vmem_bytes)
    }

    fn program(&self, spec: &Spec) -> String {
        tpu::emit(spec, self)
    }

    fn function(&self, spec: &Spec, name: &str) -> String {
        embed::emit(spec, &Target::Tpu(*self), name)
    }
}

/// Returns a program that only calls the function of [`embed::emit`].
pub fn embedded_program(spec: &Spec, target: &Target) -> String {
    super::interpreter::embedded_program(&embed::emit(spec, target, "sample_here"))
}
