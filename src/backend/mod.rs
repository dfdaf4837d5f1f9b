//! The two backends: the host's own cores, and any device behind a PJRT plugin.

pub mod builtin;
pub mod pjrt;
