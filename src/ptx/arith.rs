//! The arithmetic of the sampling contract.

use super::operands::Class;
use super::{Float, Int, Mask, Ptx, Wide};
use crate::semantics::arith::{Arith, WideArith};

macro_rules! ops {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $method:ident $instruction:literal;)*) => {
        $(fn $name(self, $($arg: $ty),*) -> $ret { self.$method($instruction, &[$(&$arg),*]) })*
    };
}

impl Arith for &Ptx {
    type Int = Int;
    type Float = Float;
    type Mask = Mask;

    ops! {
        add(a: Int, b: Int) -> Int = int_op "add.s32";
        sub(a: Int, b: Int) -> Int = int_op "sub.s32";
        and(a: Int, b: Int) -> Int = int_op "and.b32";
        or(a: Int, b: Int) -> Int = int_op "or.b32";
        xor(a: Int, b: Int) -> Int = int_op "xor.b32";
        fadd(a: Float, b: Float) -> Float = float_op "add.rn.f32";
        fsub(a: Float, b: Float) -> Float = float_op "sub.rn.f32";
        fmul(a: Float, b: Float) -> Float = float_op "mul.rn.f32";
        trunc(a: Float) -> Int = int_op "cvt.rzi.s32.f32";
        to_float(a: Int) -> Float = float_op "cvt.rn.f32.s32";
        lt(a: Int, b: Int) -> Mask = mask_op "setp.lt.s32";
        le(a: Int, b: Int) -> Mask = mask_op "setp.le.s32";
        eq(a: Int, b: Int) -> Mask = mask_op "setp.eq.s32";
        flt(a: Float, b: Float) -> Mask = mask_op "setp.lt.f32";
        max(a: Int, b: Int) -> Int = int_op "max.s32";
        both(a: Mask, b: Mask) -> Mask = mask_op "and.pred";
        either(a: Mask, b: Mask) -> Mask = mask_op "or.pred";
        not(a: Mask) -> Mask = mask_op "not.pred";
    }

    fn int(self, value: i32) -> Int {
        Int::constant(value)
    }

    fn float(self, value: f32) -> Float {
        Float::constant(value)
    }

    fn shl(self, a: Int, by: u32) -> Int {
        self.int_op("shl.b32", &[&a, &by])
    }

    fn shr(self, a: Int, by: u32) -> Int {
        self.int_op("shr.s32", &[&a, &by])
    }

    fn shr_by(self, a: Int, by: Int) -> Int {
        // PTX shifts by more than 31 bits give 0. The contract shifts by the low five bits.
        let by = self.and(by, self.int(31));
        self.int_op("shr.u32", &[&a, &by])
    }

    // `.rn` prevents the assembler from fusing the multiplication with the addition.
    fn mul_then_add(self, a: Float, b: Float, addend: Float) -> Float {
        self.fadd(self.fmul(a, b), addend)
    }

    // `min.f32` returns the other operand if one is NaN.
    fn at_most(self, a: Float, limit: f32) -> Float {
        self.float_op("min.f32", &[&a, &self.float(limit)])
    }

    fn to_bits(self, a: Float) -> Int {
        a.as_int()
    }

    fn from_bits(self, a: Int) -> Float {
        a.as_float()
    }

    fn select(self, mask: Mask, if_true: Int, if_false: Int) -> Int {
        self.int_op("selp.b32", &[&if_true, &if_false, &mask])
    }

    fn fselect(self, mask: Mask, if_true: Float, if_false: Float) -> Float {
        self.float_op("selp.b32", &[&if_true, &if_false, &mask])
    }
}

impl WideArith for &Ptx {
    type Wide = Wide;

    ops! {
        wadd(a: Wide, b: Wide) -> Wide = wide_op "add.u64";
        wmul(a: Wide, b: Wide) -> Wide = wide_op "mul.lo.u64";
        wand(a: Wide, b: Wide) -> Wide = wide_op "and.b64";
        wor(a: Wide, b: Wide) -> Wide = wide_op "or.b64";
        wlt(a: Wide, b: Wide) -> Mask = mask_op "setp.lt.u64";
        weq(a: Wide, b: Wide) -> Mask = mask_op "setp.eq.u64";
        widen(a: Int) -> Wide = wide_op "cvt.u64.u32";
        low(a: Wide) -> Int = int_op "cvt.u32.u64";
    }

    fn wide(self, value: u64) -> Wide {
        Wide::constant(value)
    }

    fn high(self, a: Wide) -> Int {
        self.low(self.wide_op("shr.u64", &[&a, &32]))
    }

    fn wshl(self, a: Wide, by: u32) -> Wide {
        self.wide_op("shl.b64", &[&a, &by])
    }

    fn wshr(self, a: Wide, by: Wide) -> Wide {
        let by = self.low(by);
        self.wide_op("shr.u64", &[&a, &by])
    }

    fn wselect(self, mask: Mask, if_true: Wide, if_false: Wide) -> Wide {
        self.wide_op("selp.b64", &[&if_true, &if_false, &mask])
    }

    fn wrem_next(self, a: Wide, digit: Wide, bits: u32, b: Wide) -> Wide {
        assert!(bits <= 30, "the quotient must be less than 2³⁰");
        let dividend = self.wor(self.wshl(a, bits), digit);
        self.rem_by_reciprocal(dividend, b)
    }
}

impl Ptx {
    /// `a % b`, where the quotient is less than 2³⁰ and `b` is at least 2²⁸ and at most 2⁵².
    ///
    /// The 64-bit division of a GPU is a long sequence of instructions. Here, the quotient is the product of `a` and
    /// the reciprocal of `b` in binary64, rounded down. Its relative error before it is rounded down is below 2⁻⁵⁰, so
    /// the quotient is wrong by at most 1.
    fn rem_by_reciprocal(&self, a: Wide, b: Wide) -> Wide {
        let inverse = self.reciprocal_of(b);
        let (dividend, quotient) = (self.new_register(Class::Float64), self.new_register(Class::Float64));
        self.line(format_args!("cvt.rn.f64.u64 %f{dividend}, {a}"));
        self.line(format_args!("mul.rn.f64 %f{quotient}, %f{dividend}, %f{inverse}"));
        let whole = self.wide_register();
        self.line(format_args!("cvt.rzi.u64.f64 {whole}, %f{quotient}"));
        let rest = self.wide_op("sub.u64", &[&a, &self.wmul(whole, b)]);
        // If the quotient was one too large, the rest is negative: it wraps to more than 2⁶³.
        let negative = self.mask_op("setp.lt.s64", &[&rest, &self.wide(0)]);
        let rest = self.wselect(negative, self.wadd(rest, b), rest);
        let small = self.wlt(rest, b);
        self.wselect(small, rest, self.wide_op("sub.u64", &[&rest, &b]))
    }

    /// The register that contains the reciprocal of `b` in binary64. A long division uses it in each step.
    ///
    /// The register is reused until the next label.
    fn reciprocal_of(&self, b: Wide) -> u32 {
        let name = b.to_string();
        if let Some((divisor, register)) = &*self.reciprocal.borrow() {
            if *divisor == name {
                return *register;
            }
        }
        let (divisor, inverse) = (self.new_register(Class::Float64), self.new_register(Class::Float64));
        self.line(format_args!("cvt.rn.f64.u64 %f{divisor}, {b}"));
        self.line(format_args!("rcp.rn.f64 %f{inverse}, %f{divisor}"));
        *self.reciprocal.borrow_mut() = Some((name, inverse));
        inverse
    }

    /// Makes the next remainder compute the reciprocal of its divisor again.
    pub(super) fn forget_reciprocal(&self) {
        *self.reciprocal.borrow_mut() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A division in a branch computes a reciprocal that the code after the branch must not use.
    #[test]
    fn reciprocals_are_not_reused_after_a_branch() {
        let k = Ptx::new(32, 1);
        let divisor = k.argument();
        let divide = || {
            k.wrem_next(k.wide(1), k.wide(2), 3, divisor);
        };
        let is_first = k.eq(k.thread(), k.int(0));
        k.when_else(
            is_first,
            || {
                divide();
                divide();
            },
            divide,
        );
        divide();
        let reciprocals = k.text("division").matches("rcp.rn.f64").count();
        assert_eq!(reciprocals, 3, "one per branch, and one after the branches");
    }
}
