//! The arithmetic operations that define the sampling contract.
//!
//! Every computation whose bits must be the same on all devices is a function over [`Arith`]. So native code (scalar or
//! SIMD) and the kernel builders use the same source code.
//!
//! Some compilers contract a product and a sum into one fused operation, which rounds once instead of twice. Therefore
//! only [`Arith::mul_then_add`] may add a product to a number. It rounds twice on every target. The operands of
//! [`Arith::fadd`] and [`Arith::fsub`] must not be products.

// `self` selects the arithmetic; it is not the value to convert.
#[allow(clippy::wrong_self_convention)]
/// 32-bit operations on one value, one SIMD register or one array, depending on the implementor.
///
/// `Int` wraps on overflow. It is signed in operations that depend on the sign (`lt`, `shr`, `to_float`).
pub trait Arith: Copy {
    /// A 32-bit integer.
    type Int: Copy;
    /// An IEEE binary32 number.
    type Float: Copy;
    /// A truth value.
    type Mask: Copy;

    /// Whether the target computes weights with [`shr_by`](Arith::shr_by). Otherwise, it computes the same weights with
    /// [`trunc`](Arith::trunc).
    const WEIGHS_BY_SHIFTS: bool = true;

    /// The integer constant `value`.
    fn int(self, value: i32) -> Self::Int;
    /// The float constant `value`.
    fn float(self, value: f32) -> Self::Float;

    /// `a + b`, wrapping.
    fn add(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// `a - b`, wrapping.
    fn sub(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Bitwise and.
    fn and(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Bitwise or.
    fn or(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Bitwise exclusive or.
    fn xor(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// `a << by`.
    fn shl(self, a: Self::Int, by: u32) -> Self::Int;
    /// `a >> by`, filling with the sign bit.
    fn shr(self, a: Self::Int, by: u32) -> Self::Int;
    /// `a >> (by & 31)`, filling with zeros.
    fn shr_by(self, a: Self::Int, by: Self::Int) -> Self::Int;

    /// `a + b` in binary32, rounded to nearest even. Neither operand is a product.
    fn fadd(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a - b` in binary32, rounded to nearest even. Neither operand is a product.
    fn fsub(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a * b` in binary32, rounded to nearest even.
    fn fmul(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a * b + addend`. The product and the sum are both rounded; they are never fused. The product is finite and
    /// below 10³⁰.
    fn mul_then_add(self, a: Self::Float, b: Self::Float, addend: Self::Float) -> Self::Float;

    /// The smaller of `a` and `limit`. The result for NaN is `limit`, or any value if the caller discards it.
    fn at_most(self, a: Self::Float, limit: f32) -> Self::Float {
        let limit = self.float(limit);
        self.fselect(self.flt(a, limit), a, limit)
    }

    /// Rounds toward zero. `a` is in `[0, 2³¹)`.
    fn trunc(self, a: Self::Float) -> Self::Int;
    /// Converts to a float. If the magnitude of `a` is at most 2²⁴, the conversion is exact. Otherwise the result is
    /// one of the two nearest floats, and no result of the contract may depend on which one.
    fn to_float(self, a: Self::Int) -> Self::Float;
    /// The bits of a float.
    fn to_bits(self, a: Self::Float) -> Self::Int;
    /// The float with these bits.
    fn from_bits(self, a: Self::Int) -> Self::Float;

    /// `a < b`, signed.
    fn lt(self, a: Self::Int, b: Self::Int) -> Self::Mask;
    /// `a == b`.
    fn eq(self, a: Self::Int, b: Self::Int) -> Self::Mask;
    /// `a < b` for floats; false where either is NaN.
    fn flt(self, a: Self::Float, b: Self::Float) -> Self::Mask;
    /// `a && b`.
    fn both(self, a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// `a || b`.
    fn either(self, a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// `!a`.
    fn not(self, a: Self::Mask) -> Self::Mask;

    /// `a <= b`, signed.
    fn le(self, a: Self::Int, b: Self::Int) -> Self::Mask {
        self.not(self.lt(b, a))
    }
    /// The larger of two signed integers.
    fn max(self, a: Self::Int, b: Self::Int) -> Self::Int {
        self.select(self.lt(a, b), b, a)
    }

    /// `if_true` where the mask is true, else `if_false`.
    fn select(self, mask: Self::Mask, if_true: Self::Int, if_false: Self::Int) -> Self::Int;
    /// `if_true` where the mask is true, else `if_false`.
    fn fselect(self, mask: Self::Mask, if_true: Self::Float, if_false: Self::Float) -> Self::Float;
}

/// The unsigned 64-bit operations that totals, targets and the draw need. There is one value per row.
pub trait WideArith: Arith {
    /// An unsigned 64-bit integer.
    type Wide: Copy;

    /// The constant `value`.
    fn wide(self, value: u64) -> Self::Wide;
    /// The 32 bits of `a`, zero-extended.
    fn widen(self, a: Self::Int) -> Self::Wide;
    /// Bits 0 to 31.
    fn low(self, a: Self::Wide) -> Self::Int;
    /// Bits 32 to 63.
    fn high(self, a: Self::Wide) -> Self::Int;
    /// `a + b`. The sum fits 64 bits.
    fn wadd(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;
    /// `a * b`. The product fits 64 bits.
    fn wmul(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;
    /// `a << by`.
    fn wshl(self, a: Self::Wide, by: u32) -> Self::Wide;
    /// `a >> by`, filling with zeros. `by` is below 64.
    fn wshr(self, a: Self::Wide, by: Self::Wide) -> Self::Wide;
    /// Bitwise and.
    fn wand(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;
    /// Bitwise or.
    fn wor(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;
    /// `a < b`, unsigned.
    fn wlt(self, a: Self::Wide, b: Self::Wide) -> Self::Mask;
    /// `a == b`.
    fn weq(self, a: Self::Wide, b: Self::Wide) -> Self::Mask;
    /// `if_true` where the mask is true, else `if_false`.
    fn wselect(self, mask: Self::Mask, if_true: Self::Wide, if_false: Self::Wide) -> Self::Wide;
}

/// The step of the long division in [`draw`](super::draw). A target with a faster division does not implement it.
pub trait LongDivision: WideArith {
    /// The number of bits per step of the long division in [`draw`](super::draw). A remainder times 2 to this power
    /// must fit 64 bits, for every total that the target computes.
    const DIGIT_BITS: u32 = 64 - super::sizes::TOTAL_BITS;

    /// Returns `(a · 2^bits + digit) % b`, which is one step of a long division. `a` is less than `b`, and `digit` is
    /// less than `2^bits`. `b` is at least [`MAX_WEIGHT`](super::weights::MAX_WEIGHT), and `b · 2^bits` is at most 2⁶⁴.
    /// The TPU builder supports only 12 to 16 bits.
    fn wrem_next(self, a: Self::Wide, digit: Self::Wide, bits: u32, b: Self::Wide) -> Self::Wide;
}

/// Plain Rust arithmetic on one value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scalar;

macro_rules! scalar_ops {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $body:expr;)*) => {
        $(#[inline(always)] fn $name(self, $($arg: $ty),*) -> $ret { $body })*
    };
}

impl Arith for Scalar {
    type Int = i32;
    type Float = f32;
    type Mask = bool;

    scalar_ops! {
        int(value: i32) -> i32 = value;
        float(value: f32) -> f32 = value;
        add(a: i32, b: i32) -> i32 = a.wrapping_add(b);
        sub(a: i32, b: i32) -> i32 = a.wrapping_sub(b);
        and(a: i32, b: i32) -> i32 = a & b;
        or(a: i32, b: i32) -> i32 = a | b;
        xor(a: i32, b: i32) -> i32 = a ^ b;
        shl(a: i32, by: u32) -> i32 = a << by;
        shr(a: i32, by: u32) -> i32 = a >> by;
        shr_by(a: i32, by: i32) -> i32 = ((a as u32) >> (by & 31)) as i32;
        fadd(a: f32, b: f32) -> f32 = a + b;
        fsub(a: f32, b: f32) -> f32 = a - b;
        fmul(a: f32, b: f32) -> f32 = a * b;
        // Rust never contracts floating-point operations.
        mul_then_add(a: f32, b: f32, addend: f32) -> f32 = a * b + addend;
        trunc(a: f32) -> i32 = a as i32;
        to_float(a: i32) -> f32 = a as f32;
        to_bits(a: f32) -> i32 = a.to_bits() as i32;
        from_bits(a: i32) -> f32 = f32::from_bits(a as u32);
        lt(a: i32, b: i32) -> bool = a < b;
        eq(a: i32, b: i32) -> bool = a == b;
        flt(a: f32, b: f32) -> bool = a < b;
        both(a: bool, b: bool) -> bool = a & b;
        either(a: bool, b: bool) -> bool = a | b;
        not(a: bool) -> bool = !a;
        select(mask: bool, if_true: i32, if_false: i32) -> i32 = if mask { if_true } else { if_false };
        fselect(mask: bool, if_true: f32, if_false: f32) -> f32 = if mask { if_true } else { if_false };
    }
}

impl WideArith for Scalar {
    type Wide = u64;

    scalar_ops! {
        wide(value: u64) -> u64 = value;
        widen(a: i32) -> u64 = u64::from(a as u32);
        low(a: u64) -> i32 = a as u32 as i32;
        high(a: u64) -> i32 = (a >> 32) as i32;
        wadd(a: u64, b: u64) -> u64 = a + b;
        wmul(a: u64, b: u64) -> u64 = a * b;
        wshl(a: u64, by: u32) -> u64 = a << by;
        wshr(a: u64, by: u64) -> u64 = a >> by;
        wand(a: u64, b: u64) -> u64 = a & b;
        wor(a: u64, b: u64) -> u64 = a | b;
        wlt(a: u64, b: u64) -> bool = a < b;
        weq(a: u64, b: u64) -> bool = a == b;
        wselect(mask: bool, if_true: u64, if_false: u64) -> u64 = if mask { if_true } else { if_false };
    }
}

impl LongDivision for Scalar {
    scalar_ops! {
        wrem_next(a: u64, digit: u64, bits: u32, b: u64) -> u64 = (a << bits | digit) % b;
    }
}
