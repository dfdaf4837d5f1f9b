//! The command `nucleus`: compile the library's programs ahead of time, read them, look for plugins.

mod arguments;
mod plugins;

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Parser;
use nucleus::compile_ahead::{compile_ahead, AheadOptions};
use nucleus::kernels;
use nucleus::pjrt::LIBTPU_AHEAD_ENVIRONMENT;

use arguments::{Command, Compile, Emit, Options};

type Result<T> = std::result::Result<T, String>;

/// What the library logs, for people.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }
    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_lowercase();
            // There is nowhere to say that standard error is closed.
            let _ = writeln!(std::io::stderr(), "nucleus: {level}: {}", record.args());
        }
    }
    fn flush(&self) {}
}

fn main() -> ExitCode {
    let options = Options::parse();
    // A second logger could only be a defect of this file.
    let _ = log::set_logger(&Stderr);
    log::set_max_level(if options.verbose { log::LevelFilter::Debug } else { log::LevelFilter::Warn });
    let outcome = match &options.command {
        Command::Compile(arguments) => compile(arguments),
        Command::Emit(arguments) => emit(arguments),
        Command::Plugins(arguments) => plugins::list(arguments),
        Command::Probe { plugin } => {
            plugins::probe(plugin);
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "nucleus: {message}");
            ExitCode::FAILURE
        }
    }
}

fn compile(arguments: &Compile) -> Result<()> {
    let options = AheadOptions {
        plugin: arguments.plugin.clone(),
        topology: arguments.topology.clone(),
        plugin_options: arguments.option.clone(),
        smaller_batches: arguments.smaller_batches,
        max_k: arguments.calls.max_k,
        ..AheadOptions::new(arguments.output.clone(), arguments.batch.clone(), arguments.calls.calls())
    };
    if options.topology.is_some() {
        // No device is used, so libtpu need not look for one, nor for other users of it. This is the only thread yet.
        for (name, value) in LIBTPU_AHEAD_ENVIRONMENT {
            if std::env::var_os(name).is_none() {
                std::env::set_var(name, value);
            }
        }
    }
    let start = Instant::now();
    // The files are what is wanted: they are all made, whoever listens.
    let told = Mutex::new(Ok(()));
    let tell = |line: String| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_ok() {
            *told = write_line(&line);
        }
    };
    let written = compile_ahead(&options, &|program| {
        let (seconds, file) = (program.compiling.as_secs_f64(), program.file.display());
        tell(format!("{}  {seconds:.2} s  {} bytes  {file}", program.name, program.bytes));
    })
    .map_err(|error| error.to_string())?;
    tell(format!("{} program(s) in {:.2} s", written.len(), start.elapsed().as_secs_f64()));
    match told.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(cannot_be_written(&error)),
        _ => Ok(()),
    }
}

fn emit(arguments: &Emit) -> Result<()> {
    if arguments.batch > 128 {
        return Err(format!("--batch is {}: larger batches than 128 run in pieces", arguments.batch));
    }
    let (target, calls) = (arguments.target, &arguments.calls);
    // What a call of that many rows runs, the bucket's padding included.
    let specs = AheadOptions {
        max_k: calls.max_k,
        ..AheadOptions::new(Default::default(), vec![arguments.batch], calls.calls())
    }
    .specs()
    .map_err(|error| error.to_string())?;
    let mut parts = Vec::new();
    for spec in specs {
        let kernel = kernels::kernel_text(&spec, &target);
        if arguments.kernel {
            parts.push(kernel.ok_or_else(|| {
                format!("{} for {target} is StableHLO alone: it holds no kernel to show", spec.name())
            })?);
            continue;
        }
        parts.push(kernels::emit(&spec, &target));
        parts.extend(kernel.map(|text| format!("// What the custom call above holds, readable.\n{text}")));
    }
    let parts: Vec<&str> = parts.iter().map(|part| part.trim_end()).collect();
    // Between texts, MLIR's tools look for this line (--split-input-file).
    say(&parts.join("\n// -----\n"))
}

/// A line of output. The rest is not wanted where nobody reads on (`nucleus emit | head`).
fn say(line: &str) -> Result<()> {
    match write_line(line) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        outcome => outcome.map_err(|error| cannot_be_written(&error)),
    }
}

fn write_line(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

fn cannot_be_written(error: &std::io::Error) -> String {
    format!("standard output cannot be written: {error}")
}
