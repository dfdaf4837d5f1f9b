//! Compares a PJRT plugin with the built-in backend: every output array, bit for bit, for every class of row.
//!
//! ```text
//! cargo run --release --example agreement -- PLUGIN.so [--rounds N] [--option NAME=VALUE]...
//! ```
//!
//! Prints one line per shape and a summary. Exits with status 1 if any value differs. Options are passed to the
//! plugin's client. The value `true` or `false` is a boolean, a number is an integer or a float, and any other value is
//! a string.

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::time::Instant;

use common::{builtin, compare, sample, shapes, Comparison};
use nucleus::pjrt::OptionValue;
use nucleus::plan::Entry;
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};
use rand::prelude::*;

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
    let (mut plugin, mut rounds, mut client_options) = (None, 1, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => rounds = arguments.next().and_then(|n| n.parse().ok()).expect("--rounds N"),
            "--option" => client_options.push(option(&arguments.next().expect("--option NAME=VALUE"))),
            _ => plugin = Some(argument.into()),
        }
    }
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
    for shape in shapes() {
        let start = Instant::now();
        for round in 0..rounds {
            let problem = shape.problem(&mut rng);
            let got = sample(&device, shape.entry, &problem, shape.ask);
            for entry in [Entry::Automatic, Entry::Reference] {
                // The sorted reference takes seconds for long rows, so it runs once per shape.
                if entry == Entry::Automatic || round == 0 {
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
    if let Some(first) = total.first {
        println!("first mismatch: {first}");
        std::process::exit(1);
    }
}
