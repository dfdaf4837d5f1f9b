//! Registers and constants.

use std::fmt;

/// The classes of registers.
#[derive(Clone, Copy)]
pub(super) enum Class {
    /// 1 bit.
    Predicate,
    /// 16 bits.
    Half,
    /// 32 bits: an integer or a float.
    Word,
    /// 64 bits: an integer.
    Wide,
    /// A binary64 number.
    Double,
}

impl Class {
    pub(super) const ALL: [Class; 5] =
        [Class::Predicate, Class::Half, Class::Word, Class::Wide, Class::Double];
    pub(super) const COUNT: usize = Class::ALL.len();

    pub(super) fn declared_type(self) -> &'static str {
        match self {
            Class::Predicate => ".pred",
            Class::Half => ".b16",
            Class::Word => ".b32",
            Class::Wide => ".b64",
            Class::Double => ".f64",
        }
    }

    pub(super) fn prefix(self) -> &'static str {
        match self {
            Class::Predicate => "%p",
            Class::Half => "%h",
            Class::Word => "%r",
            Class::Wide => "%d",
            Class::Double => "%f",
        }
    }
}

/// A 32-bit integer: a register or a constant.
#[derive(Clone, Copy, Debug)]
pub struct Int(Source<i32>);

/// A binary32 number: a register or a constant.
#[derive(Clone, Copy, Debug)]
pub struct Float(Source<f32>);

/// An unsigned 64-bit integer: a register or a constant.
#[derive(Clone, Copy, Debug)]
pub struct Wide(Source<u64>);

/// A binary64 number: a register or a constant.
#[derive(Clone, Copy, Debug)]
pub struct Double(Source<f64>);

/// A truth value.
#[derive(Clone, Copy, Debug)]
pub struct Mask(u32);

/// A 32-bit integer that can be assigned. Each thread has its own.
#[derive(Clone, Copy, Debug)]
pub struct Variable(pub(super) u32);

/// A 64-bit integer that can be assigned. Each thread has its own.
#[derive(Clone, Copy, Debug)]
pub struct WideVariable(pub(super) u32);

#[derive(Clone, Copy, Debug)]
enum Source<T> {
    Register(u32),
    Constant(T),
}

impl Int {
    pub(super) fn register(number: u32) -> Int {
        Int(Source::Register(number))
    }

    pub(super) fn constant(value: i32) -> Int {
        Int(Source::Constant(value))
    }

    /// The same bits as a float.
    pub(super) fn as_float(self) -> Float {
        match self.0 {
            Source::Register(number) => Float::register(number),
            Source::Constant(value) => Float::constant(f32::from_bits(value as u32)),
        }
    }
}

impl Float {
    pub(super) fn register(number: u32) -> Float {
        Float(Source::Register(number))
    }

    pub(super) fn constant(value: f32) -> Float {
        Float(Source::Constant(value))
    }

    /// The same bits as an integer.
    pub(super) fn as_int(self) -> Int {
        match self.0 {
            Source::Register(number) => Int::register(number),
            Source::Constant(value) => Int::constant(value.to_bits() as i32),
        }
    }
}

impl Wide {
    pub(super) fn register(number: u32) -> Wide {
        Wide(Source::Register(number))
    }

    pub(super) fn constant(value: u64) -> Wide {
        Wide(Source::Constant(value))
    }
}

impl Double {
    pub(super) fn register(number: u32) -> Double {
        Double(Source::Register(number))
    }

    pub(super) fn constant(value: f64) -> Double {
        Double(Source::Constant(value))
    }
}

impl Mask {
    pub(super) fn register(number: u32) -> Mask {
        Mask(number)
    }
}

impl fmt::Display for Int {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Source::Register(number) => write!(f, "%r{number}"),
            Source::Constant(value) => write!(f, "{value}"),
        }
    }
}

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Source::Register(number) => write!(f, "%r{number}"),
            Source::Constant(value) => write!(f, "0f{:08X}", value.to_bits()),
        }
    }
}

impl fmt::Display for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Source::Register(number) => write!(f, "%d{number}"),
            Source::Constant(value) => write!(f, "0x{value:x}"),
        }
    }
}

impl fmt::Display for Double {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Source::Register(number) => write!(f, "%f{number}"),
            Source::Constant(value) => write!(f, "0d{:016X}", value.to_bits()),
        }
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%p{}", self.0)
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%r{}", self.0)
    }
}

impl fmt::Display for WideVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%d{}", self.0)
    }
}
