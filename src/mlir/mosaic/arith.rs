//! The operations of the sampling contract, as Mosaic's.

use super::{Elem, Kernel, Value};
use crate::semantics::arith::Arith;

impl Kernel {
    /// `a >> by`, filling with zeros.
    pub fn shift_right_zero(&self, a: Value, by: Value) -> Value {
        self.binary("arith.shrui", a, by)
    }

    /// `a >> by`, filling with the sign.
    pub fn shift_right(&self, a: Value, by: Value) -> Value {
        self.binary("arith.shrsi", a, by)
    }

    /// `a << by`.
    pub fn shift_left(&self, a: Value, by: Value) -> Value {
        self.binary("arith.shli", a, by)
    }
}

impl Arith for &Kernel {
    type Int = Value;
    type Float = Value;
    type Mask = Value;

    fn int(self, value: i32) -> Value {
        self.i32(value)
    }

    fn float(self, value: f32) -> Value {
        self.f32(value)
    }

    // Mosaic leaves products as they are written: no constant is folded into another.
    fn factor(self, value: f32) -> Value {
        self.f32(value)
    }

    fn add(self, a: Value, b: Value) -> Value {
        self.binary("arith.addi", a, b)
    }

    fn sub(self, a: Value, b: Value) -> Value {
        self.binary("arith.subi", a, b)
    }

    fn and(self, a: Value, b: Value) -> Value {
        self.binary("arith.andi", a, b)
    }

    fn or(self, a: Value, b: Value) -> Value {
        self.binary("arith.ori", a, b)
    }

    fn xor(self, a: Value, b: Value) -> Value {
        self.binary("arith.xori", a, b)
    }

    fn shl(self, a: Value, by: u32) -> Value {
        self.shift_left(a, self.i32(by as i32))
    }

    fn shr(self, a: Value, by: u32) -> Value {
        self.shift_right(a, self.i32(by as i32))
    }

    fn fsub(self, a: Value, b: Value) -> Value {
        self.binary("arith.subf", a, b)
    }

    fn fmul(self, a: Value, b: Value) -> Value {
        self.binary("arith.mulf", a, b)
    }

    // One operation instead of two. What it makes of NaN, which only a masked entry can be here, does not count.
    fn at_most(self, a: Value, limit: f32) -> Value {
        self.fmin(a, self.f32(limit))
    }

    fn trunc(self, a: Value) -> Value {
        self.truncate(a)
    }

    fn to_float(self, a: Value) -> Value {
        self.op("arith.sitofp", &[a], a.ty.with(Elem::F32))
    }

    fn to_bits(self, a: Value) -> Value {
        self.bits(a)
    }

    fn from_bits(self, a: Value) -> Value {
        self.op("tpu.bitcast", &[a], a.ty.with(Elem::F32))
    }

    fn lt(self, a: Value, b: Value) -> Value {
        self.compare("arith.cmpi", 2, a, b)
    }

    fn eq(self, a: Value, b: Value) -> Value {
        self.compare("arith.cmpi", 0, a, b)
    }

    // One comparison instead of a comparison and a negation.
    fn le(self, a: Value, b: Value) -> Value {
        self.ge(b, a)
    }

    fn flt(self, a: Value, b: Value) -> Value {
        self.compare("arith.cmpf", 4, a, b)
    }

    fn both(self, a: Value, b: Value) -> Value {
        self.binary("arith.andi", a, b)
    }

    fn either(self, a: Value, b: Value) -> Value {
        self.binary("arith.ori", a, b)
    }

    fn not(self, a: Value) -> Value {
        self.binary("arith.xori", a, self.bool(true))
    }

    fn select(self, mask: Value, if_true: Value, if_false: Value) -> Value {
        self.choose(mask, if_true, if_false)
    }

    fn fselect(self, mask: Value, if_true: Value, if_false: Value) -> Value {
        self.choose(mask, if_true, if_false)
    }
}
