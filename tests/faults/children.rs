//! Child processes that run cases, and the parent that watches them.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::selection;

/// In front of each line of a child that is for the parent: the test harness and plugins print too.
const MARK: &str = "\u{1}case ";

/// Variables that tell a child what to do.
const TASK: &str = "NUCLEUS_FAULTS_TASK";
const FROM: &str = "NUCLEUS_FAULTS_FROM";

/// A child that reports nothing for so long hangs. The longest step compiles one program.
const PATIENCE: Duration = Duration::from_secs(120);

/// After so many crashes and hangs the rest would say nothing new.
const MOST_DEATHS: usize = 40;

/// What the plugin behind the proxy is: the one with the newest API.
const PLUGIN: &str = "lammps-jax-pjrt-cpu.so";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Sweep(Scenario),
    Allocations(Subject),
}

/// Which calls are swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Every program is compiled and written to an empty program directory.
    Cold,
    /// Every program is loaded from a full program directory.
    Warm,
}

/// Whose allocations fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Builtin,
    Reference,
    Plugin,
}

const TASKS: [Task; 5] = [
    Task::Sweep(Scenario::Cold),
    Task::Sweep(Scenario::Warm),
    Task::Allocations(Subject::Builtin),
    Task::Allocations(Subject::Reference),
    Task::Allocations(Subject::Plugin),
];

/// Which of the cases run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    All,
    /// A part, chosen by this seed.
    Part(u64),
}

impl Choice {
    /// What the environment asks for; without `NUCLEUS_TEST_SEED`, the seed is the day.
    pub(crate) fn of_environment() -> Choice {
        match selection::full() {
            true => Choice::All,
            false => Choice::Part(selection::daily_seed()),
        }
    }
}

/// What became of a task.
#[derive(Default)]
pub(crate) struct Report {
    /// What the child said of the cases as a whole.
    pub(crate) summary: String,
    pub(crate) cases: usize,
    /// Each case that went wrong, and why.
    pub(crate) findings: Vec<String>,
}

/// The shared library of the fault plugin, which lies beside the test programs.
pub(crate) fn proxy_path() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.with_file_name("libfault_plugin.so")
}

pub(crate) fn plugin_path() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/plugins").join(PLUGIN);
    assert!(path.exists(), "{} is missing: run `make plugins`", path.display());
    path
}

/// A line for the parent.
fn tell(line: &str) {
    // A parent that is gone needs no lines.
    let _ = writeln!(std::io::stdout(), "\n{MARK}{line}");
}

/// In the child: says what the cases are as a whole.
pub(crate) fn tell_summary(summary: &str) {
    tell(&format!("summary {summary}"));
}

/// In the child: runs a case and tells what it found.
pub(crate) fn run_case(number: usize, name: &str, case: impl FnOnce() -> Vec<String>) {
    tell(&format!("start {number} {name}"));
    let findings = case();
    tell(&format!("end {}", findings.join("; ").replace('\n', " ")));
}

/// In the child: runs the task that the parent names.
pub(crate) fn run(run_task: impl FnOnce(Task, usize, Choice)) {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let task = TASKS.into_iter().find(|task| format!("{task:?}") == variable(TASK));
    let task = task.unwrap_or_else(|| panic!("{TASK} names no task: the other tests start this one"));
    run_task(task, variable(FROM).parse().unwrap(), Choice::of_environment());
    tell("finished");
}

/// In the parent: runs a task in as many child processes as it takes.
pub(crate) fn watch(task: Task) -> Report {
    let mut report = Report::default();
    let (mut from, mut deaths) = (0, 0);
    while let Err((number, death)) = watch_child(task, from, &mut report) {
        report.findings.push(death);
        (from, deaths) = (number + 1, deaths + 1);
        if deaths == MOST_DEATHS {
            report.findings.push(format!("{deaths} crashes and hangs: the rest was not tried"));
            break;
        }
    }
    report
}

/// Runs a child until it has finished, or until a case ends it: its number, and what happened.
fn watch_child(task: Task, from: usize, report: &mut Report) -> Result<(), (usize, String)> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"]);
    // A backtrace would push the message out of the last lines.
    command.env("RUST_BACKTRACE", "0").env(TASK, format!("{task:?}")).env(FROM, from.to_string());
    if let Choice::Part(seed) = Choice::of_environment() {
        command.env(selection::SEED_VARIABLE, seed.to_string());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = read_lines(child.stdout.take());
    let last_words = keep_last_words(child.stderr.take());

    let (mut number, mut name) = (from, "before the first case".to_owned());
    loop {
        let line = match lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(reason) => {
                let death = bury(&mut child, reason);
                let words = last_words.lock().unwrap().iter().cloned().collect::<Vec<_>>().join(" | ");
                return Err((number, format!("{task:?}: {name}: {death}: {words}")));
            }
        };
        let Some(line) = line.strip_prefix(MARK) else { continue };
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "summary" => report.summary = rest.to_owned(),
            "start" => {
                let (case, what) = rest.split_once(' ').unwrap();
                (number, name) = (case.parse().unwrap(), what.to_owned());
            }
            "end" => {
                report.cases += 1;
                if !rest.is_empty() {
                    report.findings.push(format!("{task:?}: {name}: {rest}"));
                }
            }
            _ => {
                child.wait().unwrap();
                return Ok(());
            }
        }
    }
}

/// Ends a child that is silent and says how it ended.
fn bury(child: &mut Child, reason: RecvTimeoutError) -> String {
    if reason == RecvTimeoutError::Timeout {
        child.kill().unwrap();
        child.wait().unwrap();
        return format!("hung for {} s", PATIENCE.as_secs());
    }
    let status = child.wait().unwrap();
    match status.signal() {
        Some(signal) => format!("died of signal {signal}"),
        None => format!("ended with {status}"),
    }
}

fn read_lines(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        let Some(pipe) = pipe else { return };
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

/// The last lines of standard error.
fn keep_last_words(pipe: Option<impl Read + Send + 'static>) -> Arc<Mutex<VecDeque<String>>> {
    let words = Arc::new(Mutex::new(VecDeque::new()));
    let kept = words.clone();
    let lines = read_lines(pipe);
    thread::spawn(move || {
        for line in lines.iter().filter(|line| !line.trim().is_empty()) {
            let mut kept = kept.lock().unwrap();
            kept.push_back(line.chars().take(200).collect());
            if kept.len() > 4 {
                kept.pop_front();
            }
        }
    });
    words
}
