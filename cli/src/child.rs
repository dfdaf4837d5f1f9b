//! Child processes of this command. They run plugins, because a plugin can hang or terminate its process.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nucleus::pjrt::LIBTPU_AHEAD_ENVIRONMENT;
use serde::{Deserialize, Serialize};

use crate::Result;

/// The mark at the start of a child's conclusion on standard error. Plugins write to standard error too.
const MARK: &str = "nucleus-child ";

/// The environment variables from which XLA's compilers read flags.
const FLAG_VARIABLES: [&str; 2] = ["XLA_FLAGS", "LIBTPU_INIT_ARGS"];

/// The longest time between a child's conclusion and its exit.
const GRACE: Duration = Duration::from_secs(10);

/// The report of a child that no plugin terminated.
#[derive(Serialize, Deserialize)]
enum Conclusion {
    Done,
    Failed(String),
}

/// Sets the variables that libtpu needs on a host without a TPU, unless the user has set them.
pub(crate) fn set_libtpu_environment(command: &mut Command) {
    for (name, value) in LIBTPU_AHEAD_ENVIRONMENT {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
}

/// In the child: reports its result.
pub(crate) fn conclude(outcome: &Result<()>) {
    let conclusion = match outcome {
        Ok(()) => Conclusion::Done,
        Err(message) => Conclusion::Failed(message.clone()),
    };
    let json = serde_json::to_string(&conclusion).unwrap_or_default();
    // The report is written in one call, because threads of the plugin could write between two calls. A write error is
    // ignored: it means that the parent has exited.
    let _ = std::io::stderr().write_all(format!("{MARK}{json}\n").as_bytes());
}

/// In the child: exits when the parent exits. The parent's exit closes the pipe to this process's standard input.
pub(crate) fn end_with_parent() {
    thread::spawn(|| {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
}

/// Runs `command`, which calls [`conclude`], and forwards its standard error. If the process ends before its
/// conclusion, the error message contains `what`, which names the process.
pub(crate) fn run(mut command: Command, what: &str) -> Result<()> {
    let failed = |error: std::io::Error| format!("{what} cannot run in a child process: {error}");
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    // This pipe stays open until this process exits.
    let _stdin = child.stdin.take();
    if let Some(conclusion) = child.stderr.take().and_then(pass_on) {
        // The work is done. If a plugin hangs during the exit of the process, the result is still valid.
        if wait(&mut child, GRACE).map_err(failed)?.is_none() {
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
        }
        return match conclusion {
            Conclusion::Done => Ok(()),
            Conclusion::Failed(message) => Err(message),
        };
    }
    let status = child.wait().map_err(failed)?;
    Err(format!("the plugin ended the process of {what}: {}{}", describe(status), flag_hint()))
}

/// Copies a child's standard error to that of this process. Stops at the conclusion and returns it.
fn pass_on(stderr: impl Read) -> Option<Conclusion> {
    for line in BufReader::new(stderr).split(b'\n').map_while(std::io::Result::ok) {
        let (text, conclusion) = split_at_mark(&line);
        let line = if conclusion.is_some() { text.to_owned() } else { [text, b"\n"].concat() };
        // An error is ignored. It means that standard error is closed, so the error could not be printed.
        let _ = std::io::stderr().write_all(&line);
        if let Some(conclusion) = conclusion.and_then(|json| serde_json::from_slice(json).ok()) {
            return Some(conclusion);
        }
    }
    None
}

/// Waits for a child to exit. Returns `None` after the timeout.
pub(crate) fn wait(child: &mut Child, timeout: Duration) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None if start.elapsed() >= timeout => return Ok(None),
            None => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Splits a line into the text before the child's conclusion, and the conclusion. A plugin may have written text
/// without a newline before the conclusion.
fn split_at_mark(line: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mark = MARK.as_bytes();
    match line.windows(mark.len()).position(|window| window == mark) {
        Some(at) => (&line[..at], Some(&line[at + mark.len()..])),
        None => (line, None),
    }
}

/// Describes the exit status or the signal of a process.
pub(crate) fn describe(status: ExitStatus) -> String {
    let Some(signal) = status.signal() else {
        return format!("exit status {}", status.code().unwrap_or(-1));
    };
    let name = match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL: out of memory, or ended by another process)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        _ => "",
    };
    format!("signal {signal}{name}")
}

/// A hint for the error message. The most common reason why a plugin terminates its process immediately is an unknown
/// compiler flag in the environment.
pub(crate) fn flag_hint() -> String {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| value != OsStr::new(""));
    let set: Vec<&str> = FLAG_VARIABLES.into_iter().filter(|name| is_set(name)).collect();
    if set.is_empty() {
        return String::new();
    }
    let names = set.join(" and ");
    format!("; {names} is set in the environment: an unknown flag there ends the process inside a plugin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conclusions_are_found_after_unfinished_lines() {
        assert_eq!(split_at_mark(b"nucleus-child x"), (&b""[..], Some(&b"x"[..])));
        assert_eq!(split_at_mark(b"text nucleus-child x"), (&b"text "[..], Some(&b"x"[..])));
        assert_eq!(split_at_mark(b"nucleus-chil"), (&b"nucleus-chil"[..], None));
    }
}
