//! What a row reports besides its token.

use std::fmt;

use crate::semantics::rules::{ROW_BAD_PARAMETER, ROW_HAD_INF, ROW_HAD_NAN, ROW_NO_CANDIDATE};

/// The status bits of a row. A normal row has no bit set.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RowStatus(u32);

impl RowStatus {
    /// The status with these bits: the `NUC_ROW_*` constants of the C header, as in
    /// [`Outputs::row_status`](crate::Outputs::row_status).
    pub const fn from_bits(bits: u32) -> RowStatus {
        RowStatus(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether no bit is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the row has no candidate, because every logit is −inf or NaN. Its token is −1.
    pub const fn no_candidate(self) -> bool {
        self.0 & ROW_NO_CANDIDATE != 0
    }

    /// Whether the row contains a NaN, which counted as −inf. The token is valid unless there was
    /// [no candidate](RowStatus::no_candidate).
    pub const fn had_nan(self) -> bool {
        self.0 & ROW_HAD_NAN != 0
    }

    /// Whether the row contains a +inf, which counted as the largest finite f32. The token is valid.
    pub const fn had_inf(self) -> bool {
        self.0 & ROW_HAD_INF != 0
    }

    /// Whether a parameter of the row is impossible. The row was not sampled, and its token is −1.
    pub const fn bad_parameter(self) -> bool {
        self.0 & ROW_BAD_PARAMETER != 0
    }
}

impl fmt::Debug for RowStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (self.no_candidate(), "no_candidate"),
            (self.had_nan(), "had_nan"),
            (self.had_inf(), "had_inf"),
            (self.bad_parameter(), "bad_parameter"),
        ];
        let names: Vec<&str> = names.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect();
        write!(f, "RowStatus({})", if names.is_empty() { "0".to_owned() } else { names.join(" | ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_have_names() {
        let status = RowStatus::from_bits(ROW_NO_CANDIDATE | ROW_HAD_NAN);
        assert_eq!(format!("{status:?}"), "RowStatus(no_candidate | had_nan)");
        assert!(status.no_candidate() && status.had_nan() && !status.had_inf() && !status.bad_parameter());
        assert!(
            RowStatus::from_bits(ROW_HAD_INF).had_inf()
                && RowStatus::from_bits(ROW_BAD_PARAMETER).bad_parameter()
        );
        assert_eq!(format!("{:?}", RowStatus::default()), "RowStatus(0)");
        assert!(RowStatus::default().is_empty() && !status.is_empty());
    }
}
