//! Compares a PJRT plugin with the built-in backend: every output array, bit for bit, for every class of row.
//!
//! ```text
//! cargo run --release --example agreement -- PLUGIN.so [--rounds N] [--only BATCHxVOCAB]... [--option NAME=VALUE]...
//! ```
//!
//! Prints one line per shape and a summary. Exits with status 1 if any value differs. `--only` selects shapes, and can
//! be repeated. If an `--only` selects no shape, the exit status is 1. Options are passed to the plugin's client. The
//! value `true` or `false` is a boolean, a number is an integer or a float. Any other value is a string.

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::time::Instant;

use common::{builtin, compare, sample, shapes, Comparison, Shape, EVERYTHING, FULL_WIDTH, PLAIN};
use nucleus::dtype::Dtype;
use nucleus::pjrt::OptionValue;
use nucleus::plan::Entry;
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};
use rand::prelude::*;

/// The largest number of logits of a small shape. A larger shape runs once, without the wide arrays, and is not
/// compared with the sorted reference.
const SMALL: usize = 5_000_000;
/// The largest number of rounds for a shape of [`larger_batches`].
const LARGER_BATCH_ROUNDS: usize = 3;

/// Returns shapes with larger batches than the shapes of [`shapes`]. Tests on a CPU also use [`shapes`], so that
/// function returns only small batches.
fn larger_batches() -> Vec<Shape> {
    let dtypes = [Dtype::F32, Dtype::Bf16, Dtype::F16];
    let mut larger = Vec::new();
    for (i, batch) in [16, 128, 300].into_iter().enumerate() {
        let vocabs: &[usize] = match batch {
            16 => &[1, 129, 1000, 32_000, 262_144, 1 << 20],
            128 => &[32_000, 128_256, 262_144],
            _ => &[1, 129, 1000, 32_000, 128_256],
        };
        for (j, &vocab) in vocabs.iter().enumerate() {
            let dtype = dtypes[(i + j) % 3];
            let small = batch * vocab <= SMALL;
            for (entry, ask) in [(Entry::Arbitrary, FULL_WIDTH), (Entry::Bounded, EVERYTHING)] {
                let ask = if small { ask } else { PLAIN };
                let stable = entry == Entry::Bounded || (i + j) % 2 == 0;
                larger.push(Shape { entry, dtype, batch, vocab, stable, ask });
            }
        }
    }
    larger
}

fn option(text: &str) -> (String, OptionValue) {
    let (name, value) = text.split_once('=').expect("an option is NAME=VALUE");
    let value = match value {
        "true" | "false" => OptionValue::Bool(value == "true"),
        _ => match (value.parse(), value.parse()) {
            (Ok(whole), _) => OptionValue::I64(whole),
            (_, Ok(number)) => OptionValue::F32(number),
            _ => OptionValue::Str(value.to_owned()),
        },
    };
    (name.to_owned(), value)
}

fn main() {
    let (mut plugin, mut rounds, mut only, mut client_options) = (None, 1, Vec::new(), Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => rounds = arguments.next().and_then(|n| n.parse().ok()).expect("--rounds N"),
            "--only" => only.push(arguments.next().expect("--only BATCHxVOCAB")),
            "--option" => client_options.push(option(&arguments.next().expect("--option NAME=VALUE"))),
            _ => plugin = Some(argument.into()),
        }
    }
    let larger = larger_batches().into_iter().map(|shape| (shape, rounds.min(LARGER_BATCH_ROUNDS)));
    let mut selected: Vec<_> = shapes().into_iter().map(|shape| (shape, rounds)).chain(larger).collect();
    let size = |shape: &Shape| format!("{}x{}", shape.batch, shape.vocab);
    if let Some(unknown) = only.iter().find(|name| !selected.iter().any(|(shape, _)| size(shape) == **name)) {
        eprintln!("--only {unknown} selects no shape");
        std::process::exit(1);
    }
    selected.retain(|(shape, _)| only.is_empty() || only.contains(&size(shape)));

    let options = SamplerOptions {
        backend: BackendChoice::Pjrt,
        plugin,
        client_options,
        cache_capacity: 512,
        ..SamplerOptions::default()
    };
    let device = Sampler::new(&options).unwrap_or_else(|error| panic!("{error}"));
    let (name, version, (major, minor)) = device.platform();
    println!("platform {name}, PJRT API {major}.{minor}: {}", version.replace('\n', " "));
    println!("device {}", device.devices()[0].kind);

    let reference = builtin(0);
    let mut rng = StdRng::seed_from_u64(20_260_101);
    let mut rows = 0;
    let mut total = Comparison::default();
    let mut kinds = BTreeMap::new();
    for (shape, rounds) in selected {
        let start = Instant::now();
        let large = shape.batch * shape.vocab > SMALL;
        let rounds = if large { 1 } else { rounds };
        for round in 0..rounds {
            let problem = shape.problem(&mut rng);
            let got = sample(&device, shape.entry, &problem, shape.ask);
            for entry in [Entry::Automatic, Entry::Reference] {
                // The sorted reference takes seconds for long rows. So it runs once for each small shape, and never for
                // a larger shape.
                if entry == Entry::Automatic || (round == 0 && !large) {
                    let want = sample(&reference, entry, &problem, shape.ask);
                    let found = compare(&problem, &got, &want);
                    total.values += found.values;
                    total.mismatches += found.mismatches;
                    total.first = total.first.or(found.first);
                }
            }
            rows += problem.len();
            problem.kinds.iter().for_each(|kind| *kinds.entry(format!("{kind:?}")).or_insert(0) += 1);
        }
        println!(
            "{:?} {:?} {}x{} stable={}: {} mismatches so far, {:.1} s",
            shape.entry,
            shape.dtype,
            shape.batch,
            shape.vocab,
            shape.stable,
            total.mismatches,
            start.elapsed().as_secs_f64()
        );
    }
    println!("rows by class: {kinds:?}");
    let stats = device.stats();
    println!("programs compiled: {}, in {:.1} s", stats.compiles, stats.compile_ns as f64 / 1e9);
    println!("rows compared: {rows}, values compared: {}, mismatches: {}", total.values, total.mismatches);
    if rows == 0 {
        println!("no row is compared");
        std::process::exit(1);
    }
    if let Some(first) = total.first {
        println!("first mismatch: {first}");
        std::process::exit(1);
    }
}
