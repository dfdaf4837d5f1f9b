//! The parameters of a row, and the values derived from them. The host CPU derives them once, so that no device
//! divides or rounds.

use super::top_p::TopP;
use super::weights::{MAX_WEIGHT, ZERO_Q};

/// Below this temperature a row is greedy.
pub const GREEDY_TEMPERATURE: f32 = 1e-5;

/// The parameters of a row in the form that every backend receives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowParams {
    /// The number of entries that survive top-k, in `1..vocab`; 0 if top-k is off.
    pub k: i32,
    /// Whether the temperature is below [`GREEDY_TEMPERATURE`], so that the token is the maximum.
    pub greedy: bool,
    /// `round_f32(log2(e) / T · 2¹⁸)`; 1 if `greedy`.
    pub scale: f32,
    /// Entries at least this far below the maximum have weight 0; 0 if `greedy`.
    pub reach: f32,
    /// Top-p.
    pub top_p: TopP,
    /// The least weight that min-p keeps; 0 if min-p is off.
    pub min_weight: i32,
    /// The 128-bit random number U, the most significant word first.
    pub words: [u32; 4],
}

impl RowParams {
    /// Derives the parameters from values that passed [`check_row`]. `vocab` is at least 1.
    pub fn new(k: i32, p: f32, min_p: f32, temperature: f32, words: [u32; 4], vocab: usize) -> RowParams {
        let greedy = temperature < GREEDY_TEMPERATURE;
        let scale = if greedy { 1.0 } else { scale(temperature) };
        RowParams {
            k: if k <= 0 || k as usize >= vocab { 0 } else { k },
            greedy,
            scale,
            reach: if greedy { 0.0 } else { reach(scale) },
            top_p: TopP::new(p),
            min_weight: min_weight(min_p),
            words,
        }
    }

    /// Substitute parameters for a row whose own parameters are impossible. They are valid on every path and need
    /// little work. The caller discards the results of the row.
    pub fn skipped(vocab: usize) -> RowParams {
        RowParams::new(1, 1.0, 0.0, 0.0, [0; 4], vocab)
    }
}

/// The factor of a temperature: `round_f32(log2(e) / T · 2¹⁸)`.
pub fn scale(temperature: f32) -> f32 {
    (std::f64::consts::LOG2_E / f64::from(temperature) * f64::from(1 << 18)) as f32
}

/// At this distance below the maximum, and at every larger distance, `q` is at least [`ZERO_Q`]. The result is the
/// least distance with this property, or slightly more.
fn reach(scale: f32) -> f32 {
    let mut reach = (f64::from(ZERO_Q) / f64::from(scale)) as f32;
    while reach * scale < ZERO_Q as f32 {
        reach = reach.next_up();
    }
    reach
}

/// `ceil(min_p · 2²⁸)`. A min_p above 1 counts as 1, so the result is at most the weight of the maximum.
pub fn min_weight(min_p: f32) -> i32 {
    // The product of a float and a power of two is exact in f64, so the ceiling is exact too.
    (f64::from(min_p.clamp(0.0, 1.0)) * f64::from(MAX_WEIGHT)).ceil() as i32
}

/// Checks the parameters of a row. The error is the name of the parameter, its value, and the values that are allowed.
pub fn check_row(p: f32, min_p: f32, temperature: f32) -> Result<(), (&'static str, f32, &'static str)> {
    if p.is_nan() {
        return Err(("top_p", p, "a number (1 or more turns top-p off)"));
    }
    if min_p.is_nan() {
        return Err(("min_p", min_p, "a number (0 or less turns min-p off)"));
    }
    if !temperature.is_finite() || temperature < 0.0 {
        return Err(("temperature", temperature, "finite and at least 0 (below 1e-5 is greedy)"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::arith::Scalar;
    use super::super::weights::{quantize, weight};
    use super::*;

    /// The weight is 0 at the reach and at larger distances. It is above 0 at a slightly smaller distance.
    #[test]
    fn weights_beyond_the_reach_are_zero() {
        for temperature in [1e-5_f32, 0.1, 0.7, 1.0, 1.3, 10.0, 1e6, 1e30, f32::MAX] {
            let row = RowParams::new(0, 1.0, 0.0, temperature, [0; 4], 8);
            let weight_at = |distance: f32| weight(Scalar, quantize(Scalar, distance, 0.0, row.scale));
            for distance in [row.reach, row.reach.next_up(), row.reach * 1.5, f32::INFINITY] {
                assert_eq!(weight_at(distance), 0, "T = {temperature}, {distance} below the maximum");
            }
            let within = (row.reach * 0.99).min(f32::MAX);
            assert!(weight_at(within) > 0, "T = {temperature}, reach {}", row.reach);
        }
    }

    /// Compares with `log2(e) / T · 2¹⁸` computed with 60 digits and rounded once. The code rounds to f64 first. That
    /// must not change the f32.
    #[test]
    fn scale_is_rounded_once() {
        let exact = [
            (1e-5_f32, 0x510ce360_u32),
            (0.1_f32, 0x4a66d4ca_u32),
            (0.3_f32, 0x4999e331_u32),
            (0.7_f32, 0x4903e74f_u32),
            (1.0_f32, 0x48b8aa3b_u32),
            (1.3_f32, 0x488e0ccb_u32),
            (2.5_f32, 0x4813bb63_u32),
            (10.0_f32, 0x4713bb63_u32),
            (1e30_f32, 0x16ea1735_u32),
        ];
        for (temperature, bits) in exact {
            assert_eq!(scale(temperature).to_bits(), bits, "T = {temperature}");
        }
    }
}
