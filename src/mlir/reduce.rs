//! Reductions: how several elements are combined into one.

use super::types::Elem;

/// How a reduction combines elements. Its result does not depend on the order if every partial sum of floats is exact.
/// Sums of small whole numbers are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// The sum. Integers wrap.
    Add,
    /// The largest element.
    Max,
    /// The smallest element.
    Min,
    /// Bitwise or. For masks: whether any element is true.
    Or,
}

impl Reduce {
    /// Returns the bits of the identity: combining it with any other value does not change that value. A reduction
    /// starts with it. It is the result of a reduction of no elements. Returns `None` if elements of this type cannot
    /// be combined in this way.
    ///
    /// For sums of floats it is `+0.0`, which leaves every value unchanged except `-0.0`.
    pub fn identity(self, elem: Elem) -> Option<u64> {
        let all_ones = u64::MAX >> (64 - elem.bits()?);
        let (negative_infinity, positive_infinity) = match elem {
            Elem::F32 => (0xff80_0000, 0x7f80_0000),
            Elem::Bf16 => (0xff80, 0x7f80),
            Elem::F16 => (0xfc00, 0x7c00),
            _ => (0, 0),
        };
        match self {
            Reduce::Add => (!elem.is_mask()).then_some(0),
            Reduce::Or => (!elem.is_float()).then_some(0),
            Reduce::Max if elem.is_float() => Some(negative_infinity),
            Reduce::Min if elem.is_float() => Some(positive_infinity),
            // `I32` is the only signed type.
            Reduce::Max if elem == Elem::I32 => Some(0x8000_0000),
            Reduce::Min if elem == Elem::I32 => Some(0x7fff_ffff),
            Reduce::Max => Some(0),
            Reduce::Min => Some(all_ones),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    const ALL: [Reduce; 4] = [Reduce::Add, Reduce::Max, Reduce::Min, Reduce::Or];

    /// Combines two elements, given as bits. The computation does not use [`Reduce::identity`].
    fn combine(how: Reduce, elem: Elem, a: u64, b: u64) -> u64 {
        fn pick<T: PartialOrd + Copy>(how: Reduce, a: T, b: T, sum: T) -> T {
            match how {
                Reduce::Add => sum,
                Reduce::Max if a > b => a,
                Reduce::Min if a < b => a,
                _ => b,
            }
        }
        if how == Reduce::Or {
            return a | b;
        }
        match elem {
            Elem::I32 => {
                let (a, b) = (a as u32 as i32, b as u32 as i32);
                u64::from(pick(how, a, b, a.wrapping_add(b)) as u32)
            }
            Elem::F32 => {
                let (a, b) = (f32::from_bits(a as u32), f32::from_bits(b as u32));
                u64::from(pick(how, a, b, a + b).to_bits())
            }
            Elem::Bf16 => {
                let (a, b) = (bf16::from_bits(a as u16), bf16::from_bits(b as u16));
                u64::from(pick(how, a, b, a + b).to_bits())
            }
            Elem::F16 => {
                let (a, b) = (f16::from_bits(a as u16), f16::from_bits(b as u16));
                u64::from(pick(how, a, b, a + b).to_bits())
            }
            _ => pick(how, a, b, a.wrapping_add(b)) & (u64::MAX >> (64 - elem.bits().unwrap())),
        }
    }

    /// Returns extreme and ordinary values of a type, except NaN and −0.0.
    fn samples(elem: Elem) -> Vec<u64> {
        match elem {
            Elem::I1 => vec![0, 1],
            Elem::I32 => [i32::MIN, -1, 0, 1, i32::MAX].map(|x| u64::from(x as u32)).to_vec(),
            Elem::F32 => [f32::NEG_INFINITY, f32::MIN, -1.0, 0.0, 1.0, f32::MAX, f32::INFINITY]
                .map(|x| u64::from(x.to_bits()))
                .to_vec(),
            Elem::Bf16 => [bf16::NEG_INFINITY, bf16::MIN, bf16::ZERO, bf16::MAX, bf16::INFINITY]
                .map(|x| u64::from(x.to_bits()))
                .to_vec(),
            Elem::F16 => [f16::NEG_INFINITY, f16::MIN, f16::ZERO, f16::MAX, f16::INFINITY]
                .map(|x| u64::from(x.to_bits()))
                .to_vec(),
            _ => {
                let most = u64::MAX >> (64 - elem.bits().unwrap());
                vec![0, 1, most / 2, most / 2 + 1, most - 1, most]
            }
        }
    }

    #[test]
    fn identities_leave_every_value_unchanged() {
        let mut tried = 0;
        for elem in Elem::ALL {
            for how in ALL {
                let Some(identity) = how.identity(elem) else { continue };
                tried += 1;
                for value in samples(elem) {
                    let [left, right] =
                        [(identity, value), (value, identity)].map(|(a, b)| combine(how, elem, a, b));
                    assert_eq!((left, right), (value, value), "{how:?} of {elem}: identity {identity:#x}");
                }
            }
        }
        // Four integer types with all reductions, three float types without Or, and masks without Add.
        assert_eq!(tried, 4 * 4 + 3 * 3 + 3);
    }

    #[test]
    fn senseless_reductions_have_no_identity() {
        for (how, elem) in [
            (Reduce::Or, Elem::F32),
            (Reduce::Or, Elem::F16),
            (Reduce::Add, Elem::I1),
            (Reduce::Max, Elem::Index),
            (Reduce::Add, Elem::DmaSemaphore),
        ] {
            assert_eq!(how.identity(elem), None, "{how:?} of {elem}");
        }
    }
}
