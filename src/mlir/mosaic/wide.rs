//! Unsigned 64-bit integers as pairs of 32-bit registers, because a TPU core has no wider integers.

use super::{Kernel, Value};
use crate::semantics::arith::{Arith, LongDivision, WideArith};

/// An unsigned 64-bit integer.
#[derive(Clone, Copy, Debug)]
pub struct Wide {
    /// Bits 0 to 31.
    pub low: Value,
    /// Bits 32 to 63.
    pub high: Value,
}

/// Returns the bits of a constant.
fn literal(value: Value) -> Option<u32> {
    value.literal().map(|bits| bits as u32)
}

impl Wide {
    /// Returns the two halves, for results of branches and states of loops.
    pub fn flat(self) -> Vec<Value> {
        vec![self.low, self.high]
    }

    /// Returns the number whose [`flat`](Wide::flat) is the start of `values`.
    pub fn from_flat(values: &[Value]) -> Wide {
        Wide { low: values[0], high: values[1] }
    }

    /// Whether the upper half is the constant 0.
    pub fn is_short(self) -> bool {
        literal(self.high) == Some(0)
    }
}

impl Kernel {
    /// Whether `a < b` for unsigned integers.
    #[track_caller]
    pub fn below(&self, a: Value, b: Value) -> Value {
        // Inverting the sign bits turns an unsigned comparison into a signed one. The hardware has only signed
        // comparisons.
        let flip = |v| match literal(v) {
            Some(bits) => self.i32((bits ^ 0x8000_0000) as i32),
            None => self.xor(v, self.i32(i32::MIN)),
        };
        self.lt(flip(a), flip(b))
    }

    /// Converts a mask to 0 and 1.
    fn bit(&self, mask: Value) -> Value {
        self.choose(mask, self.i32(1), self.i32(0))
    }

    /// Returns `a + b`. Adds no operation if one of them is the constant 0.
    fn sum(&self, a: Value, b: Value) -> Value {
        match (literal(a), literal(b)) {
            (Some(0), _) => b,
            (_, Some(0)) => a,
            _ => self.add(a, b),
        }
    }

    /// Returns `a * b`. Adds no operation if one of them is the constant 0.
    fn product(&self, a: Value, b: Value) -> Value {
        match (literal(a), literal(b)) {
            (Some(0), _) | (_, Some(0)) => self.i32(0),
            _ => self.mul(a, b),
        }
    }

    /// Returns `a - b`, wrapping.
    pub fn wsub(&self, a: Wide, b: Wide) -> Wide {
        let borrow = self.bit(self.below(a.low, b.low));
        let high = self.sub(self.sub(a.high, b.high), borrow);
        Wide { low: self.sub(a.low, b.low), high }
    }

    /// Returns the product of two unsigned 32-bit integers, in 64 bits.
    pub fn product_of_words(&self, a: Value, b: Value) -> Wide {
        let halves = |v| (self.and(v, self.i32(0xffff)), self.shift_right_zero(v, self.i32(16)));
        let ((a0, a1), (b0, b1)) = (halves(a), halves(b));
        let (p00, p01, p10, p11) = (self.mul(a0, b0), self.mul(a0, b1), self.mul(a1, b0), self.mul(a1, b1));
        let shifted =
            |p| Wide { low: self.shift_left(p, self.i32(16)), high: self.shift_right_zero(p, self.i32(16)) };
        self.wadd(self.wadd(Wide { low: p00, high: p11 }, shifted(p01)), shifted(p10))
    }

    /// Returns the product of a number below 2¹⁶ and a number, modulo 2⁶⁴.
    fn product_with_word(&self, a: Value, b: Wide) -> Wide {
        let half = self.i32(16);
        let (b0, b1) = (self.and(b.low, self.i32(0xffff)), self.shift_right_zero(b.low, half));
        let (p0, p1) = (self.mul(a, b0), self.mul(a, b1));
        let low = self.add(p0, self.shift_left(p1, half));
        // The sum is below 2³², because each factor is below 2¹⁶.
        let carried = self.shift_right_zero(self.add(p1, self.shift_right_zero(p0, half)), half);
        Wide { low, high: self.sum(carried, self.product(a, b.high)) }
    }

    /// Converts `a` to a float, with a relative error of a few parts in 2²³.
    pub fn near(&self, a: Wide) -> Value {
        // 16-bit pieces convert exactly. Rounding of their sum does not matter, because callers correct it with
        // integers.
        let piece = |word: Value, shift: i32, mask: i32, exponent: i32| {
            let bits = self.and(self.shift_right_zero(word, self.i32(shift)), self.i32(mask));
            self.fmul(self.to_float(bits), self.f32(2.0f32.powi(exponent)))
        };
        let low = self.fadd(piece(a.low, 0, 0xffff, 0), piece(a.low, 16, 0xffff, 16));
        match literal(a.high) {
            Some(0) => low,
            _ => {
                let high = self.fadd(piece(a.high, 0, 0xffff, 32), piece(a.high, 16, 0xffff, 48));
                self.fadd(high, low)
            }
        }
    }
}

impl WideArith for &Kernel {
    type Wide = Wide;

    fn wide(self, value: u64) -> Wide {
        Wide { low: self.i32(value as u32 as i32), high: self.i32((value >> 32) as u32 as i32) }
    }

    fn widen(self, a: Value) -> Wide {
        Wide { low: a, high: self.i32(0) }
    }

    fn low(self, a: Wide) -> Value {
        a.low
    }

    fn high(self, a: Wide) -> Value {
        a.high
    }

    fn wadd(self, a: Wide, b: Wide) -> Wide {
        if literal(a.low) == Some(0) || literal(b.low) == Some(0) {
            return Wide { low: self.sum(a.low, b.low), high: self.sum(a.high, b.high) };
        }
        let low = self.add(a.low, b.low);
        let carry = self.bit(self.below(low, a.low));
        Wide { low, high: self.sum(self.sum(a.high, b.high), carry) }
    }

    fn wmul(self, a: Wide, b: Wide) -> Wide {
        let words = self.product_of_words(a.low, b.low);
        let cross = self.sum(self.product(a.low, b.high), self.product(a.high, b.low));
        Wide { low: words.low, high: self.sum(words.high, cross) }
    }

    fn wshl(self, a: Wide, by: u32) -> Wide {
        if let (Some(low), Some(high)) = (literal(a.low), literal(a.high)) {
            return self.wide((u64::from(high) << 32 | u64::from(low)) << by);
        }
        let carried = self.shift_right_zero(a.low, self.i32(32 - by as i32));
        let high = match literal(a.high) {
            Some(0) => carried,
            _ => self.or(self.shl(a.high, by), carried),
        };
        Wide { low: self.shl(a.low, by), high }
    }

    fn wshr(self, a: Wide, by: Wide) -> Wide {
        if let Some(by) = literal(by.low) {
            let right = |v| self.shift_right_zero(v, self.i32(by as i32));
            if by >= 32 {
                return self.widen(self.shift_right_zero(a.high, self.i32(by as i32 - 32)));
            }
            if literal(a.high) == Some(0) {
                return self.widen(right(a.low));
            }
            let carried = self.shl(a.high, 32 - by);
            return Wide { low: self.or(right(a.low), carried), high: right(a.high) };
        }
        let by = by.low;
        let far = self.not(self.lt(by, self.i32(32)));
        let within = self.and(by, self.i32(31));
        let high = self.shift_right_zero(a.high, within);
        // The shift has two steps, because a shift by 32 is undefined.
        let carried = self.shl(self.shift_left(a.high, self.sub(self.i32(31), within)), 1);
        let low = self.or(self.shift_right_zero(a.low, within), carried);
        Wide { low: self.choose(far, high, low), high: self.choose(far, self.i32(0), high) }
    }

    fn wand(self, a: Wide, b: Wide) -> Wide {
        let and = |x, y| match (literal(x), literal(y)) {
            (Some(0), _) | (_, Some(0)) => self.i32(0),
            _ => self.and(x, y),
        };
        Wide { low: and(a.low, b.low), high: and(a.high, b.high) }
    }

    fn wor(self, a: Wide, b: Wide) -> Wide {
        let or = |x, y| match (literal(x), literal(y)) {
            (Some(0), _) => y,
            (_, Some(0)) => x,
            _ => self.or(x, y),
        };
        Wide { low: or(a.low, b.low), high: or(a.high, b.high) }
    }

    #[track_caller]
    fn wlt(self, a: Wide, b: Wide) -> Value {
        let low = self.below(a.low, b.low);
        self.either(self.below(a.high, b.high), self.both(self.eq(a.high, b.high), low))
    }

    #[track_caller]
    fn weq(self, a: Wide, b: Wide) -> Value {
        self.both(self.eq(a.low, b.low), self.eq(a.high, b.high))
    }

    fn wselect(self, mask: Value, if_true: Wide, if_false: Wide) -> Wide {
        // If both upper halves are the constant 0, the upper half of the result is also the constant 0. This makes
        // later operations cheaper.
        let choose = |a, b| match (literal(a), literal(b)) {
            (Some(x), Some(y)) if x == y => a,
            _ => self.choose(mask, a, b),
        };
        Wide { low: choose(if_true.low, if_false.low), high: choose(if_true.high, if_false.high) }
    }
}

impl LongDivision for &Kernel {
    // This is the largest number of bits that `wrem_next` supports. With 16 bits, a total is at most 2⁴⁸. Rows of more
    // than 2²⁰ entries can have larger totals, so their kernels use fewer bits.
    const DIGIT_BITS: u32 = 16;

    /// Estimates the quotient in floats, and corrects the remainder in integers. `b` is at least 2²⁸ and at most
    /// 2^(64 − `bits`).
    ///
    /// The estimate of the quotient is never too large, and it is too small by at most one. So one subtraction corrects
    /// the remainder. A draw is a chain of dependent steps, so each step must be fast.
    fn wrem_next(self, a: Wide, digit: Wide, bits: u32, b: Wide) -> Wide {
        assert!((12..=Self::DIGIT_BITS).contains(&bits), "the steps below are not for {bits} bits");
        // `upper` and `lower` are two parts of `a`. With digits of 16 bits, each part has at most 24 bits, so its
        // conversion to a float is exact. With shorter digits, `upper` can have more bits. If the conversion rounds to
        // nearest, its relative error is at most 2⁻²⁴. The factor in `less` allows for this error. The digit changes
        // the quotient by less than 2⁻¹², because the divisor is at least 2²⁸.
        let upper = self.or(self.shl(a.high, 8), self.shift_right_zero(a.low, self.i32(24)));
        let lower = self.and(a.low, self.i32(0xff_ffff));
        let float = self.fadd(self.fmul(self.to_float(upper), self.f32(16_777_216.0)), self.to_float(lower));
        let less = (1 << bits) as f32 * (1.0 - 1.0 / (1 << 18) as f32);
        let quotient = self.trunc(self.fmul(float, self.divide(self.f32(less), self.near(b))));
        let product = self.product_with_word(quotient, b);
        let dividend = self.wor(self.wshl(a, bits), digit);
        let rest = self.wsub(dividend, product);
        let under = self.wsub(rest, b);
        self.wselect(self.lt(under.high, self.i32(0)), rest, under)
    }
}
