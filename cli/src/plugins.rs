//! Finding plugins and trying them. Each is loaded in a child process: a plugin may end the process it is in, or never
//! return.

use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{channel, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nucleus::environment::PLUGIN_VARIABLE;
use nucleus::pjrt::{host_has_tpu, Client, OptionValue, Plugin, LIBTPU_AHEAD_ENVIRONMENT};
use serde::{Deserialize, Serialize};

use crate::arguments::Plugins;
use crate::{say, Result};

/// In front of each report of a child: plugins write to standard output too.
const MARK: &str = "nucleus-probe ";

/// Why a plugin that the user names is tried.
const NAMED: &str = "named";

/// How long what a plugin started may go on writing after the plugin's process has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where distributions and TPU hosts put libraries.
const LIBRARY_FOLDERS: [&str; 6] = [
    "/usr/lib",
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib",
    "/opt/libtpu",
];

/// Asks Python for the folders of its packages.
const SITE_PACKAGES: &str =
    "import site, sys; print('\\n'.join(dict.fromkeys(sys.path[1:] + site.getsitepackages() + \
                             [site.getusersitepackages()])))";

/// What a child tells, a step each.
#[derive(Serialize, Deserialize)]
enum Report {
    /// The plugin loaded.
    Loaded { api: String, stablehlo: Option<String>, build: String },
    /// Its client was made.
    Client { platform: String, version: String, devices: Vec<(i32, String, String)> },
    /// A step failed.
    Failed(String),
}

/// A file that may be a plugin, and why it is thought so.
struct Candidate {
    path: PathBuf,
    origin: String,
}

/// Prints every plugin and what becomes of it.
pub(crate) fn list(arguments: &Plugins) -> Result<()> {
    let candidates = candidates(arguments);
    if candidates.is_empty() {
        say("no plugin was found, in the environment, Python's packages or the system's libraries")?;
    }
    let (mut working, mut named_in_vain) = (0, 0);
    for candidate in &candidates {
        say(&format!("{}  ({})", candidate.path.display(), candidate.origin))?;
        match try_plugin(&candidate.path, Duration::from_secs(arguments.timeout))? {
            true => working += 1,
            false => named_in_vain += usize::from(candidate.origin == NAMED),
        }
    }
    say(&format!("{working} plugin(s) with devices, {} without", candidates.len() - working))?;
    match named_in_vain {
        0 => Ok(()),
        count => Err(format!("{count} of the plugins that were named gave no device")),
    }
}

/// Loads a plugin in this process and reports each step.
pub(crate) fn probe(path: &Path) {
    let report = |report: Report| {
        let line = serde_json::to_string(&report).unwrap_or_default();
        let mut out = std::io::stdout().lock();
        // If the parent is gone there is nobody to tell.
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
        report(Report::Loaded { api, stablehlo, build });
        let client = Client::create(plugin, &[])?;
        let devices = client.devices().iter();
        report(Report::Client {
            platform: client.platform_name().to_owned(),
            version: client.platform_version().to_owned(),
            devices: devices.map(|d| (d.id(), d.kind().to_owned(), d.debug_string().to_owned())).collect(),
        });
        Ok(())
    };
    if let Err(error) = steps() {
        report(Report::Failed(error.to_string()));
    }
}

/// Tries one plugin and prints what it says; whether it has a device.
fn try_plugin(path: &Path, timeout: Duration) -> Result<bool> {
    let outcome = match run_probe(path, timeout) {
        Err(error) => {
            say(&format!("    cannot be tried: {error}"))?;
            return Ok(false);
        }
        Ok(outcome) => outcome,
    };
    let (mut works, mut concluded) = (false, false);
    for line in outcome.stdout.lines() {
        let Some(report) = line.strip_prefix(MARK).and_then(|json| serde_json::from_str(json).ok()) else {
            continue;
        };
        match report {
            Report::Loaded { api, stablehlo, build } => {
                let stablehlo =
                    stablehlo.map_or_else(String::new, |version| format!(", StableHLO {version}"));
                say(&format!("    PJRT API {api}{stablehlo}, {build}"))?;
            }
            Report::Client { platform, version, devices } => {
                let version = version.replace('\n', ", ");
                say(&format!("    platform {platform} ({version}), {} device(s)", devices.len()))?;
                for (id, kind, description) in &devices {
                    say(&format!("    device {id}: {kind}, {description}"))?;
                }
                (works, concluded) = (!devices.is_empty(), true);
            }
            Report::Failed(reason) => {
                say(&format!("    {reason}"))?;
                concluded = true;
            }
        }
    }
    if !concluded {
        say(&format!("    {}", outcome.end))?;
        let said: Vec<&str> = outcome.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        for line in &said[said.len().saturating_sub(3)..] {
            say(&format!("    | {line}"))?;
        }
    }
    Ok(works)
}

/// What a child left behind.
struct Outcome {
    stdout: String,
    stderr: String,
    /// How it ended, in words, for where it told nothing.
    end: String,
}

fn run_probe(path: &Path, timeout: Duration) -> std::io::Result<Outcome> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("probe").arg(path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if !host_has_tpu() {
        for (name, value) in LIBTPU_AHEAD_ENVIRONMENT {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
    }
    let mut child = command.spawn()?;
    let (stdout, stderr) = (read_aside(child.stdout.take()), read_aside(child.stderr.take()));
    let end = match wait(&mut child, timeout)? {
        Some(status) => describe(status),
        None => {
            child.kill()?;
            child.wait()?;
            format!("no answer in {} s", timeout.as_secs())
        }
    };
    Ok(Outcome { stdout: text(&stdout), stderr: text(&stderr), end })
}

/// Reads a pipe while somebody else waits: a full pipe would stop the child. The chunks end where the pipe does.
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

/// What came out of a pipe. A process that the plugin has started may hold it open, and write, for good.
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

fn wait(child: &mut Child, timeout: Duration) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None if start.elapsed() >= timeout => return Ok(None),
            None => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("it ended its process: signal {signal}"),
        None => format!("it ended its process: status {}", status.code().unwrap_or(-1)),
    }
}

/// Everything to try, each file once, with the first reason to.
fn candidates(arguments: &Plugins) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let mut add = |path: PathBuf, origin: &str| {
        let path = path.canonicalize().unwrap_or(path);
        if !found.iter().any(|other| other.path == path) {
            found.push(Candidate { path, origin: origin.to_owned() });
        }
    };
    for path in &arguments.files {
        add(path.clone(), NAMED);
    }
    if arguments.only {
        return found;
    }
    for variable in [PLUGIN_VARIABLE, "TPU_LIBRARY_PATH"] {
        if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
            add(path.into(), variable);
        }
    }
    // As JAX has it: NAME:PATH,NAME:PATH
    let variable = "PJRT_NAMES_AND_LIBRARY_PATHS";
    for entry in std::env::var(variable).unwrap_or_default().split(',') {
        if let Some((_, path)) = entry.split_once(':') {
            add(path.into(), variable);
        }
    }
    for folder in python_folders() {
        let packages = ["jax_plugins", "xla_plugins"].iter().flat_map(|name| folders_in(&folder.join(name)));
        for package in packages.chain([folder.join("libtpu")]) {
            libraries_in(&package).into_iter().for_each(|path| add(path, "Python package"));
        }
    }
    for folder in LIBRARY_FOLDERS {
        libraries_in(Path::new(folder)).into_iter().for_each(|path| add(path, "system library"));
    }
    found
}

/// Package folders of the Python that runs by default; none where there is no Python.
fn python_folders() -> Vec<PathBuf> {
    let output = Command::new("python3").args(["-c", SITE_PACKAGES]).stdin(Stdio::null()).output();
    let text =
        output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect()
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    sorted(folder).into_iter().filter(|path| path.is_dir()).collect()
}

/// Shared libraries that are called like plugins. Loading anything else to see would run its initialisers.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let is_plugin = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let known = name.contains("pjrt") || name.contains("xla") || name == "libtpu.so";
        name.ends_with(".so") && known && path.is_file()
    };
    sorted(folder).into_iter().filter(is_plugin).collect()
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
