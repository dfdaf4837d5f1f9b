//! Arithmetic: the operations of the sampling contract, and others.

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
    const WEIGHS_BY_SHIFTS: bool = false;

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
}

/// Operations that the contract does not need.
impl Ptx {
    /// `a * b`, wrapping.
    pub fn mul(&self, a: Int, b: usize) -> Int {
        self.int_op("mul.lo.s32", &[&a, &b])
    }

    /// The 64-bit integer with these halves.
    pub fn join(&self, low: Int, high: Int) -> Wide {
        self.wide_op("mov.b64", &[&format_args!("{{{low}, {high}}}")])
    }

    /// `a - b`. `b` must be at most `a`.
    pub fn wide_difference(&self, a: Wide, b: Wide) -> Wide {
        self.wide_op("sub.u64", &[&a, &b])
    }

    /// The number of masks that are true.
    pub fn count_true(&self, masks: impl Iterator<Item = Mask>) -> Int {
        let ones = masks.map(|mask| self.select(mask, self.int(1), self.int(0)));
        ones.reduce(|a, b| self.add(a, b)).expect("there are masks")
    }

    /// The larger of two floats. If one is NaN, the result is the other one.
    pub fn fmax(&self, a: Float, b: Float) -> Float {
        self.float_op("max.f32", &[&a, &b])
    }

    /// The smaller of two integers.
    pub fn min(&self, a: Int, b: Int) -> Int {
        self.int_op("min.s32", &[&a, &b])
    }

    /// The number of zero bits above the highest bit that is 1. The result is 32 if the value is 0.
    pub fn leading_zeros(&self, value: Int) -> Int {
        self.int_op("clz.b32", &[&value])
    }

    /// The number of bits that are 1.
    pub fn count_ones(&self, value: Int) -> Int {
        self.int_op("popc.b32", &[&value])
    }

    /// The value shifted left by 0 to 31 bits.
    pub fn shl_by(&self, value: Int, by: Int) -> Int {
        self.int_op("shl.b32", &[&value, &by])
    }

    /// Whether `a` is less than `b`, as unsigned integers.
    pub fn unsigned_lt(&self, a: Int, b: Int) -> Mask {
        self.mask_op("setp.lt.u32", &[&a, &b])
    }

    /// Whether `a` is less than `b` as unsigned integers, or whether `before` is true.
    pub fn unsigned_lt_or(&self, a: Int, b: Int, before: Mask) -> Mask {
        self.mask_op("setp.lt.or.u32", &[&a, &b, &before])
    }

    /// Whether `a` is at least `b`; false if either is NaN.
    pub fn at_least(&self, a: Float, b: Float) -> Mask {
        self.mask_op("setp.ge.f32", &[&a, &b])
    }

    /// Whether `a` is at least `b`, or `before` is true. The comparison is false if either float is NaN.
    pub fn at_least_or(&self, a: Float, b: Float, before: Mask) -> Mask {
        self.mask_op("setp.ge.or.f32", &[&a, &b, &before])
    }

    /// Whether `a` is greater than `b`; false if either is NaN.
    pub fn greater(&self, a: Float, b: Float) -> Mask {
        self.mask_op("setp.gt.f32", &[&a, &b])
    }

    /// Whether either float is NaN, or `before` is true.
    pub fn any_nan(&self, a: Float, b: Float, before: Mask) -> Mask {
        self.mask_op("setp.nan.or.f32", &[&a, &b, &before])
    }

    /// A mask that is true.
    pub fn always(&self) -> Mask {
        self.mask_op("setp.eq.s32", &[&0, &0])
    }

    /// A mask that is false.
    pub fn never(&self) -> Mask {
        self.mask_op("setp.ne.s32", &[&0, &0])
    }
}
