//! The commands that describe this host and this command: `doctor`, `bench`, `completions`, `man`, and `--json`.

use std::fs;

use serde_json::Value;

use super::{command, directory, failure, nucleus, plugin, stderr, stdout};

fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// A `doctor` that finds no plugins in the current directory.
fn doctor(arguments: &[&str]) -> std::process::Command {
    let mut command = command(&["doctor"]);
    command.args(arguments).current_dir("/").env_remove("NUCLEUS_PROGRAM_DIR");
    for variable in ["TPU_LIBRARY_PATH", "PJRT_NAMES_AND_LIBRARY_PATHS"] {
        command.env_remove(variable);
    }
    command
}

#[test]
fn doctor_finds_no_problem_here() {
    let output = doctor(&["--json"]).output().unwrap();
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    let lines = json_lines(&stdout(&output));
    assert!(lines.iter().any(|line| line["topic"] == "built-in" && line["level"] == "good"), "{lines:?}");
}

#[test]
fn doctor_says_how_to_solve_problems() {
    let missing = directory("doctor_programs");
    let output = doctor(&[]).env("NUCLEUS_PROGRAM_DIR", &missing).output().unwrap();
    assert!(failure(&output).contains("1 problem was found"));
    let text = stdout(&output);
    assert!(text.contains("does not exist") && text.contains("→ create the directory"), "{text}");
    assert!(!text.contains('\x1b'), "colours without a terminal: {text:?}");

    fs::create_dir_all(&missing).unwrap();
    let output = doctor(&["--json"]).env("NUCLEUS_PROGRAM_DIR", &missing).output().unwrap();
    assert!(output.status.success(), "{}", stdout(&output));

    let output = doctor(&[]).env("NUCLEUS_LOG", "foo").output().unwrap();
    assert!(failure(&output).contains("1 problem was found"));
    let text = stdout(&output);
    assert!(
        text.contains("NUCLEUS_LOG=foo is ignored") && text.contains("one of off, error, warning"),
        "{text}"
    );
    assert!(doctor(&[]).env("NUCLEUS_LOG", "info").output().unwrap().status.success());

    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = doctor(&[]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));

    let output = doctor(&["--json"]).env("NUCLEUS_PJRT_PLUGIN", missing.join("no.so")).output().unwrap();
    failure(&output);
    let lines = json_lines(&stdout(&output));
    let problem = lines.iter().find(|line| line["level"] == "problem").unwrap();
    assert_eq!(problem["topic"], "plugin");
    assert!(problem["solution"].as_str().unwrap().contains("NUCLEUS_PJRT_PLUGIN"), "{problem}");
}

/// A directory of plugins that others can write to is not searched, because testing a plugin runs its code.
#[test]
fn plugins_that_others_can_replace_are_not_run() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = directory("doctor_writable");
    let plugins = directory.join(".cache/plugins");
    fs::create_dir_all(&plugins).unwrap();
    fs::write(plugins.join("x_pjrt.so"), b"").unwrap();
    let names_it = || {
        let output = doctor(&["--json"]).current_dir(&directory).output().unwrap();
        stdout(&output).contains("x_pjrt.so")
    };
    assert!(names_it());
    fs::set_permissions(&plugins, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(!names_it());
}

#[test]
fn bench_prints_a_figure_per_case_and_draws_them() {
    let directory = directory("bench");
    fs::create_dir_all(&directory).unwrap();
    let svg = directory.join("chart.svg");
    let arguments = ["bench", "--vocab", "100,200", "--seconds", "0.001", "--svg", svg.to_str().unwrap()];
    let output = nucleus(&[&arguments[..], &["--json"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let lines = json_lines(&stdout(&output));
    assert_eq!(lines.len(), 12, "{lines:?}");
    assert!(lines.iter().all(|line| line["microseconds"].as_f64().unwrap() > 0.0), "{lines:?}");
    let chart = fs::read_to_string(&svg).unwrap();
    assert!(chart.contains("<svg") && chart.contains("vocab 200") && chart.contains("greedy"), "{chart}");
    let text = stdout(&nucleus(&arguments));
    assert!(text.contains("vocab 200") && text.contains('█') && !text.contains('\x1b'), "{text}");
    failure(&nucleus(&["bench", "--seconds", "0"]));
}

#[test]
fn every_command_has_a_manual_page_and_completions() {
    let directory = directory("man");
    let output = nucleus(&["man", directory.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let completions = stdout(&nucleus(&["completions", "bash"]));
    let help = stdout(&nucleus(&["--help"]));
    for name in ["sample", "bench", "doctor", "compile", "emit", "plugins", "completions", "man"] {
        assert!(help.contains(name), "{help}");
        assert!(completions.contains(name), "{completions}");
        let page = fs::read_to_string(directory.join(format!("nucleus-{name}.1"))).unwrap();
        assert!(page.contains(".SH NAME"), "{page}");
    }
    assert!(!directory.join("nucleus-probe.1").exists());
    assert!(directory.join("nucleus.1").exists());
}

#[test]
fn plugins_and_programs_are_printed_as_json() {
    let plugin = plugin("lammps-jax-pjrt-cpu");
    let output = nucleus(&["plugins", "--only", plugin.to_str().unwrap(), "--json"]);
    let lines = json_lines(&stdout(&output));
    assert_eq!(lines.len(), 1);
    assert!(lines[0]["works"] == true && lines[0]["platform"] == "cpu", "{lines:?}");

    let shape = ["--batch", "1", "--vocab", "300", "--dtype", "f32", "--path", "arbitrary"];
    let output = nucleus(&[&["emit", "--json"], &shape[..]].concat());
    let lines = json_lines(&stdout(&output));
    assert_eq!(lines.len(), 1);
    assert!(lines[0]["text"].as_str().unwrap().contains("func.func"), "{lines:?}");

    let directory = directory("compile_json");
    let (file, out) = (plugin.to_str().unwrap(), directory.to_str().unwrap());
    let output = nucleus(&[&["compile", "--json", "--plugin", file, "-o", out], &shape[..]].concat());
    let lines = json_lines(&stdout(&output));
    assert_eq!(lines.len(), 2, "{}", stderr(&output));
    assert!(lines[0]["bytes"].as_u64().unwrap() > 0 && lines[1]["compiled"] == 1, "{lines:?}");
}
