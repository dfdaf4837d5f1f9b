//! The command `nucleus doctor`: finds out whether the library can work on this host.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use nucleus::abi::{log_level_names, NUC_ABI_VERSION};
use nucleus::backend::pjrt::program_dir;
use nucleus::environment::{LOG_VARIABLE, PLUGIN_VARIABLE, PROGRAM_DIR_VARIABLE, TRUST_PROGRAM_DIR_VARIABLE};
use nucleus::{Backend, Batch, Sampler};
use serde::Serialize;

use crate::arguments::Doctor;
use crate::plugins::{self, PluginReport};
use crate::{print_line, print_styled, Result};

/// The variables that affect the library, a plugin or its compiler.
const VARIABLES: [&str; 8] = [
    PLUGIN_VARIABLE,
    PROGRAM_DIR_VARIABLE,
    TRUST_PROGRAM_DIR_VARIABLE,
    LOG_VARIABLE,
    "XLA_FLAGS",
    "LIBTPU_INIT_ARGS",
    "TPU_LIBRARY_PATH",
    "PJRT_NAMES_AND_LIBRARY_PATHS",
];

/// How serious a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Good,
    /// A fact that can be a problem, but usually is not.
    Note,
    /// A problem. The exit status is then 1.
    Problem,
}

/// One line of the report.
#[derive(Serialize)]
struct Finding {
    level: Level,
    topic: &'static str,
    text: String,
    /// How to solve the problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    solution: Option<String>,
}

impl Finding {
    fn new(level: Level, topic: &'static str, text: impl Into<String>) -> Finding {
        Finding { level, topic, text: text.into(), solution: None }
    }

    fn solved_by(self, solution: impl Into<String>) -> Finding {
        Finding { solution: Some(solution.into()), ..self }
    }
}

pub(crate) fn run(arguments: &Doctor, json: bool) -> Result<()> {
    let mut problems = 0;
    let mut report = |finding: Finding| -> Result<()> {
        problems += usize::from(finding.level == Level::Problem);
        if json {
            return print_line(&serde_json::to_string(&finding).map_err(|error| error.to_string())?);
        }
        let (style, word) = match finding.level {
            Level::Good => (AnsiColor::Green.on_default(), "ok     "),
            Level::Note => (AnsiColor::Yellow.on_default(), "note   "),
            Level::Problem => (AnsiColor::Red.on_default().bold(), "problem"),
        };
        print_styled(&format!("{style}{word}{style:#}  {:<10}  {}", finding.topic, finding.text))?;
        if let Some(solution) = &finding.solution {
            let dim = Style::new().dimmed();
            print_styled(&format!("                     {dim}→ {solution}{dim:#}"))?;
        }
        Ok(())
    };
    report(Finding::new(
        Level::Good,
        "library",
        format!("nucleus {}, ABI {NUC_ABI_VERSION}, contract 1", env!("CARGO_PKG_VERSION")),
    ))?;
    report(builtin_backend())?;
    for name in VARIABLES {
        if let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) {
            report(variable(name, &value.to_string_lossy()))?;
        }
    }
    if let Some(directory) = std::env::var_os(PROGRAM_DIR_VARIABLE).filter(|path| !path.is_empty()) {
        report(directory_of_programs(Path::new(&directory)))?;
    }
    let candidates = plugins::candidates(&[], false);
    if candidates.is_empty() {
        let text = "no PJRT plugin was found; the built-in backend needs none";
        report(Finding::new(Level::Note, "plugin", text).solved_by(format!(
            "to use a GPU or a TPU, install a plugin and set {PLUGIN_VARIABLE} to its shared library"
        )))?;
    }
    for candidate in &candidates {
        report(plugin(&plugins::test(candidate, Duration::from_secs(arguments.timeout))))?;
    }
    for finding in accelerators() {
        report(finding)?;
    }
    match problems {
        0 => Ok(()),
        1 => Err("1 problem was found".to_owned()),
        count => Err(format!("{count} problems were found")),
    }
}

/// Returns the finding about an environment variable. If the library ignores the value, the finding is a problem.
fn variable(name: &'static str, value: &str) -> Finding {
    let text = format!("{name}={value}");
    let names: Vec<&str> = log_level_names().collect();
    match name == LOG_VARIABLE && !names.contains(&value) {
        true => Finding::new(Level::Problem, "variable", format!("{text} is ignored"))
            .solved_by(format!("set {name} to one of {}, or unset it", names.join(", "))),
        false => Finding::new(Level::Note, "variable", text),
    }
}

/// Samples a row whose token is known.
fn builtin_backend() -> Finding {
    let sample = || -> std::result::Result<(i32, String), nucleus::Error> {
        let sampler = Sampler::builder().backend(Backend::Builtin).build()?;
        let tokens = sampler.sample(&Batch::new(&[0.0_f32, 3.0, -1.0, 2.0], 4)?.temperature(&[0.0]))?;
        Ok((tokens[0], sampler.platform().1))
    };
    match sample() {
        Ok((1, description)) => Finding::new(Level::Good, "built-in", description),
        Ok((token, _)) => Finding::new(
            Level::Problem,
            "built-in",
            format!("a greedy row gave the token {token} instead of 1"),
        )
        .solved_by("the library or the processor is defective; please report it"),
        Err(error) => Finding::new(Level::Problem, "built-in", error.to_string()),
    }
}

/// Checks the directory in `NUCLEUS_PROGRAM_DIR`.
fn directory_of_programs(directory: &Path) -> Finding {
    let name = directory.display();
    let problem = |text: String| Finding::new(Level::Problem, "programs", text);
    match program_dir::inspect(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            problem(format!("{name} does not exist")).solved_by(format!(
                "create the directory, or unset {PROGRAM_DIR_VARIABLE}; samplers with write_programs = 1 create it"
            ))
        }
        Err(error) => problem(format!("{name}: {error}")).solved_by(format!("correct {PROGRAM_DIR_VARIABLE}")),
        Ok(found) => match found.distrust {
            Some(reason) => problem(format!("{name} is not used: {reason}")).solved_by(format!(
                "use a directory that only this user can write to, or set {TRUST_PROGRAM_DIR_VARIABLE}=1"
            )),
            None => Finding::new(
                Level::Good,
                "programs",
                format!("{name}: {} program file(s), {:.1} MB", found.programs, found.bytes as f64 / 1e6),
            ),
        },
    }
}

fn plugin(report: &PluginReport) -> Finding {
    let file = report.file.display();
    if report.works {
        let platform = report.platform.as_deref().unwrap_or_default();
        let text = format!("{file}: platform {platform}, {} device(s)", report.devices.len());
        return Finding::new(Level::Good, "plugin", text);
    }
    let text = format!("{file}: {}", report.problem.as_deref().unwrap_or_default());
    match report.named {
        true => Finding::new(Level::Problem, "plugin", text)
            .solved_by(format!("correct or unset {PLUGIN_VARIABLE}; `nucleus plugins` shows more")),
        // The search found this plugin, but the user did not name it. An example is libtpu on a host without a TPU.
        false => Finding::new(Level::Note, "plugin", text),
    }
}

/// Looks for accelerators that the operating system reports.
fn accelerators() -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Ok(version) = fs::read_to_string("/proc/driver/nvidia/version") {
        let version = version.lines().next().unwrap_or_default().to_owned();
        findings.push(Finding::new(Level::Good, "GPU", version));
    } else if Path::new("/dev/nvidiactl").exists() {
        findings.push(Finding::new(Level::Good, "GPU", "/dev/nvidiactl exists"));
    }
    if nucleus::pjrt::host_has_tpu() {
        findings.push(Finding::new(Level::Good, "TPU", "this host has a TPU"));
    }
    findings
}
