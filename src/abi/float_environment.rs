//! The floating-point environment that the contract's arithmetic needs, whatever the caller's thread has set.

use std::arch::asm;

/// The calling thread computes as IEEE 754 has it (round to nearest even, no flushing, no traps) until this is
/// dropped, which restores what the caller had. Threads that are started meanwhile inherit it.
pub(super) struct FloatEnvironment {
    callers: Control,
}

#[cfg(target_arch = "x86_64")]
type Control = u32;
#[cfg(not(target_arch = "x86_64"))]
type Control = u64;

/// Round to nearest; on x86-64 with every exception masked.
#[cfg(target_arch = "x86_64")]
const STANDARD: Control = 0x1f80;
#[cfg(not(target_arch = "x86_64"))]
const STANDARD: Control = 0;

impl FloatEnvironment {
    pub(super) fn standard() -> Self {
        let callers = read();
        if callers != STANDARD {
            write(STANDARD);
        }
        FloatEnvironment { callers }
    }
}

impl Drop for FloatEnvironment {
    fn drop(&mut self) {
        if self.callers != STANDARD {
            write(self.callers);
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn read() -> Control {
    let mut control: Control = 0;
    // SAFETY: stores 32 bits to a local.
    unsafe { asm!("stmxcsr [{}]", in(reg) &mut control, options(nostack, preserves_flags)) };
    control
}

#[cfg(target_arch = "x86_64")]
fn write(control: Control) {
    // SAFETY: the value is the reset value or was read from the register, so no reserved bit is set.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &control, options(nostack, preserves_flags)) };
}

#[cfg(target_arch = "aarch64")]
fn read() -> Control {
    let control: Control;
    // SAFETY: reads a register that user code may read.
    unsafe { asm!("mrs {}, fpcr", out(reg) control, options(nomem, nostack, preserves_flags)) };
    control
}

#[cfg(target_arch = "aarch64")]
fn write(control: Control) {
    // SAFETY: the value is the reset value or was read from the register.
    unsafe { asm!("msr fpcr, {}", in(reg) control, options(nomem, nostack, preserves_flags)) };
}
