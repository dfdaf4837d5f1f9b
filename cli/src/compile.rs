//! The command `nucleus compile`. It compiles in a child process, because the plugin can terminate its process.

use std::io::ErrorKind;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nucleus::compile_ahead::{compile_ahead, AheadOptions, Written};
use nucleus::environment::PLUGIN_VARIABLE;
use nucleus::error::Error;
use nucleus::pjrt;
use serde_json::json;

use crate::arguments::Compile;
use crate::flag_names::name_flags;
use crate::{cannot_be_written, child, write_line, Result};

/// Compiles in a child process.
pub(crate) fn run(arguments: &Compile) -> Result<()> {
    let plugin_variable = std::env::var_os(PLUGIN_VARIABLE).filter(|path| !path.is_empty());
    if arguments.plugin.is_none() && plugin_variable.is_none() {
        return Err(format!(
            "no PJRT plugin is named: add --plugin FILE, or set the environment variable {PLUGIN_VARIABLE}"
        ));
    }
    let program = std::env::current_exe().map_err(|error| format!("this program is not found: {error}"))?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).arg("--in-this-process");
    if arguments.topology.is_some() {
        // The compile uses no device, so libtpu does not need to search for devices or for other processes that use
        // them.
        child::set_libtpu_environment(&mut command);
    }
    child::run(command, "the compile")
}

/// Compiles in this process, which is the child process of [`run`], and reports the result to the parent.
pub(crate) fn run_in_child(arguments: &Compile, json: bool) {
    child::end_with_parent();
    child::conclude(&compile(arguments, json));
}

fn compile(arguments: &Compile, json: bool) -> Result<()> {
    let options = AheadOptions {
        plugin: arguments.plugin.clone(),
        topology: arguments.topology.clone(),
        plugin_options: arguments.option.clone(),
        smaller_batches: arguments.smaller_batches,
        row_buckets: arguments.row_buckets.clone(),
        skip_up_to_date: !arguments.force,
        max_k: arguments.calls.max_k,
        output_dir_capacity: arguments.capacity,
        ..AheadOptions::new(arguments.output.clone(), arguments.batch.clone(), arguments.calls.calls())
    };
    let start = Instant::now();
    // The files are the result. The command writes all of them, even if the reader of the output has exited.
    let printed = Mutex::new(Ok(()));
    let print = |line: String| {
        let mut printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
        if printed.is_ok() {
            *printed = write_line(&line);
        }
    };
    let outcome = compile_ahead(&options, &|program| {
        print(if json { as_json(program) } else { describe(program) });
    });
    // By now the client and its programs are destroyed.
    pjrt::log_release_failures();
    let written = outcome.map_err(explain)?;
    let up_to_date = written.iter().filter(|program| program.up_to_date).count();
    let compiled = written.len() - up_to_date;
    let seconds = start.elapsed().as_secs_f64();
    print(match json {
        true => json!({ "compiled": compiled, "up_to_date": up_to_date, "seconds": seconds }).to_string(),
        false => format!("{compiled} program(s) compiled, {up_to_date} up to date, in {seconds:.2} s"),
    });
    match printed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(cannot_be_written(&error)),
        _ => Ok(()),
    }
}

fn as_json(program: &Written) -> String {
    json!({
        "name": program.name,
        "up_to_date": program.up_to_date,
        "seconds": program.compiling.as_secs_f64(),
        "bytes": program.bytes,
        "file": program.file,
    })
    .to_string()
}

fn describe(program: &Written) -> String {
    let time = match program.up_to_date {
        true => "up to date".to_owned(),
        false => format!("{:.2} s", program.compiling.as_secs_f64()),
    };
    format!("{}  {time}  {} bytes  {}", program.name, program.bytes, program.file.display())
}

/// Converts the library's message to the terms of this command.
fn explain(error: Error) -> String {
    match &error {
        Error::Pjrt(pjrt::Error::TpuEnvironment { path }) => format!(
            "this host has no TPU: add --topology NAME, such as --topology v5e:2x2, to compile with {} for TPUs of \
             another host",
            path.display()
        ),
        Error::Pjrt(pjrt::Error::NoTpu { path, code, message }) => format!(
            "{} started no TPU: {message} ({code}); add --topology NAME, such as --topology v5e:2x2, to compile for \
             TPUs of another host",
            path.display()
        ),
        _ => name_flags(&error.to_string()),
    }
}
