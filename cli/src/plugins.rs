//! The command `nucleus plugins`: finds plugins and tests each in a child process.

use std::fs;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{channel, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nucleus::backend::pjrt::program_dir::distrust;
use nucleus::environment::PLUGIN_VARIABLE;
use nucleus::pjrt::{host_has_tpu, Client, OptionValue, Plugin};
use serde::{Deserialize, Serialize};

use crate::arguments::Plugins;
use crate::{child, print_line, Result};

/// The mark at the start of each report of a child on standard output. Plugins write to standard output too.
const MARK: &str = "nucleus-probe ";

/// The time for which output is read after the plugin's process has exited. Child processes of the plugin may still
/// write.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The directory into which `make plugins` downloads plugins, relative to the root of a checkout.
const FETCHED: &str = ".cache/plugins";

/// The library directories of distributions and TPU hosts.
const LIBRARY_DIRECTORIES: [&str; 6] = [
    "/usr/lib",
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib",
    "/opt/libtpu",
];

/// A Python program that prints the directories of Python's packages.
const SITE_PACKAGES: &str =
    "import site, sys; print('\\n'.join(dict.fromkeys(sys.path[1:] + site.getsitepackages() + \
                             [site.getusersitepackages()])))";

/// A step that a child completed.
#[derive(Serialize, Deserialize)]
enum Step {
    /// The plugin is loaded.
    Loaded { api: String, stablehlo: Option<String>, build: String },
    /// The plugin created a client.
    Client { platform: String, version: String, devices: Vec<Device> },
    /// A step failed with this message.
    Failed(String),
}

/// A file that may be a plugin.
pub(crate) struct Candidate {
    path: PathBuf,
    /// Where the file was found.
    origin: &'static str,
    /// Whether the user named it. The command fails if a named plugin does not work.
    named: bool,
}

/// The result of testing one plugin.
#[derive(Default, Serialize)]
pub(crate) struct PluginReport {
    pub(crate) file: PathBuf,
    /// Where the file was found.
    pub(crate) origin: &'static str,
    /// Whether the user named it.
    pub(crate) named: bool,
    /// Whether the plugin has a device and its process exited normally.
    pub(crate) works: bool,
    /// The version of the PJRT C API.
    api: Option<String>,
    stablehlo: Option<String>,
    build: Option<String>,
    pub(crate) platform: Option<String>,
    platform_version: Option<String>,
    pub(crate) devices: Vec<Device>,
    /// Why the plugin does not work.
    pub(crate) problem: Option<String>,
    /// The last lines that the plugin wrote to standard error before it ended its process.
    last_lines: Vec<String>,
}

/// A device of a plugin.
#[derive(Serialize, Deserialize)]
pub(crate) struct Device {
    id: i32,
    kind: String,
    description: String,
}

/// Tests every plugin and prints the results.
pub(crate) fn list(arguments: &Plugins, json: bool) -> Result<()> {
    let candidates = candidates(&arguments.files, arguments.only);
    if candidates.is_empty() && !json {
        print_line(&format!(
            "no plugin was found in the environment, in {FETCHED}, in Python's packages or in the system's libraries"
        ))?;
    }
    let (mut working, mut named_but_broken) = (0, 0);
    for candidate in &candidates {
        if !json {
            print_line(&format!("{}  ({})", candidate.path.display(), candidate.origin))?;
        }
        let report = test(candidate, Duration::from_secs(arguments.timeout));
        match report.works {
            true => working += 1,
            false => named_but_broken += usize::from(candidate.named),
        }
        if json {
            print_line(&serde_json::to_string(&report).map_err(|error| error.to_string())?)?;
        } else {
            for line in describe(&report) {
                print_line(&format!("    {line}"))?;
            }
        }
    }
    if !json {
        print_line(&format!("{working} plugin(s) with devices, {} without", candidates.len() - working))?;
    }
    match named_but_broken {
        0 => Ok(()),
        count => Err(format!("{count} of the named plugins did not work")),
    }
}

/// Loads a plugin in this process and reports each step.
pub(crate) fn probe(path: &Path) {
    let report = |report: Step| {
        let line = serde_json::to_string(&report).unwrap_or_default();
        let mut out = std::io::stdout().lock();
        // If the parent has exited, no process reads the report.
        let _ = writeln!(out, "\n{MARK}{line}").and_then(|()| out.flush());
    };
    let steps = || -> nucleus::pjrt::Result<()> {
        let plugin = Plugin::load(path)?;
        let attributes = plugin.attributes()?;
        let stablehlo = attributes.iter().find_map(|(name, value)| match value {
            OptionValue::I64List(parts) if name == "stablehlo_current_version" => {
                Some(parts.iter().map(i64::to_string).collect::<Vec<_>>().join("."))
            }
            _ => None,
        });
        let (api, build) = (plugin.version().to_string(), plugin.fingerprint()?.to_owned());
        report(Step::Loaded { api, stablehlo, build });
        let client = Client::create(plugin, &[])?;
        let devices = client.devices().iter();
        report(Step::Client {
            platform: client.platform_name().to_owned(),
            version: client.platform_version().to_owned(),
            devices: devices
                .map(|device| Device {
                    id: device.id(),
                    kind: device.kind().to_owned(),
                    description: device.debug_string().to_owned(),
                })
                .collect(),
        });
        Ok(())
    };
    if let Err(error) = steps() {
        report(Step::Failed(error.to_string()));
    }
}

/// Tests one plugin.
pub(crate) fn test(candidate: &Candidate, timeout: Duration) -> PluginReport {
    let mut report = PluginReport {
        file: candidate.path.clone(),
        origin: candidate.origin,
        named: candidate.named,
        ..PluginReport::default()
    };
    let outcome = match run_probe(&candidate.path, timeout) {
        Err(error) => {
            report.problem = Some(format!("it cannot be tested: {error}"));
            return report;
        }
        Ok(outcome) => outcome,
    };
    for line in outcome.stdout.lines() {
        match line.strip_prefix(MARK).and_then(|json| serde_json::from_str(json).ok()) {
            Some(Step::Loaded { api, stablehlo, build }) => {
                (report.api, report.stablehlo, report.build) = (Some(api), stablehlo, Some(build));
            }
            Some(Step::Client { platform, version, devices }) => {
                (report.platform, report.platform_version) =
                    (Some(platform), Some(version.replace('\n', ", ")));
                report.devices = devices;
            }
            Some(Step::Failed(reason)) => report.problem = Some(reason),
            None => {}
        }
    }
    // If a plugin returned an error, this error is the problem. Otherwise the way in which the process ended is the
    // problem, or a part of the problem.
    let ended_normally = outcome.status.is_some_and(|status| status.success());
    let concluded = report.problem.is_some() || !report.devices.is_empty();
    if !ended_normally || !concluded {
        let end = match outcome.status {
            Some(status) => {
                format!("it ended its process: {}{}", child::describe(status), child::flag_hint())
            }
            None => format!("its process did not end in {} s", timeout.as_secs()),
        };
        report.problem = Some(match report.problem.take() {
            Some(reason) => format!("{reason}; {end}"),
            None => end,
        });
        let lines: Vec<&str> = outcome.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        report.last_lines =
            lines[lines.len().saturating_sub(3)..].iter().map(|&line| line.to_owned()).collect();
    }
    report.works = report.problem.is_none();
    report
}

/// The lines that describe a plugin to a person.
fn describe(report: &PluginReport) -> Vec<String> {
    let mut lines = Vec::new();
    if let (Some(api), Some(build)) = (&report.api, &report.build) {
        let stablehlo =
            report.stablehlo.as_ref().map_or_else(String::new, |version| format!(", StableHLO {version}"));
        lines.push(format!("PJRT API {api}{stablehlo}, {build}"));
    }
    if let (Some(platform), Some(version)) = (&report.platform, &report.platform_version) {
        lines.push(format!("platform {platform} ({version}), {} device(s)", report.devices.len()));
    }
    lines.extend(
        report
            .devices
            .iter()
            .map(|device| format!("device {}: {}, {}", device.id, device.kind, device.description)),
    );
    lines.extend(report.problem.clone());
    lines.extend(report.last_lines.iter().map(|line| format!("| {line}")));
    lines
}

/// The output and the status of a child.
struct Outcome {
    stdout: String,
    stderr: String,
    /// `None` if the child was killed after the timeout.
    status: Option<ExitStatus>,
}

fn run_probe(path: &Path, timeout: Duration) -> std::io::Result<Outcome> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("probe").arg(path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if !host_has_tpu() {
        child::set_libtpu_environment(&mut command);
    }
    let mut child = command.spawn()?;
    let (stdout, stderr) = (read_aside(child.stdout.take()), read_aside(child.stderr.take()));
    let status = child::wait(&mut child, timeout)?;
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    Ok(Outcome { stdout: text(&stdout), stderr: text(&stderr), status })
}

/// Reads a pipe in a thread, because a full pipe would block the child. The channel closes when the pipe closes.
fn read_aside(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, chunks) = channel();
    thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let mut chunk = vec![0; 1 << 16];
        while let Ok(read @ 1..) = pipe.read(&mut chunk) {
            if sender.send(chunk[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    chunks
}

/// The text from a pipe. A process that the plugin started may keep the pipe open forever, so this function stops after
/// [`LAST_WORDS`].
fn text(chunks: &Receiver<Vec<u8>>) -> String {
    let end = Instant::now() + LAST_WORDS;
    let mut bytes = Vec::new();
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        match chunks.recv_timeout(left) {
            Ok(chunk) => bytes.extend(chunk),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// All files to test. Each file appears once, with the first place where it was found. If `only` is
/// true, these are only `files`, and there is no search.
pub(crate) fn candidates(files: &[PathBuf], only: bool) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let mut add = |path: PathBuf, origin: &'static str, named: bool| {
        let path = path.canonicalize().unwrap_or(path);
        match found.iter_mut().find(|other| other.path == path) {
            Some(other) => other.named |= named,
            None => found.push(Candidate { path, origin, named }),
        }
    };
    for path in files {
        add(path.clone(), "named", true);
    }
    if only {
        return found;
    }
    for (variable, named) in [(PLUGIN_VARIABLE, true), ("TPU_LIBRARY_PATH", false)] {
        if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
            add(path.into(), variable, named);
        }
    }
    // JAX's format: NAME:PATH,NAME:PATH
    let variable = "PJRT_NAMES_AND_LIBRARY_PATHS";
    for entry in std::env::var(variable).unwrap_or_default().split(',') {
        if let Some((_, path)) = entry.split_once(':') {
            add(path.into(), variable, false);
        }
    }
    let mut add_libraries = |directory: &Path, origin| {
        libraries_in(directory).into_iter().for_each(|path| add(path, origin, false));
    };
    // Testing a plugin runs its code. Another user can create this directory in a parent directory, such as /tmp.
    let here = std::env::current_dir().unwrap_or_default();
    let fetched = here.ancestors().map(|directory| directory.join(FETCHED)).filter(|path| is_trusted(path));
    fetched.for_each(|directory| add_libraries(&directory, FETCHED));
    for directory in python_directories() {
        let packages = ["jax_plugins", "xla_plugins"];
        let packages = packages.iter().flat_map(|name| directories_in(&directory.join(name)));
        for package in packages.chain([directory.join("libtpu")]) {
            add_libraries(&package, "Python package");
        }
    }
    LIBRARY_DIRECTORIES.iter().for_each(|directory| add_libraries(Path::new(directory), "system library"));
    found
}

/// Whether no other user can write to a directory and its files.
fn is_trusted(directory: &Path) -> bool {
    let is_safe = |path: &Path| matches!(distrust(path), Ok(None));
    is_safe(directory) && libraries_in(directory).iter().all(|path| is_safe(path))
}

/// The package directories of the default Python, or an empty list if there is no Python.
fn python_directories() -> Vec<PathBuf> {
    let output = Command::new("python3").args(["-c", SITE_PACKAGES]).stdin(Stdio::null()).output();
    let text =
        output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect()
}

fn directories_in(directory: &Path) -> Vec<PathBuf> {
    sorted(directory).into_iter().filter(|path| path.is_dir()).collect()
}

/// The shared libraries with the name of a plugin. Other libraries are not loaded, because loading runs their
/// initialisers.
fn libraries_in(directory: &Path) -> Vec<PathBuf> {
    let is_plugin = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let known = name.contains("pjrt") || name.contains("xla") || name == "libtpu.so";
        name.ends_with(".so") && known && path.is_file()
    };
    sorted(directory).into_iter().filter(is_plugin).collect()
}

fn sorted(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
