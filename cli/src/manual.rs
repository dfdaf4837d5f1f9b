//! The commands `nucleus completions` and `nucleus man`. Both derive their output from the definition of the arguments.

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::arguments::Options;
use crate::{print_line, Result};

/// Prints a shell's completion script.
pub(crate) fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Options::command(), "nucleus", &mut script);
    print_line(String::from_utf8_lossy(&script).trim_end())
}

/// Writes `nucleus.1`, and one page for each command: `nucleus-sample.1` and so on.
pub(crate) fn pages(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Options::command(), directory))
        .map_err(|error| format!("{}: {error}", directory.display()))
}
