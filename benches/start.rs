//! Time from the start of a sampler's creation until a process is ready: one JSON object per line on standard output.
//!
//! Each measurement runs in a new process, because a process loads and initialises a plugin only once. The processes
//! use a directory of programs that is empty (cold) or that contains the programs (warm), alternately. Both write
//! programs. A figure contains the median times, and the ratio of the whole time to that of the cold directory. The
//! parts of the time are: loading the plugin; creating the sampler, which creates the plugin's client, identifies the
//! build of the plugin and opens the directory; and the work that needs programs.
//!
//! In `start/ready/…`, this work is the prewarm of a server: the programs of both paths for calls on the host with up
//! to 8 or 32 rows, or for calls on the device with 8 or 32 rows. In `start/bounded/…` and `start/arbitrary/…`, it is
//! one call with one row, which needs one program. The baseline of `start/program/…` is this call alone with a cold
//! directory.
//!
//! The environment variable NUCLEUS_PJRT_PLUGIN names the plugin. The default is a plugin that `make plugins`
//! downloads. Arguments that do not start with `-` select figures by name, as in `cpu.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nucleus::batch::{Batch, CallOptions};
use nucleus::dtype::{Dtype, Logits};
use nucleus::kernels::Wanted;
use nucleus::outputs::Outputs;
use nucleus::pjrt::Plugin;
use nucleus::plan::{CallShape, Entry, LogitsPlace};
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;

const VOCAB: usize = 128_256;
/// The number of processes per figure.
const RUNS: usize = 7;
/// If set, this process measures one start. The value is the directory of programs.
const DIRECTORY: &str = "NUCLEUS_BENCH_START_DIRECTORY";
const NAME: &str = "NUCLEUS_BENCH_START_NAME";
/// The number of processes per figure of `start/ready`. It is smaller than `RUNS`, because each process with a cold
/// directory compiles all programs of a server.
const READY_RUNS: usize = 3;

/// The work of a process after it has created its sampler.
#[derive(Clone, Copy)]
enum Work {
    /// A call with one row and this k.
    Call(Entry, i32),
    /// Prewarms calls with this number of rows.
    Prewarm(LogitsPlace, usize),
}

const ON_DEVICE: LogitsPlace = LogitsPlace::Device { singleton: false, bad_rows: false };

const WORK: [(&str, Work); 6] = [
    ("bounded", Work::Call(Entry::Bounded, 64)),
    ("arbitrary", Work::Call(Entry::Arbitrary, 5000)),
    ("ready/host-8", Work::Prewarm(LogitsPlace::Host, 8)),
    ("ready/host-32", Work::Prewarm(LogitsPlace::Host, 32)),
    ("ready/device-8", Work::Prewarm(ON_DEVICE, 8)),
    ("ready/device-32", Work::Prewarm(ON_DEVICE, 32)),
];

const PARTS: [&str; 3] = ["load_plugin", "create_sampler", "programs"];

/// The times of [`PARTS`], in microseconds.
type Times = [f64; PARTS.len()];

fn plugin() -> PathBuf {
    std::env::var_os("NUCLEUS_PJRT_PLUGIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/plugins/lammps-jax-pjrt-cpu.so"),
        PathBuf::from,
    )
}

/// Samples one row.
fn call(sampler: &Sampler, entry: Entry, k: i32) {
    let logits: Vec<f32> =
        (0..VOCAB as u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 8) as f32 * 1e-6).collect();
    let params = RowParams::new(k, 0.95, 0.0, 1.0, random_words(1, 2), VOCAB);
    let batch =
        Batch::from_params(Logits::F32(&logits), VOCAB, VOCAB, vec![params], CallOptions::default()).unwrap();
    let mut tokens = [-1];
    let mut outputs = Outputs { tokens: Some(&mut tokens), ..Outputs::default() };
    sampler.sample(entry, &batch, &mut outputs).unwrap();
    assert!((0..VOCAB as i32).contains(&tokens[0]));
}

/// Makes the programs of calls with any parameters.
fn prewarm(sampler: &Sampler, logits: LogitsPlace, batch: usize) {
    let (entry, dtype, wanted) = (Entry::Automatic, Dtype::F32, Wanted::default());
    let calls = CallShape { entry, batch, vocab: VOCAB, dtype, stable: true, wanted, logits };
    sampler.prewarm(&calls).unwrap();
}

/// Measures one start in this process, and prints the times.
fn start(directory: &Path, name: &str) {
    let (_, work) = WORK.into_iter().find(|(known, _)| *known == name).expect("the name of a figure");
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
    match work {
        Work::Call(entry, k) => call(&sampler, entry, k),
        Work::Prewarm(place, batch) => prewarm(&sampler, place, batch),
    }
    let done = begin.elapsed();
    let stats = sampler.stats();
    let times: Vec<String> = [loaded, created - loaded, done - created]
        .iter()
        .map(|time: &Duration| format!("{}", time.as_secs_f64() * 1e6))
        .collect();
    println!("{} {} {}", stats.compiles, stats.loaded, times.join(" "));
}

/// Measures one start in a new process. Returns the number of programs and the times.
fn measure(directory: &Path, name: &str, is_warm: bool) -> (u64, Times) {
    let output = Command::new(std::env::current_exe().unwrap())
        .env(DIRECTORY, directory)
        .env(NAME, name)
        .stderr(std::process::Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<f64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [compiled, loaded] = [numbers[0], numbers[1]];
    let (programs, others) = if is_warm { (loaded, compiled) } else { (compiled, loaded) };
    assert!(programs > 0.0 && others == 0.0, "{name}: {text}");
    (programs as u64, numbers[2..].try_into().unwrap())
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

fn report(name: &str, figure: &str, (time, baseline): (f64, f64), programs: u64, parts: Option<Times>) {
    let batch = match WORK.into_iter().find(|(known, _)| *known == figure) {
        Some((_, Work::Prewarm(_, batch))) => batch,
        _ => 1,
    };
    let round = |x: f64| (x * 100.0).round() / 100.0;
    let mut line = serde_json::json!({
        "name": name,
        "backend": "pjrt",
        "batch": batch,
        "vocab": VOCAB,
        "dtype": "f32",
        "case": figure,
        "programs": programs,
        "median_us": round(time),
        "ratio": (time / baseline * 10_000.0).round() / 10_000.0,
        "baseline": "cold directory",
    });
    for (part, time) in PARTS.iter().zip(parts.into_iter().flatten()) {
        line[format!("{part}_us")] = round(time).into();
    }
    println!("{line}");
}

fn compare(figure: &str, work: Work) {
    let file = figure.replace('/', "-");
    let directory = std::env::temp_dir().join(format!("nucleus-start-{file}-{}", std::process::id()));
    let (mut cold, mut warm, mut programs) = (Vec::new(), Vec::new(), 0);
    let (is_call, runs) = match work {
        Work::Call(..) => (true, RUNS),
        Work::Prewarm(..) => (false, READY_RUNS),
    };
    // The first run reads the plugin from the disk. That is a small part of the time of a server.
    for run in usize::from(!is_call)..=runs {
        let _ = fs::remove_dir_all(&directory);
        let (first, second) = (measure(&directory, figure, false), measure(&directory, figure, true));
        assert_eq!(first.0, second.0, "{figure}: the numbers of programs");
        if run > 0 {
            programs = first.0;
            cold.push(first.1);
            warm.push(second.1);
        }
    }
    fs::remove_dir_all(&directory).unwrap();
    let (cold, warm) = (Medians::of(&cold), Medians::of(&warm));
    let shape = match work {
        Work::Call(..) => format!("f32/1x{VOCAB}"),
        Work::Prewarm(_, batch) => format!("f32/{batch}x{VOCAB}"),
    };
    let name = |family: &str, kind: &str| format!("{family}/{figure}/{shape}/{kind}");
    report(&name("start", "cold"), figure, (cold.total, cold.total), programs, Some(cold.parts));
    report(&name("start", "warm"), figure, (warm.total, cold.total), programs, Some(warm.parts));
    let last = PARTS.len() - 1;
    if is_call {
        let times = (warm.parts[last], cold.parts[last]);
        report(&name("start/program", "warm"), figure, times, programs, None);
    }
    eprintln!(
        "start, {figure}, {programs} program(s): a warm directory is {:.1} times faster than a cold one; the programs {:.1} \
         times",
        cold.total / warm.total,
        cold.parts[last] / warm.parts[last]
    );
}

fn main() {
    if let (Some(directory), Ok(name)) = (std::env::var_os(DIRECTORY), std::env::var(NAME)) {
        return start(Path::new(&directory), &name);
    }
    if !plugin().exists() {
        eprintln!("start: not measured, because {} does not exist; run make plugins", plugin().display());
        return;
    }
    let chosen: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (figure, work) in WORK {
        let is_chosen = |chosen: &String| format!("start/{figure}").contains(chosen.as_str());
        if chosen.is_empty() || chosen.iter().any(is_chosen) {
            compare(figure, work);
        }
    }
}
