//! Runs cases in child processes. The parent process monitors them.

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

/// The mark at the start of each line that a child sends to the parent. The test harness and plugins print other lines.
const MARK: &str = "\u{1}case ";

/// The environment variables that define the task of a child.
const TASK: &str = "NUCLEUS_FAULTS_TASK";
const FROM: &str = "NUCLEUS_FAULTS_FROM";

/// If a child reports nothing for this time, it counts as hanging. The longest step compiles one program.
const PATIENCE: Duration = Duration::from_secs(120);

/// The parent stops after this number of crashes and hangs, because more of them would add no information.
const MOST_DEATHS: usize = 40;

/// The real plugin behind the proxy. Of the downloaded plugins it has the newest API.
const PLUGIN: &str = "lammps-jax-pjrt-cpu.so";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Sweep(Scenario),
    Allocations(Subject),
}

/// The calls of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Every program is compiled and written to an empty program directory.
    Cold,
    /// Every program is loaded from a full program directory.
    Warm,
    /// The logits are on the device, and the client belongs to the caller.
    Device,
}

/// The code whose allocations fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Builtin,
    Reference,
    Plugin,
}

const TASKS: [Task; 6] = [
    Task::Sweep(Scenario::Cold),
    Task::Sweep(Scenario::Warm),
    Task::Sweep(Scenario::Device),
    Task::Allocations(Subject::Builtin),
    Task::Allocations(Subject::Reference),
    Task::Allocations(Subject::Plugin),
];

/// The selection of cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    All,
    /// The part of the cases that this seed selects.
    Part(u64),
}

impl Choice {
    /// The selection that the environment variables define. Without `NUCLEUS_TEST_SEED`, the seed is the current day.
    pub(crate) fn of_environment() -> Choice {
        match selection::full() {
            true => Choice::All,
            false => Choice::Part(selection::daily_seed()),
        }
    }
}

/// The result of a task.
#[derive(Default)]
pub(crate) struct Report {
    /// The child's description of all cases.
    pub(crate) summary: String,
    pub(crate) cases: usize,
    /// Each failed case, with its reason.
    pub(crate) findings: Vec<String>,
}

/// The shared library of the fault plugin, in the directory of the test programs.
pub(crate) fn proxy_path() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.with_file_name("libfault_plugin.so")
}

pub(crate) fn plugin_path() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/plugins").join(PLUGIN);
    assert!(path.exists(), "{} is missing: run `make plugins`", path.display());
    path
}

/// Prints a line that is for the parent.
fn tell(line: &str) {
    // An error is ignored. It means that the parent has exited and does not need the line.
    let _ = writeln!(std::io::stdout(), "\n{MARK}{line}");
}

/// In the child: reports a description of all cases.
pub(crate) fn tell_summary(summary: &str) {
    tell(&format!("summary {summary}"));
}

/// In the child: runs a case and reports its findings.
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

/// In the parent: runs a task. After a crash or a hang, starts another child process for the remaining cases.
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

/// Runs a child until it has finished, or until a case crashes or hangs. In the second case, returns the number of the
/// case and a description.
fn watch_child(task: Task, from: usize, report: &mut Report) -> Result<(), (usize, String)> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"]);
    // Only the last lines of the output are kept. A backtrace would remove the message from them.
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

/// Kills a child that hangs, or waits for a child that crashed. Describes how the child ended.
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

/// Collects the last lines of standard error.
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
