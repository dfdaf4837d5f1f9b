//! Implements [`Arith`] for every dialect. The elementwise operations use a table of the dialect's names.

use super::builder::Builder;
use super::ir::{Attributes, Value};
use super::types::{Elem, Type};
use crate::semantics::arith::Arith;

/// Operations on two values of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    And,
    Or,
    Xor,
    ShiftLeft,
    /// Fills with the sign bit.
    ShiftRightSigned,
    /// Fills with zeros.
    ShiftRightZero,
    Min,
    Max,
}

/// Comparisons. Float comparisons are false if either operand is NaN, except `Ne`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Predicate {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// The elementwise operations of a dialect, and the builder to which they are added.
///
/// Every type that implements this trait also implements [`Arith`]. If two operands have different ranks, the operation
/// repeats the operand of lower rank.
pub trait Elementwise {
    /// The operation that selects by a mask.
    const SELECT: &'static str;
    /// Whether a scalar mask can select between arrays.
    const SCALAR_MASKS: bool;
    /// The operation that changes the type of an element and keeps its bits.
    const BITCAST: &'static str;

    /// Returns the builder.
    fn builder(&self) -> &Builder;
    /// Returns the type of a scalar constant, before the constant takes the shape of another operand.
    fn scalar(elem: Elem) -> Type;
    /// Returns the name of a binary operation on elements of a type.
    fn binary_name(operation: Binary, elem: Elem) -> &'static str;
    /// Returns the name and the attributes of a comparison of elements of a type.
    fn comparison(predicate: Predicate, elem: Elem) -> (&'static str, Attributes);
    /// Returns the name of the operation that converts elements by value.
    fn conversion(from: Elem, to: Elem) -> &'static str;
    /// Adds the operation that repeats `value` until it has the type `ty`. `value` must be an SSA value.
    #[track_caller]
    fn repeat(&self, value: Value, ty: Type) -> Value;

    /// Implements [`Arith::mul_then_add`]. The default is correct only if the dialect's compilers never contract a
    /// product and a sum.
    #[track_caller]
    fn product_plus(&self, a: Value, b: Value, addend: Value) -> Value {
        self.binary(Binary::Add, self.binary(Binary::Mul, a, b), addend)
    }

    /// Implements [`Arith::at_most`].
    #[track_caller]
    fn limited(&self, a: Value, limit: f32) -> Value {
        let limit = self.float_constant(limit);
        self.choice(self.comparing(Predicate::Lt, a, limit), a, limit)
    }

    /// Implements [`Arith::trunc`].
    #[track_caller]
    fn truncated(&self, a: Value) -> Value {
        self.converted(a, Elem::I32)
    }

    /// Implements [`Arith::le`].
    #[track_caller]
    fn at_most_equal(&self, a: Value, b: Value) -> Value {
        self.comparing(Predicate::Le, a, b)
    }

    /// Implements [`Arith::not`].
    #[track_caller]
    fn negated(&self, mask: Value) -> Value {
        self.binary(Binary::Xor, mask, Value::constant(Self::scalar(Elem::I1), 1))
    }

    /// Returns a 32-bit constant. It is a scalar until an operation combines it with an operand of another shape.
    fn int_constant(&self, value: i32) -> Value {
        Value::constant(Self::scalar(Elem::I32), u64::from(value as u32))
    }

    /// Returns a float constant. It is a scalar until an operation combines it with an operand of another shape.
    fn float_constant(&self, value: f32) -> Value {
        Value::constant(Self::scalar(Elem::F32), u64::from(value.to_bits()))
    }

    /// Repeats `value` to the shape of `shape`.
    #[track_caller]
    fn spread(&self, value: Value, shape: Type) -> Value {
        let ty = value.ty().with_shape_of(shape);
        match value.literal() {
            _ if value.ty() == ty => value,
            Some(bits) => Value::constant(ty, bits),
            None => self.repeat(value, ty),
        }
    }

    /// Adds an operation on two values.
    #[track_caller]
    fn binary(&self, operation: Binary, a: Value, b: Value) -> Value {
        let shape = wider(a.ty(), b.ty());
        let operands = [self.spread(a, shape), self.spread(b, shape)];
        let name = Self::binary_name(operation, a.ty().elem());
        self.builder().op(name).operands(operands).result(operands[0].ty())
    }

    /// Adds a comparison of two values.
    #[track_caller]
    fn comparing(&self, predicate: Predicate, a: Value, b: Value) -> Value {
        let shape = wider(a.ty(), b.ty());
        let operands = [self.spread(a, shape), self.spread(b, shape)];
        let (name, attributes) = Self::comparison(predicate, a.ty().elem());
        let result = shape.with_elem(Elem::I1);
        self.builder().op(name).operands(operands).attributes(attributes).result(result)
    }

    /// Returns `if_true` where the mask is true, and `if_false` elsewhere. The values can have any type.
    #[track_caller]
    fn choice(&self, mask: Value, if_true: Value, if_false: Value) -> Value {
        let shape = wider(wider(if_true.ty(), if_false.ty()), mask.ty());
        let (if_true, if_false) = (self.spread(if_true, shape), self.spread(if_false, shape));
        let mask = if Self::SCALAR_MASKS { mask } else { self.spread(mask, shape) };
        self.builder().op(Self::SELECT).operands([mask, if_true, if_false]).result(if_true.ty())
    }

    /// Converts elements by value.
    #[track_caller]
    fn converted(&self, a: Value, to: Elem) -> Value {
        self.builder().op(Self::conversion(a.ty().elem(), to)).operands([a]).result(a.ty().with_elem(to))
    }

    /// Interprets the bits as another type of the same width.
    #[track_caller]
    fn bits_as(&self, a: Value, to: Elem) -> Value {
        self.builder().op(Self::BITCAST).operands([a]).result(a.ty().with_elem(to))
    }
}

/// Returns the type of higher rank. If the ranks are equal, returns the first type.
fn wider(a: Type, b: Type) -> Type {
    if b.dims().len() > a.dims().len() {
        b
    } else {
        a
    }
}

macro_rules! binary {
    ($($name:ident = $operation:ident;)*) => {
        $(#[track_caller] fn $name(self, a: Value, b: Value) -> Value { self.binary(Binary::$operation, a, b) })*
    };
}

impl<D: Elementwise> Arith for &D {
    type Int = Value;
    type Float = Value;
    type Mask = Value;

    fn int(self, value: i32) -> Value {
        self.int_constant(value)
    }
    fn float(self, value: f32) -> Value {
        self.float_constant(value)
    }

    binary! {
        add = Add;
        sub = Sub;
        and = And;
        or = Or;
        xor = Xor;
        fadd = Add;
        fsub = Sub;
        fmul = Mul;
        both = And;
        either = Or;
        max = Max;
    }

    #[track_caller]
    fn shl(self, a: Value, by: u32) -> Value {
        self.binary(Binary::ShiftLeft, a, self.int_constant(by as i32))
    }
    #[track_caller]
    fn shr(self, a: Value, by: u32) -> Value {
        self.binary(Binary::ShiftRightSigned, a, self.int_constant(by as i32))
    }
    #[track_caller]
    fn shr_by(self, a: Value, by: Value) -> Value {
        self.binary(Binary::ShiftRightZero, a, self.binary(Binary::And, by, self.int_constant(31)))
    }
    #[track_caller]
    fn mul_then_add(self, a: Value, b: Value, addend: Value) -> Value {
        self.product_plus(a, b, addend)
    }
    #[track_caller]
    fn at_most(self, a: Value, limit: f32) -> Value {
        self.limited(a, limit)
    }
    #[track_caller]
    fn trunc(self, a: Value) -> Value {
        self.truncated(a)
    }
    #[track_caller]
    fn to_float(self, a: Value) -> Value {
        self.converted(a, Elem::F32)
    }
    #[track_caller]
    fn to_bits(self, a: Value) -> Value {
        self.bits_as(a, Elem::I32)
    }
    #[track_caller]
    fn from_bits(self, a: Value) -> Value {
        self.bits_as(a, Elem::F32)
    }
    #[track_caller]
    fn lt(self, a: Value, b: Value) -> Value {
        self.comparing(Predicate::Lt, a, b)
    }
    #[track_caller]
    fn le(self, a: Value, b: Value) -> Value {
        self.at_most_equal(a, b)
    }
    #[track_caller]
    fn eq(self, a: Value, b: Value) -> Value {
        self.comparing(Predicate::Eq, a, b)
    }
    #[track_caller]
    fn flt(self, a: Value, b: Value) -> Value {
        self.comparing(Predicate::Lt, a, b)
    }
    #[track_caller]
    fn not(self, a: Value) -> Value {
        self.negated(a)
    }
    #[track_caller]
    fn select(self, mask: Value, if_true: Value, if_false: Value) -> Value {
        self.choice(mask, if_true, if_false)
    }
    #[track_caller]
    fn fselect(self, mask: Value, if_true: Value, if_false: Value) -> Value {
        self.choice(mask, if_true, if_false)
    }
}
