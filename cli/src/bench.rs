//! The command `nucleus bench`: measures the kinds of sampling on this host.
//!
//! The logits are float32, normally distributed with standard deviation 3. The call and its baseline, the maximum of
//! each row, are measured in turn, so that the load of the machine has little effect on their ratio.

use std::hint::black_box;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use fearless_simd::Level;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nucleus::backend::builtin::max_scan;
use nucleus::semantics::philox::random_words;
use nucleus::{Backend, Batch, Logits, Outputs, Sampler};
use serde_json::json;

use crate::arguments::Bench;
use crate::chart::{self, Figure};
use crate::{print_line, print_styled, Result};

/// The parameters of every row of a call.
struct Case {
    name: &'static str,
    top_k: i32,
    top_p: f32,
    min_p: f32,
    temperature: f32,
}

const fn case(name: &'static str, top_k: i32, top_p: f32, min_p: f32, temperature: f32) -> Case {
    Case { name, top_k, top_p, min_p, temperature }
}

const CASES: [Case; 6] = [
    case("greedy", 0, 1.0, 0.0, 0.0),
    case("top_k=64 top_p=.95", 64, 0.95, 0.0, 1.0),
    case("top_k=5000 top_p=.95", 5000, 0.95, 0.0, 1.0),
    case("top_p=.95", 0, 0.95, 0.0, 1.0),
    case("min_p=.05", 0, 1.0, 0.05, 1.0),
    case("no filter", 0, 1.0, 0.0, 1.0),
];

pub(crate) fn run(arguments: &Bench, json: bool) -> Result<()> {
    if !(arguments.seconds > 0.0 && arguments.seconds <= 3600.0) {
        return Err(format!("--seconds is {}; it must be more than 0 and at most 3600", arguments.seconds));
    }
    let mut options = Sampler::builder().backend(Backend::Builtin).num_threads(arguments.threads);
    if let Some(plugin) = &arguments.plugin {
        options = options.backend(Backend::Pjrt).plugin_path(plugin);
    }
    let sampler = options.build().map_err(|error| error.to_string())?;
    let (platform, description) = sampler.platform();
    let progress = progress((arguments.vocab.len() * CASES.len()) as u64);
    let mut figures = Vec::new();
    for &vocab in &arguments.vocab {
        let logits = normal_logits(arguments.batch, vocab);
        for case in &CASES {
            progress.set_message(format!("vocab {vocab}, {}", case.name));
            let figure = measure(&sampler, &logits, vocab, case, Duration::from_secs_f64(arguments.seconds))?;
            if json {
                progress.suspend(|| print_line(&as_json(&figure, arguments, &platform, &description)))?;
            }
            figures.push(figure);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    let rows = if arguments.batch == 1 { "1 row".to_owned() } else { format!("{} rows", arguments.batch) };
    let title = format!("{platform} ({description}), f32, {rows} per call");
    if !json {
        print_line(&title)?;
        for line in chart::lines(&figures) {
            print_styled(&line)?;
        }
    }
    if let Some(path) = &arguments.svg {
        chart::write_svg(path, &title, &figures).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn as_json(figure: &Figure, arguments: &Bench, platform: &str, description: &str) -> String {
    json!({
        "case": figure.case,
        "vocab": figure.vocab,
        "batch": arguments.batch,
        "dtype": "f32",
        "platform": platform,
        "platform_version": description,
        "threads": arguments.threads,
        "microseconds": figure.microseconds,
        "maximum_microseconds": figure.maximum,
        "ratio": figure.ratio(),
    })
    .to_string()
}

fn progress(figures: u64) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(figures), target);
    match ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Measures a call and its baseline in turn until `time` is over, and returns the medians.
fn measure(sampler: &Sampler, logits: &[f32], vocab: usize, case: &Case, time: Duration) -> Result<Figure> {
    let rows = logits.len() / vocab;
    let seeds: Vec<u64> = (0..rows as u64).collect();
    let (top_k, top_p, min_p) = (vec![case.top_k; rows], vec![case.top_p; rows], vec![case.min_p; rows]);
    let temperature = vec![case.temperature; rows];
    let mut tokens = vec![0; rows];
    let mut offsets = vec![0; rows];
    let mut call = || -> std::result::Result<Duration, nucleus::Error> {
        offsets.iter_mut().for_each(|offset| *offset += 1);
        let begin = Instant::now();
        let batch = Batch::new(logits, vocab)?
            .top_k(&top_k)
            .top_p(&top_p)
            .min_p(&min_p)
            .temperature(&temperature)
            .seed(&seeds)
            .offset(&offsets);
        sampler.sample_into(&batch, Outputs::new().tokens(&mut tokens))?;
        Ok(begin.elapsed())
    };
    let mut call = || call().map_err(|error| error.to_string());
    // The first calls compile the program on a plugin, and let the built-in backend learn the times of its methods.
    for _ in 0..3 {
        call()?;
    }
    let level = Level::new();
    let (mut calls, mut scans) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    while calls.is_empty() || begin.elapsed() < time {
        calls.push(call()?);
        let start = Instant::now();
        for row in logits.chunks_exact(vocab) {
            black_box(max_scan(level, black_box(Logits::F32(row))));
        }
        scans.push(start.elapsed());
    }
    Ok(Figure { case: case.name, vocab, microseconds: median(calls), maximum: median(scans) })
}

/// The median in microseconds. The list is not empty.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// Logits with mean 0 and standard deviation 3, by the method of Box and Muller.
fn normal_logits(rows: usize, vocab: usize) -> Vec<f32> {
    let unit = |word: u32| (f64::from(word) + 0.5) / 4_294_967_296.0;
    (0..(rows * vocab) as u64)
        .map(|index| {
            let [a, b, ..] = random_words(1, index);
            let radius = (-2.0 * unit(a).ln()).sqrt();
            (3.0 * radius * (std::f64::consts::TAU * unit(b)).cos()) as f32
        })
        .collect()
}
