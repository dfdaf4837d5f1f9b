//! The whole grid of TPU programs. libtpu compiles each program for every generation, and the interpreter runs each
//! program. This takes about three hours on two cores, so only `make test-tpu-full` runs it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::common::tpu::{chip, kinds_from, problem_of, some_hundredths, spec, Cases, GENERATIONS};
use crate::common::*;
use nucleus::batch::LARGEST_VOCAB;
use nucleus::compile_ahead::{compile_ahead, AheadOptions, Written};
use nucleus::dtype::Dtype;
use nucleus::kernels::{tpu, Chip, Path as Way, Spec};
use nucleus::pjrt::LIBTPU_AHEAD_ENVIRONMENT;
use nucleus::plan::{CallShape, Entry, LogitsPlace, LARGEST_MAX_K};
use rand::prelude::*;

const VOCABS: [usize; 6] = [1000, 32_000, 128_256, 151_936, 262_144, 1 << 20];
/// The number of rows per call. Calls with 13 rows run the program for 16 rows.
const BATCHES: [usize; 7] = [1, 2, 4, 8, 13, 16, 128];
const DTYPES: [Dtype; 2] = [Dtype::F32, Dtype::Bf16];
/// 128 slots are the default. The programs with 64 slots are compiled without the debug arrays only.
const PATHS: [Way; 3] = [Way::Bounded(128), Way::Bounded(64), Way::Arbitrary];
const SLOWEST_COMPILE: Duration = Duration::from_secs(20);
/// A Python program that prints the version of the interpreter's parser.
const JAXLIB_VERSION: &str = "import jaxlib; print(jaxlib.__version__)";

fn variants(path: Way) -> &'static [bool] {
    if path == Way::Bounded(64) {
        &[false]
    } else {
        &[false, true]
    }
}

#[derive(Default)]
struct Compiled {
    programs: usize,
    seconds: f64,
    slowest: Option<(Duration, String)>,
}

/// Returns the path of libtpu. Sets the environment variables that libtpu needs to compile without a TPU.
fn libtpu() -> PathBuf {
    LIBTPU_AHEAD_ENVIRONMENT.iter().for_each(|(name, value)| std::env::set_var(name, value));
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/plugins/libtpu.so");
    assert!(plugin.is_file(), "{} is missing: run `make plugins`", plugin.display());
    plugin
}

impl Compiled {
    /// Compiles programs as `nucleus compile` does, with one thread per core. `generation` is the name of a generation,
    /// and `topology` is one of its topologies.
    fn add(
        &mut self,
        plugin: &Path,
        (generation, topology): (&str, &str),
        (path, vocab, dtype, debug): (Way, usize, Dtype, bool),
        batches: &[usize],
    ) {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tpu_grid_programs");
        let (entry, max_k) = match path {
            Way::Bounded(max_k) => (Entry::Bounded, max_k),
            Way::Arbitrary => (Entry::Arbitrary, 128),
        };
        let (wanted, logits) = (spec(path, 1, vocab, dtype, debug).wanted, LogitsPlace::Host);
        let calls = CallShape { entry, batch: 1, vocab, dtype, stable: true, wanted, logits };
        let options = AheadOptions {
            plugin: Some(plugin.to_owned()),
            topology: Some(topology.to_owned()),
            max_k,
            ..AheadOptions::new(directory.clone(), batches.to_vec(), calls)
        };
        for Written { name: program, compiling, .. } in compile_ahead(&options, &|_| {}).unwrap() {
            let compiling = match compiling < SLOWEST_COMPILE {
                true => compiling,
                false => compiling_alone(&options, &program),
            };
            self.programs += 1;
            self.seconds += compiling.as_secs_f64();
            if self.slowest.as_ref().is_none_or(|(slowest, _)| *slowest < compiling) {
                self.slowest = Some((compiling, format!("{program} for {generation}")));
            }
        }
        // The programs of the whole grid take gigabytes, so each call removes its programs.
        fs::remove_dir_all(&directory).unwrap();
    }

    /// Returns the time and the name of the slowest program. Fails if it took too long.
    fn slowest(&self) -> (Duration, &str) {
        let (slowest, name) = self.slowest.as_ref().expect("programs");
        assert!(*slowest < SLOWEST_COMPILE, "{name} took {slowest:?} to compile");
        (*slowest, name)
    }
}

/// Compiles the grid.
fn compile(plugin: &Path) -> Compiled {
    let mut compiled = Compiled::default();
    for generation in GENERATIONS {
        let start = Instant::now();
        for vocab in VOCABS {
            for dtype in DTYPES {
                for path in PATHS {
                    for &debug in variants(path) {
                        compiled.add(plugin, generation, (path, vocab, dtype, debug), &BATCHES);
                    }
                }
            }
        }
        let (name, programs) = (generation.0, compiled.programs);
        println!("{name}: {programs} programs so far; this generation took {:?}", start.elapsed());
    }
    compiled
}

/// Compiles one program again while no other program compiles, because the limit applies to a single compile.
fn compiling_alone(options: &AheadOptions, program: &str) -> Duration {
    let alone = |batch: &usize| {
        fs::remove_dir_all(&options.output_dir).unwrap();
        let options = AheadOptions { batches: vec![*batch], ..options.clone() };
        compile_ahead(&options, &|_| {}).unwrap().into_iter().find(|written| written.name == program)
    };
    let written = options.batches.iter().find_map(alone).expect("it was compiled before");
    println!("{program} exceeded the limit while others compiled; alone it takes {:?}", written.compiling);
    written.compiling
}

/// A program for the interpreter. Its rows have consecutive classes of `ROW_KINDS`, starting at `first_kind`.
struct Job {
    spec: Spec,
    chip: Chip,
    first_kind: usize,
}

type Make = fn(&Spec, Vec<RowKind>, &mut StdRng) -> Problem;

impl Job {
    /// Returns the functions that make the rows. Random rows rarely use the kernel's candidate list, so the arbitrary
    /// kernel also samples rows that need it. Batches with more than 16 rows do not need this, because two blocks of
    /// rows already cover it.
    fn problems(&self) -> &'static [Make] {
        match self.spec.path {
            Way::Arbitrary if self.spec.batch <= 16 => &[problem_of, some_hundredths],
            _ => &[problem_of],
        }
    }
}

/// Returns every program of the grid. Programs that are equal for several generations appear once.
fn jobs() -> Vec<Job> {
    let mut jobs = Vec::new();
    for path in PATHS {
        for &debug in variants(path) {
            for dtype in DTYPES {
                let (mut next_kind, mut seen) = (0, HashSet::new());
                for vocab in VOCABS {
                    for batch in [1, 2, 4, 8, 16, 128] {
                        let spec = spec(path, batch, vocab, dtype, debug);
                        let mut texts = HashSet::new();
                        for (name, _) in GENERATIONS {
                            let chip = chip(name);
                            if texts.insert(tpu::kernel_text(&spec, &chip)) {
                                jobs.push(Job { spec, chip, first_kind: next_kind });
                                seen.extend((0..batch).map(|row| (next_kind + row) % ROW_KINDS.len()));
                                next_kind += batch;
                            }
                        }
                    }
                }
                assert_eq!(seen.len(), ROW_KINDS.len(), "{path:?} {dtype:?} {debug} misses a kind of row");
            }
        }
    }
    jobs.sort_by_key(|job| job.spec.batch * job.spec.vocab);
    jobs
}

/// The results of interpreting.
#[derive(Default)]
struct Found {
    cases: usize,
    values: usize,
    /// Cases in which the kernel used its candidate list.
    used_list: usize,
    /// The programs whose results differ from the built-in backend's.
    wrong: Vec<String>,
}

/// Interprets all programs, with one process per core. The largest programs take gigabytes of memory. So half of the
/// threads start with the largest programs, and the other threads start with the smallest programs.
fn interpret(jobs: &[Job]) -> Found {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tpu_grid");
    let (left, done) = (Mutex::new(0..jobs.len()), AtomicUsize::new(0));
    let found = Mutex::new(Found::default());
    let start = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let worker = |core| loop {
        let mut ends = left.lock().unwrap_or_else(PoisonError::into_inner);
        let number = if core < cores.div_ceil(2) { ends.next_back() } else { ends.next() };
        drop(ends);
        let Some(number) = number else { return };
        let job = &jobs[number];
        let mut rng = StdRng::seed_from_u64(number as u64);
        for make in job.problems() {
            let problem = make(&job.spec, kinds_from(job.first_kind, job.spec.batch), &mut rng);
            let mut cases = Cases::new(directory.join(number.to_string()));
            cases.add(&job.spec, &job.chip, &problem);
            drop(problem);
            let outcome = cases.run(&[]);
            let used_list = outcome.is_ok() && cases.took("decided / over the candidate list: then");
            let _ = fs::remove_dir_all(directory.join(number.to_string()));
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(checked) => {
                    found.cases += checked.cases;
                    found.values += checked.values;
                    found.used_list += usize::from(used_list);
                }
                Err(said) => {
                    println!("{} on {}: {said}", job.spec.name(), job.chip.name);
                    found.wrong.push(format!("{} on {}", job.spec.name(), job.chip.name));
                }
            }
        }
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(20) {
            println!("{done} of {} programs interpreted after {:?}", jobs.len(), start.elapsed());
        }
    };
    std::thread::scope(|scope| (0..cores).for_each(|core| drop(scope.spawn(move || worker(core)))));
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn output_of(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Returns the version of a plugin that `scripts/fetch-plugins.sh` downloads.
fn fetched_plugin(package: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/fetch-plugins.sh");
    let text = fs::read_to_string(script).unwrap();
    let prefix = format!("{package}==");
    let line = text.lines().find_map(|line| line.strip_prefix(&prefix)).expect("a pinned version");
    line.split(' ').next().unwrap_or(line).to_owned()
}

/// Prints a line with the versions and the date, and a table. If `NUCLEUS_UPDATE_DOCS` is set, also writes them to
/// their section of `docs/tpu.md`.
fn report(section: &str, used: &str, rows: &[(&str, String)]) {
    let date = output_of("date", &["-u", "+%F"]);
    let commit = output_of("git", &["rev-parse", "--short", "HEAD"]);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(
        "\nnucleus {version} ({commit}), {used}, {date}, on {cores} cores:\n\n| | |\n| --- | --- |\n"
    );
    text.extend(rows.iter().map(|(name, value)| format!("| {name} | {value} |\n")));
    text.push('\n');
    println!("{text}");
    if std::env::var_os("NUCLEUS_UPDATE_DOCS").is_none() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tpu.md");
    let document = fs::read_to_string(&path).unwrap();
    let (start, end) = (format!("<!-- {section} -->\n"), format!("<!-- /{section} -->"));
    let (before, rest) = document.split_once(&start).expect("a section mark in docs/tpu.md");
    let (_, after) = rest.split_once(&end).expect("a section mark in docs/tpu.md");
    fs::write(&path, format!("{before}{start}{text}{end}{after}")).unwrap();
}

/// Returns the part of the programs that is interpreted, and the number of parts. `NUCLEUS_TPU_FULL` is `1` for all
/// programs, or for example `2/3`.
fn part() -> (usize, usize) {
    let text = std::env::var("NUCLEUS_TPU_FULL").unwrap_or_default();
    let (part, parts) = text.split_once('/').unwrap_or((&text, "1"));
    match (part.parse(), parts.parse()) {
        (Ok(part), Ok(parts)) if (1..=parts).contains(&part) => (part, parts),
        _ => panic!("NUCLEUS_TPU_FULL={text}: expected 1, or a part such as 2/3"),
    }
}

/// The tests run one at a time. Each test uses all cores. Some tests also set environment variables, which is unsound
/// while another thread reads them.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> Option<MutexGuard<'static, ()>> {
    if std::env::var_os("NUCLEUS_TPU_FULL").is_some() {
        return Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner));
    }
    println!(
        "skipped: the whole grid takes three hours; `make test-tpu-full` sets NUCLEUS_TPU_FULL and runs it"
    );
    None
}

#[test]
fn every_program_agrees() {
    let Some(_alone) = alone() else { return };
    let start = Instant::now();
    let (jobs, (part, parts)) = (jobs(), part());
    let all = jobs.len();
    let jobs: Vec<Job> = jobs.into_iter().skip(part - 1).step_by(parts).collect();
    println!("{} of {all} programs to interpret", jobs.len());
    let Found { cases, values, used_list, wrong } = interpret(&jobs);
    assert!(wrong.is_empty(), "these programs differ from the built-in backend: {wrong:#?}");
    assert_eq!(cases, jobs.iter().map(|job| job.problems().len()).sum::<usize>());
    let for_list = jobs.iter().filter(|job| job.problems().len() > 1).count();
    // A small part can contain few programs whose rows fit the list.
    assert!(
        parts > 1 || used_list > for_list / 2,
        "only {used_list} of {for_list} batches used the candidate list"
    );
    report(
        "interpreted",
        &format!("jaxlib {}", output_of(".cache/interpreter/bin/python", &["-c", JAXLIB_VERSION])),
        &[
            (
                "programs interpreted",
                format!("{} of {all} in {:.0} minutes", jobs.len(), minutes(start.elapsed())),
            ),
            ("batches", cases.to_string()),
            ("batches that used the candidate list of the arbitrary kernel", used_list.to_string()),
            ("values compared with the built-in backend", values.to_string()),
            ("mismatches", wrong.len().to_string()),
        ],
    );
}

#[test]
fn every_generation_compiles_every_program() {
    let Some(_alone) = alone() else { return };
    let plugin = libtpu();
    let start = Instant::now();
    let compiled = compile(&plugin);
    let (slowest, name) = compiled.slowest();
    let names: Vec<&str> = GENERATIONS.iter().map(|(name, _)| *name).collect();
    report(
        "compiled",
        &format!("libtpu {}", fetched_plugin("libtpu")),
        &[
            ("generations", names.join(", ")),
            (
                "programs compiled",
                format!("{} in {:.0} minutes", compiled.programs, minutes(start.elapsed())),
            ),
            ("compiling one, on average", format!("{:.1} s", compiled.seconds / compiled.programs as f64)),
            ("compiling the slowest", format!("{:.1} s (`{name}`)", slowest.as_secs_f64())),
        ],
    );
}

/// The programs have the largest `max_k`, the longest rows, or both.
#[test]
fn every_generation_compiles_the_largest_programs() {
    let Some(_alone) = alone() else { return };
    let plugin = libtpu();
    let mut compiled = Compiled::default();
    let largest = LARGEST_MAX_K;
    for generation in GENERATIONS {
        for (path, vocab) in [
            (Way::Bounded(largest), 128_256),
            (Way::Bounded(largest), LARGEST_VOCAB),
            (Way::Arbitrary, LARGEST_VOCAB),
        ] {
            for dtype in DTYPES {
                compiled.add(&plugin, generation, (path, vocab, dtype, true), &[1, 8]);
            }
        }
    }
    let (slowest, name) = compiled.slowest();
    println!("{} programs; the slowest, {name}, took {slowest:?}", compiled.programs);
}

fn minutes(time: Duration) -> f64 {
    time.as_secs_f64() / 60.0
}
