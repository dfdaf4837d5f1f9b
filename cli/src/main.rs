//! The command `nucleus`: samples files of logits, measures the library, checks the host, and compiles the library's
//! programs ahead of time.

mod arguments;
mod bench;
mod chart;
mod child;
mod compile;
mod debug_file;
mod doctor;
mod first_error;
mod flag_names;
mod logits_file;
mod manual;
mod plugins;
mod sample;

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use clap::Parser;
use nucleus::abi::{log_to_standard_error, NUC_LOG_DEBUG, NUC_LOG_WARNING};
use nucleus::compile_ahead::AheadOptions;
use nucleus::embedding::Embedding;
use nucleus::kernels;
use nucleus::plan::{CallShape, LogitsPlace, LARGEST_DEFAULT_BUCKET};
use serde_json::json;

use arguments::{Command, Emit, Options};
use flag_names::name_flags;

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let options = Options::parse();
    let level = match options.verbose {
        true => NUC_LOG_DEBUG,
        false => NUC_LOG_WARNING,
    };
    let logging = log_to_standard_error(level).map_err(|error| error.to_string());
    match logging.and_then(|()| run(&options.command, options.json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "nucleus: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command, json: bool) -> Result<()> {
    match command {
        Command::Sample(arguments) => sample::run(arguments, json)?,
        Command::Bench(arguments) => bench::run(arguments, json)?,
        Command::Doctor(arguments) => doctor::run(arguments, json)?,
        Command::Completions { shell } => manual::completions(*shell)?,
        Command::Man { directory } => manual::pages(directory)?,
        Command::Compile(arguments) if arguments.in_this_process => compile::run_in_child(arguments, json),
        Command::Compile(arguments) => compile::run(arguments)?,
        Command::Emit(arguments) => emit(arguments, json)?,
        Command::Plugins(arguments) => plugins::list(arguments, json)?,
        Command::Probe { plugin } => plugins::probe(plugin),
    }
    Ok(())
}

fn emit(arguments: &Emit, json: bool) -> Result<()> {
    let (target, calls) = (arguments.target, &arguments.calls);
    if let Some(name) = &arguments.embed {
        let calls = CallShape { batch: arguments.batch, ..calls.calls() };
        let function = Embedding { calls, max_k: arguments.calls.max_k, target, name: name.clone() };
        let text = function.emit().map_err(|error| name_flags(&error.to_string()))?;
        return match json {
            true => print_line(&json!({ "name": name, "text": text }).to_string()),
            false => print_line(text.trim_end()),
        };
    }
    if calls.calls().logits == LogitsPlace::Host && arguments.batch > LARGEST_DEFAULT_BUCKET {
        return Err(format!(
            "--batch is {}; without --embed and with logits in host memory it must be at most \
             {LARGEST_DEFAULT_BUCKET}, because larger batches run in pieces",
            arguments.batch
        ));
    }
    // Print the programs of a call with this number of rows. With logits in host memory, the number of rows is rounded
    // up to a power of two.
    let specs = AheadOptions {
        max_k: calls.max_k,
        ..AheadOptions::new(Default::default(), vec![arguments.batch], calls.calls())
    }
    .specs()
    .map_err(|error| name_flags(&error.to_string()))?;
    let mut parts = Vec::new();
    for spec in specs {
        let kernel = spec.sampling().and_then(|spec| kernels::kernel_text(spec, &target));
        if arguments.kernel && kernel.is_none() {
            return Err(format!(
                "{} for {target} is StableHLO alone: it has no kernel to print",
                spec.name()
            ));
        }
        let program = (!arguments.kernel).then(|| spec.emit(&target));
        if json {
            print_line(&json!({ "name": spec.name(), "text": program, "kernel": kernel }).to_string())?;
            continue;
        }
        let comment =
            if program.is_some() { "// The kernel in the custom call above, as text.\n" } else { "" };
        parts.extend(program);
        parts.extend(kernel.map(|text| format!("{comment}{text}")));
    }
    if json {
        return Ok(());
    }
    let parts: Vec<&str> = parts.iter().map(|part| part.trim_end()).collect();
    // MLIR's tools expect this line between texts (--split-input-file).
    print_line(&parts.join("\n// -----\n"))
}

/// Prints a line. Exits if the reader has closed the pipe (`nucleus emit | head`).
fn print_line(line: &str) -> Result<()> {
    match write_line(line) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        outcome => outcome.map_err(|error| cannot_be_written(&error)),
    }
}

/// Prints a line that may contain styles. Removes them if standard output is not a terminal.
fn print_styled(line: &str) -> Result<()> {
    let styled = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
    print_line(&if styled { line.to_owned() } else { anstream::adapter::strip_str(line).to_string() })
}

fn write_line(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

fn cannot_be_written(error: &std::io::Error) -> String {
    format!("standard output cannot be written: {error}")
}
