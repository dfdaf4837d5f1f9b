//! Time from the start of a sampler's creation to its first token: one JSON object per line on standard output.
//!
//! Each measurement runs in a new process, because a process loads and initialises a plugin only once. The processes use
//! a directory of programs that is empty (cold) or that contains the program (warm), alternately. Both write programs. A
//! figure contains the median times, and the ratio of the whole time to that of the cold directory. The parts of the
//! time are: loading the plugin; creating the sampler, which creates the plugin's client, identifies the build of the
//! plugin and opens the directory; and the first call, which compiles or loads the program. The baseline of
//! `start/program/…` is the first call alone with a cold directory.
//!
//! The environment variable NUCLEUS_PJRT_PLUGIN names the plugin. The default is a plugin that `make plugins` downloads.
//! Arguments that do not start with `-` select figures by name, as in `cpu.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nucleus::batch::{Batch, CallOptions};
use nucleus::dtype::Logits;
use nucleus::outputs::Outputs;
use nucleus::pjrt::Plugin;
use nucleus::plan::Entry;
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;

const VOCAB: usize = 128_256;
/// The number of processes per figure.
const RUNS: usize = 7;
/// If set, this process measures one start. The value is the directory of programs.
const DIRECTORY: &str = "NUCLEUS_BENCH_START_DIRECTORY";
const PATH: &str = "NUCLEUS_BENCH_START_PATH";
const PATHS: [(&str, Entry, i32); 2] =
    [("bounded", Entry::Bounded, 64), ("arbitrary", Entry::Arbitrary, 5000)];
const PARTS: [&str; 3] = ["load_plugin", "create_sampler", "first_call"];

/// The times of [`PARTS`], in microseconds.
type Times = [f64; PARTS.len()];

fn plugin() -> PathBuf {
    std::env::var_os("NUCLEUS_PJRT_PLUGIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/plugins/lammps-jax-pjrt-cpu.so"),
        PathBuf::from,
    )
}

/// Measures one start in this process, and prints the times.
fn start(directory: &Path, path: &str) {
    let (_, entry, k) = PATHS.into_iter().find(|(name, ..)| *name == path).expect("the name of a path");
    let logits: Vec<f32> =
        (0..VOCAB as u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 8) as f32 * 1e-6).collect();
    let params = RowParams::new(k, 0.95, 0.0, 1.0, random_words(1, 2), VOCAB);
    let batch =
        Batch::from_params(Logits::F32(&logits), VOCAB, VOCAB, vec![params], CallOptions::default()).unwrap();
    let options = SamplerOptions {
        backend: BackendChoice::Pjrt,
        plugin: Some(plugin()),
        program_dir: Some(directory.to_owned()),
        write_programs: true,
        ..SamplerOptions::default()
    };
    let begin = Instant::now();
    let _plugin = Plugin::load(&plugin()).unwrap();
    let loaded = begin.elapsed();
    let sampler = Sampler::new(&options).unwrap();
    let created = begin.elapsed();
    let mut tokens = [-1];
    let mut outputs = Outputs { tokens: Some(&mut tokens), ..Outputs::default() };
    sampler.sample(entry, &batch, &mut outputs).unwrap();
    let done = begin.elapsed();
    assert!((0..VOCAB as i32).contains(&tokens[0]));
    let stats = sampler.stats();
    let times: Vec<String> = [loaded, created - loaded, done - created]
        .iter()
        .map(|time: &Duration| format!("{}", time.as_secs_f64() * 1e6))
        .collect();
    println!("{} {} {}", stats.compiles, stats.loaded, times.join(" "));
}

/// Measures one start in a new process. `compiles` is the expected number of compiled programs.
fn measure(directory: &Path, path: &str, compiles: u64) -> Times {
    let output = Command::new(std::env::current_exe().unwrap())
        .env(DIRECTORY, directory)
        .env(PATH, path)
        .stderr(std::process::Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<f64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!(numbers[..2], [compiles as f64, 1.0 - compiles as f64], "{path}: {text}");
    numbers[2..].try_into().unwrap()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The medians of the sums and of each part.
struct Medians {
    total: f64,
    parts: Times,
}

impl Medians {
    fn of(times: &[Times]) -> Medians {
        let part = |i: usize| median(times.iter().map(|times| times[i]).collect());
        Medians {
            total: median(times.iter().map(|times| times.iter().sum()).collect()),
            parts: std::array::from_fn(part),
        }
    }
}

fn report(name: &str, path: &str, (time, baseline): (f64, f64), parts: Option<Times>) {
    let round = |x: f64| (x * 100.0).round() / 100.0;
    let mut line = serde_json::json!({
        "name": name,
        "backend": "pjrt",
        "batch": 1,
        "vocab": VOCAB,
        "dtype": "f32",
        "case": path,
        "median_us": round(time),
        "ratio": (time / baseline * 10_000.0).round() / 10_000.0,
        "baseline": "cold directory",
    });
    for (part, time) in PARTS.iter().zip(parts.into_iter().flatten()) {
        line[format!("{part}_us")] = round(time).into();
    }
    println!("{line}");
}

fn compare(path: &str) {
    let directory = std::env::temp_dir().join(format!("nucleus-start-{path}-{}", std::process::id()));
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let _ = fs::remove_dir_all(&directory);
        let (first, second) = (measure(&directory, path, 1), measure(&directory, path, 0));
        // The first run reads the plugin from the disk.
        if run > 0 {
            cold.push(first);
            warm.push(second);
        }
    }
    fs::remove_dir_all(&directory).unwrap();
    let (cold, warm) = (Medians::of(&cold), Medians::of(&warm));
    let name = |family: &str, kind: &str| format!("{family}/{path}/f32/1x{VOCAB}/{kind}");
    report(&name("start", "cold"), path, (cold.total, cold.total), Some(cold.parts));
    report(&name("start", "warm"), path, (warm.total, cold.total), Some(warm.parts));
    let call = PARTS.len() - 1;
    report(&name("start/program", "warm"), path, (warm.parts[call], cold.parts[call]), None);
    eprintln!(
        "start, {path}: a warm directory is {:.1} times faster than a cold one; its program {:.1} times",
        cold.total / warm.total,
        cold.parts[call] / warm.parts[call]
    );
}

fn main() {
    if let (Some(directory), Ok(path)) = (std::env::var_os(DIRECTORY), std::env::var(PATH)) {
        return start(Path::new(&directory), &path);
    }
    if !plugin().exists() {
        eprintln!("start: not measured, because {} does not exist; run make plugins", plugin().display());
        return;
    }
    let chosen: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (path, ..) in PATHS {
        if chosen.is_empty() || chosen.iter().any(|chosen| format!("start/{path}").contains(chosen.as_str()))
        {
            compare(path);
        }
    }
}
