//! The built-in backend. It runs SIMD code on the CPU cores of this machine and needs no plugin.
//!
//! A row is usually read once or twice, and never sorted. A file imports only files that come before it in this list:
//!
//! - `lanes`, `interleaved`: the sampling arithmetic in SIMD registers.
//! - `layout`, `pages`, `page_output`, `key16`, `element`, `blocks`: how a row is divided, how its elements are read,
//!   and where the collected elements are written.
//! - `bounds`, `scan`, `clean_row`, `locate`, `collect`, `collect_few`: passes that compare logits.
//! - `threshold_search`, `strided_sample`, `top_k`, `weighing`, `weigh_row`, `tail_bounds`, `top_p`, `draw`,
//!   `reaching`: passes that compute weights or bounds of their sums, the exact thresholds of top-k and top-p, the
//!   draw, and a pass that collects the logits that may have a weight.
//! - `row_kind`, `workspace`, `row_task`, `split`, `candidates`, `choose_token`, `wide_arrays`,
//!   `sample_row`: sample one row with these passes.
//! - `idle_list`, `learned_times`, `schedule`, `helpers`, `backend`: sample the rows of a batch on several threads.

mod backend;
mod blocks;
mod bounds;
mod candidates;
mod choose_token;
mod clean_row;
mod collect;
mod collect_few;
mod draw;
mod element;
mod helpers;
mod idle_list;
mod interleaved;
mod key16;
mod lanes;
mod layout;
mod learned_times;
mod locate;
mod page_output;
mod pages;
mod reaching;
mod row_kind;
mod row_task;
mod sample_row;
mod scan;
mod schedule;
mod split;
mod strided_sample;
mod tail_bounds;
mod threshold_search;
mod top_k;
mod top_p;
mod weigh_row;
mod weighing;
mod wide_arrays;
mod workspace;

pub use self::backend::BuiltinBackend;
pub use self::helpers::MOST_THREADS;
pub use self::sample_row::sample_row;
pub use self::scan::max_scan;
pub use self::workspace::Scratch;
