//! The floating-point environment of a call.
//!
//! The sampling arithmetic needs the IEEE 754 defaults: round to nearest even, keep subnormals, no traps. The
//! caller's thread may have other settings. So its control bits and its sticky exception flags are saved and
//! restored.

use std::arch::asm;

/// While a value exists, its thread uses the default settings, and threads that it starts inherit them. Dropping it
/// restores the caller's control bits and exception flags.
pub(super) struct FloatEnvironment {
    caller: Registers,
}

impl FloatEnvironment {
    pub(super) fn standard() -> Self {
        let caller = read();
        write(STANDARD);
        FloatEnvironment { caller }
    }
}

impl Drop for FloatEnvironment {
    fn drop(&mut self) {
        write(self.caller);
    }
}

/// MXCSR, which contains both the control bits and the exception flags.
#[cfg(target_arch = "x86_64")]
type Registers = u32;

/// Round to nearest, every exception masked, no exception flag.
#[cfg(target_arch = "x86_64")]
const STANDARD: Registers = 0x1f80;

#[cfg(target_arch = "x86_64")]
fn read() -> Registers {
    let mut mxcsr: Registers = 0;
    // SAFETY: the instruction stores 32 bits to a local variable.
    unsafe { asm!("stmxcsr [{}]", in(reg) &mut mxcsr, options(nostack, preserves_flags)) };
    mxcsr
}

#[cfg(target_arch = "x86_64")]
fn write(mxcsr: Registers) {
    // SAFETY: the value is the reset value or a value that was read from the register, so no reserved bit is set.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &mxcsr, options(nostack, preserves_flags)) };
}

/// FPCR, which contains the control bits, and FPSR, which contains the exception flags.
#[cfg(target_arch = "aarch64")]
type Registers = (u64, u64);

/// Round to nearest, no trap, no exception flag.
#[cfg(target_arch = "aarch64")]
const STANDARD: Registers = (0, 0);

#[cfg(target_arch = "aarch64")]
fn read() -> Registers {
    let (fpcr, fpsr): Registers;
    // SAFETY: the instructions read two registers that user code may read.
    unsafe {
        asm!("mrs {}, fpcr", "mrs {}, fpsr", out(reg) fpcr, out(reg) fpsr, options(nomem, nostack, preserves_flags))
    };
    (fpcr, fpsr)
}

#[cfg(target_arch = "aarch64")]
fn write((fpcr, fpsr): Registers) {
    // SAFETY: the values are the reset values or values that were read from the registers.
    unsafe {
        asm!("msr fpcr, {}", "msr fpsr, {}", in(reg) fpcr, in(reg) fpsr, options(nomem, nostack, preserves_flags))
    };
}
