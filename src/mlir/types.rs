//! Element types, shapes and types of values.

use std::fmt;
use std::ops::Deref;

/// Element types of all dialects. `I32` and `I1` are MLIR's signless integers; StableHLO treats them as signed and
/// boolean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Elem {
    I1,
    I32,
    U16,
    U32,
    U64,
    F32,
    Bf16,
    F16,
    /// MLIR's type for offsets into memory.
    Index,
    /// The state of an asynchronous copy on a TPU.
    DmaSemaphore,
}

impl Elem {
    /// Every element type.
    pub const ALL: [Elem; 10] = [
        Elem::I1,
        Elem::I32,
        Elem::U16,
        Elem::U32,
        Elem::U64,
        Elem::F32,
        Elem::Bf16,
        Elem::F16,
        Elem::Index,
        Elem::DmaSemaphore,
    ];

    /// Returns the width in bits. Returns `None` for types whose width depends on the target.
    pub fn bits(self) -> Option<u32> {
        match self {
            Elem::I1 => Some(1),
            Elem::U16 | Elem::Bf16 | Elem::F16 => Some(16),
            Elem::I32 | Elem::U32 | Elem::F32 => Some(32),
            Elem::U64 => Some(64),
            Elem::Index | Elem::DmaSemaphore => None,
        }
    }

    /// Whether the type is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, Elem::F32 | Elem::Bf16 | Elem::F16)
    }

    /// Whether the type is an integer wider than one bit.
    pub fn is_integer(self) -> bool {
        matches!(self, Elem::I32 | Elem::U16 | Elem::U32 | Elem::U64)
    }

    /// Whether the type is the type of truth values.
    pub fn is_mask(self) -> bool {
        self == Elem::I1
    }

    /// Parses the bits of a constant in MLIR's syntax: a decimal integer, bits in hexadecimal, `true` or `false`.
    pub(super) fn parse(self, literal: &str) -> Option<u64> {
        let width = self.bits()?;
        let bits = match (literal, literal.strip_prefix("0x")) {
            ("false" | "true", _) => u64::from(literal == "true"),
            (_, Some(digits)) => u64::from_str_radix(digits, 16).ok()?,
            // Zero is the only decimal number whose bits are the same in every type.
            ("0", None) => 0,
            (_, None) if self.is_integer() => {
                let number: i128 = literal.parse().ok()?;
                let range = if self == Elem::I32 { -(1 << 31)..1 << 31 } else { 0..1 << width };
                range.contains(&number).then(|| number as u64 & (u64::MAX >> (64 - width)))?
            }
            _ => return None,
        };
        (bits <= u64::MAX >> (64 - width)).then_some(bits)
    }

    /// Writes a constant's bits in MLIR's syntax. Floats are written as bits, which avoids decimal rounding.
    fn write_constant(self, f: &mut fmt::Formatter<'_>, bits: u64) -> fmt::Result {
        match self {
            Elem::I1 => write!(f, "{}", bits != 0),
            Elem::I32 | Elem::Index => write!(f, "{}", bits as u32 as i32),
            Elem::U16 | Elem::U32 | Elem::U64 | Elem::DmaSemaphore => write!(f, "{bits}"),
            Elem::F32 => write!(f, "0x{bits:08X}"),
            Elem::Bf16 | Elem::F16 => write!(f, "0x{bits:04X}"),
        }
    }
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Elem::I1 => "i1",
            Elem::I32 => "i32",
            Elem::U16 => "ui16",
            Elem::U32 => "ui32",
            Elem::U64 => "ui64",
            Elem::F32 => "f32",
            Elem::Bf16 => "bf16",
            Elem::F16 => "f16",
            Elem::Index => "index",
            Elem::DmaSemaphore => "!tpu.dma_semaphore",
        })
    }
}

/// The largest number of dimensions of a value.
const MAX_RANK: usize = 4;

/// The sizes of a value's dimensions, stored inline so that values can be copied.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dims {
    /// Unused entries are zero, so that the derived equality is correct.
    sizes: [usize; MAX_RANK],
    rank: u8,
}

impl Dims {
    /// Returns the dimensions `sizes`. Panics if there are more than four.
    pub fn new(sizes: &[usize]) -> Dims {
        assert!(sizes.len() <= MAX_RANK, "{sizes:?} has more than {MAX_RANK} dimensions");
        let mut dims = Dims { sizes: [0; MAX_RANK], rank: sizes.len() as u8 };
        dims.sizes[..sizes.len()].copy_from_slice(sizes);
        dims
    }
}

impl Deref for Dims {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.sizes[..usize::from(self.rank)]
    }
}

impl fmt::Debug for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// The memory that a memref points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Space {
    /// HBM, which only asynchronous copies can access.
    Any,
    Vmem,
    Smem,
    Semaphore,
}

/// The kind of MLIR type that contains elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Container {
    /// A single element.
    Scalar,
    /// An immutable array.
    Tensor,
    /// An array in registers.
    Vector,
    /// A reference to an array in memory.
    Memref(Space),
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Type {
    container: Container,
    elem: Elem,
    dims: Dims,
}

impl Type {
    /// Returns the type of a single element.
    pub fn scalar(elem: Elem) -> Type {
        Type { container: Container::Scalar, elem, dims: Dims::new(&[]) }
    }

    /// Returns the type of an immutable array: `tensor<…>`.
    pub fn tensor(elem: Elem, dims: &[usize]) -> Type {
        Type { container: Container::Tensor, elem, dims: Dims::new(dims) }
    }

    /// Returns the type of an array in registers: `vector<…>`.
    pub fn vector(elem: Elem, dims: &[usize]) -> Type {
        Type { container: Container::Vector, elem, dims: Dims::new(dims) }
    }

    /// Returns the type of a reference to an array in the memory `space`: `memref<…>`.
    pub fn memref(elem: Elem, dims: &[usize], space: Space) -> Type {
        Type { container: Container::Memref(space), elem, dims: Dims::new(dims) }
    }

    /// Returns the kind of type that contains the elements.
    pub fn container(&self) -> Container {
        self.container
    }

    /// Returns the type of the elements.
    pub fn elem(&self) -> Elem {
        self.elem
    }

    /// Returns the sizes of the dimensions. A scalar has no dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Returns the number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Returns the type with the same container and dimensions, but with elements of type `elem`.
    pub fn with_elem(self, elem: Elem) -> Type {
        Type { elem, ..self }
    }

    /// Returns the type with the same container and element type, but with dimensions `dims`.
    pub fn with_dims(self, dims: &[usize]) -> Type {
        Type { dims: Dims::new(dims), ..self }
    }

    /// Returns the type with the container and dimensions of `shape` and the elements of this type.
    pub fn with_shape_of(self, shape: Type) -> Type {
        Type { elem: self.elem, ..shape }
    }

    /// Whether the two types differ at most in the type of their elements.
    pub fn same_shape(&self, other: Type) -> bool {
        self.with_elem(other.elem) == other
    }

    /// Whether the type is `memref<…>`.
    pub fn is_memref(&self) -> bool {
        matches!(self.container, Container::Memref(_))
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.container {
            Container::Scalar => return self.elem.fmt(f),
            Container::Tensor => "tensor<",
            Container::Vector => "vector<",
            Container::Memref(_) => "memref<",
        })?;
        for size in self.dims.iter() {
            write!(f, "{size}x")?;
        }
        self.elem.fmt(f)?;
        if let Container::Memref(space) = self.container {
            let space = match space {
                Space::Any => "any",
                Space::Vmem => "vmem",
                Space::Smem => "smem",
                Space::Semaphore => "semaphore_mem",
            };
            write!(f, ", #tpu.memory_space<{space}>")?;
        }
        f.write_str(">")
    }
}

/// A constant of type `ty` whose elements all have the same bits. It is displayed as MLIR's attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Constant {
    /// The type of the constant.
    pub ty: Type,
    /// The bits of each element, zero-extended.
    pub bits: u64,
}

impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Constant { ty, bits } = *self;
        match (ty.container, ty.elem) {
            (Container::Scalar, Elem::I1) => ty.elem.write_constant(f, bits),
            (Container::Scalar, _) => {
                ty.elem.write_constant(f, bits)?;
                write!(f, " : {ty}")
            }
            _ => {
                f.write_str("dense<")?;
                ty.elem.write_constant(f, bits)?;
                write!(f, "> : {ty}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_spelled_as_mlir_spells_them() {
        for (ty, text) in [
            (Type::scalar(Elem::Index), "index"),
            (Type::tensor(Elem::U16, &[]), "tensor<ui16>"),
            (Type::tensor(Elem::F32, &[2, 128]), "tensor<2x128xf32>"),
            (Type::vector(Elem::I1, &[8, 128]), "vector<8x128xi1>"),
            (Type::memref(Elem::Bf16, &[4], Space::Any), "memref<4xbf16, #tpu.memory_space<any>>"),
            (
                Type::memref(Elem::DmaSemaphore, &[], Space::Semaphore),
                "memref<!tpu.dma_semaphore, #tpu.memory_space<semaphore_mem>>",
            ),
        ] {
            assert_eq!(ty.to_string(), text);
        }
    }

    #[test]
    fn constants_are_spelled_as_mlir_spells_them() {
        let scalar = Type::scalar;
        for (ty, bits, text) in [
            (scalar(Elem::I1), 1, "true"),
            (scalar(Elem::I32), 0xffff_ffff, "-1 : i32"),
            (scalar(Elem::Index), 256, "256 : index"),
            (Type::tensor(Elem::U64, &[]), u64::MAX, "dense<18446744073709551615> : tensor<ui64>"),
            (Type::tensor(Elem::F32, &[2]), 0x7f80_0000, "dense<0x7F800000> : tensor<2xf32>"),
            (Type::vector(Elem::Bf16, &[8, 128]), 0x80, "dense<0x0080> : vector<8x128xbf16>"),
        ] {
            assert_eq!(Constant { ty, bits }.to_string(), text);
        }
    }

    #[test]
    fn literals_have_the_bits_of_their_type() {
        for (elem, literal, bits) in [
            (Elem::I32, "-2147483648", Some(0x8000_0000)),
            (Elem::I32, "2147483648", None),
            (Elem::U16, "65535", Some(0xffff)),
            (Elem::U16, "65536", None),
            (Elem::U64, "18446744073709551615", Some(u64::MAX)),
            (Elem::U32, "-1", None),
            (Elem::F32, "0xFF800000", Some(0xff80_0000)),
            (Elem::F32, "0", Some(0)),
            (Elem::F32, "1", None),
            (Elem::Bf16, "0xFF80", Some(0xff80)),
            (Elem::Bf16, "0xFF800000", None),
            (Elem::I1, "true", Some(1)),
            (Elem::Index, "0", None),
        ] {
            assert_eq!(elem.parse(literal), bits, "{literal} as {elem}");
        }
    }

    #[test]
    #[should_panic(expected = "has more than 4 dimensions")]
    fn too_many_dimensions_are_refused() {
        Dims::new(&[1; 5]);
    }
}
