//! Numbers in binary64. The kernels compute integers with them, so every result that they use is exact or has a known
//! error.

use super::operands::Class;
use super::{Double, Ptx, Wide};

impl Ptx {
    /// The constant `value`.
    pub fn double(&self, value: f64) -> Double {
        Double::constant(value)
    }

    /// Converts an integer, rounded to nearest even.
    pub fn double_of(&self, value: Wide) -> Double {
        self.double_op("cvt.rn.f64.u64", &[&value])
    }

    /// Converts to an integer, rounded toward zero. `value` is in `[0, 2⁶⁴)`.
    pub fn wide_of(&self, value: Double) -> Wide {
        self.wide_op("cvt.rzi.u64.f64", &[&value])
    }

    /// `1 / a`, rounded to nearest even.
    pub fn double_reciprocal(&self, a: Double) -> Double {
        self.double_op("rcp.rn.f64", &[&a])
    }

    /// `a + b`, rounded to nearest even.
    pub fn double_add(&self, a: Double, b: Double) -> Double {
        self.double_op("add.rn.f64", &[&a, &b])
    }

    /// `a - b`, rounded to nearest even.
    pub fn double_sub(&self, a: Double, b: Double) -> Double {
        self.double_op("sub.rn.f64", &[&a, &b])
    }

    /// `a * b`, rounded to nearest even.
    pub fn double_mul(&self, a: Double, b: Double) -> Double {
        self.double_op("mul.rn.f64", &[&a, &b])
    }

    /// `a * b + c`, rounded once, to nearest even.
    pub fn double_fma(&self, a: Double, b: Double, c: Double) -> Double {
        self.double_op("fma.rn.f64", &[&a, &b, &c])
    }

    fn double_op(&self, instruction: &str, operands: &[&dyn std::fmt::Display]) -> Double {
        let result = Double::register(self.new_register(Class::Double));
        self.op(instruction, &result, operands);
        result
    }
}
