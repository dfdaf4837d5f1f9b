//! The sampling arithmetic on several vectors at the same time.

use crate::semantics::arith::Arith;

/// The arithmetic `A` on arrays of `N` values. Each operation runs on all `N` values before the next operation starts.
/// So an operation rarely waits for the result of the previous operation.
#[derive(Clone, Copy)]
pub(super) struct Interleaved<A, const N: usize>(pub(super) A);

macro_rules! each {
    ($($name:ident($a:ident: $from:ident $(, $b:ident: $by:ident)*) -> $to:ident;)*) => {
        $(#[inline(always)]
        fn $name(self, $a: [A::$from; N] $(, $b: [A::$by; N])*) -> [A::$to; N] {
            let mut out = [self.0.$name($a[0] $(, $b[0])*); N];
            for i in 1..N {
                out[i] = self.0.$name($a[i] $(, $b[i])*);
            }
            out
        })*
    };
}

impl<A: Arith, const N: usize> Arith for Interleaved<A, N> {
    type Int = [A::Int; N];
    type Float = [A::Float; N];
    type Mask = [A::Mask; N];

    const WEIGHS_BY_SHIFTS: bool = A::WEIGHS_BY_SHIFTS;

    each! {
        add(a: Int, b: Int) -> Int;
        sub(a: Int, b: Int) -> Int;
        and(a: Int, b: Int) -> Int;
        or(a: Int, b: Int) -> Int;
        xor(a: Int, b: Int) -> Int;
        shr_by(a: Int, by: Int) -> Int;
        fadd(a: Float, b: Float) -> Float;
        fsub(a: Float, b: Float) -> Float;
        fmul(a: Float, b: Float) -> Float;
        mul_then_add(a: Float, b: Float, addend: Float) -> Float;
        trunc(a: Float) -> Int;
        to_float(a: Int) -> Float;
        to_bits(a: Float) -> Int;
        from_bits(a: Int) -> Float;
        lt(a: Int, b: Int) -> Mask;
        eq(a: Int, b: Int) -> Mask;
        flt(a: Float, b: Float) -> Mask;
        both(a: Mask, b: Mask) -> Mask;
        either(a: Mask, b: Mask) -> Mask;
        not(a: Mask) -> Mask;
        select(mask: Mask, if_true: Int, if_false: Int) -> Int;
        fselect(mask: Mask, if_true: Float, if_false: Float) -> Float;
    }

    #[inline(always)]
    fn at_most(self, a: [A::Float; N], limit: f32) -> [A::Float; N] {
        let mut out = a;
        for x in &mut out {
            *x = self.0.at_most(*x, limit);
        }
        out
    }

    #[inline(always)]
    fn int(self, value: i32) -> [A::Int; N] {
        [self.0.int(value); N]
    }

    #[inline(always)]
    fn float(self, value: f32) -> [A::Float; N] {
        [self.0.float(value); N]
    }

    #[inline(always)]
    fn shl(self, a: [A::Int; N], by: u32) -> [A::Int; N] {
        let mut out = a;
        for x in &mut out {
            *x = self.0.shl(*x, by);
        }
        out
    }

    #[inline(always)]
    fn shr(self, a: [A::Int; N], by: u32) -> [A::Int; N] {
        let mut out = a;
        for x in &mut out {
            *x = self.0.shr(*x, by);
        }
        out
    }
}
