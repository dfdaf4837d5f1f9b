//! The command, run as a user runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nucleus::dtype::Dtype;
use nucleus::kernels::{self, Path as KernelPath, Spec, Target, Wanted};
use nucleus::pjrt::{host_has_tpu, LIBTPU_AHEAD_ENVIRONMENT};
use nucleus::plan::{CallShape, Entry};
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};

fn plugin(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/plugins").canonicalize();
    let path = folder.expect("no plugins: run `make plugins`").join(name).with_extension("so");
    assert!(path.is_file(), "{} is missing: run `make plugins`", path.display());
    path
}

fn nucleus(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nucleus"));
    command.args(arguments).env_remove("NUCLEUS_PJRT_PLUGIN");
    LIBTPU_AHEAD_ENVIRONMENT.iter().for_each(|(name, _)| {
        command.env_remove(name);
    });
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    path
}

#[test]
fn what_it_compiles_samplers_load() {
    let (plugin, folder) = (plugin("lammps-jax-pjrt-cpu"), folder("compile"));
    let (file, out) = (plugin.to_str().unwrap(), folder.to_str().unwrap());
    let output = nucleus(&[
        "compile",
        "--plugin",
        file,
        "--option",
        "cpu_device_count=2",
        "--batch",
        "1,3",
        "--vocab",
        "500",
        "--dtype",
        "bf16",
        "--max-k",
        "64",
        "-o",
        out,
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    for line in &lines[..4] {
        let [name, seconds, "s", bytes, "bytes", file] = line.split_whitespace().collect::<Vec<_>>()[..]
        else {
            panic!("{line}");
        };
        assert!(name.starts_with("nucleus_") && seconds.parse::<f64>().unwrap() > 0.0, "{line}");
        assert!(fs::metadata(file).unwrap().len() > bytes.parse().unwrap(), "{line}");
    }
    assert!(lines[4].starts_with("4 program(s) in "), "{text}");

    let sampler = Sampler::new(&SamplerOptions {
        backend: BackendChoice::Pjrt,
        plugin: Some(plugin.clone()),
        client_options: vec![("cpu_device_count".to_owned(), nucleus::pjrt::OptionValue::I64(2))],
        max_k: 64,
        program_dir: Some(folder.clone()),
        ..SamplerOptions::default()
    })
    .unwrap();
    let calls = CallShape {
        entry: Entry::Automatic,
        batch: 1,
        vocab: 500,
        dtype: Dtype::Bf16,
        stable: true,
        wanted: Wanted::default(),
    };
    sampler.prewarm(&calls).unwrap();
    assert_eq!((sampler.stats().compiles, sampler.stats().loaded), (0, 2));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn it_prints_programs() {
    let spec = Spec {
        path: KernelPath::Bounded(16),
        batch: 4,
        vocab: 300,
        dtype: Dtype::F16,
        stable: true,
        wanted: Wanted { topk_logits: true, weights: false, slices: true },
    };
    for target in Target::names() {
        let arguments = [
            "emit",
            "--batch",
            "3",
            "--vocab",
            "300",
            "--dtype",
            "f16",
            "--path",
            "bounded",
            "--max-k",
            "16",
            "--wide",
            "logits,k-slices",
            "--target",
            target,
        ];
        let output = nucleus(&arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        let target = Target::named(target).unwrap();
        let text = stdout(&output);
        let mut parts = text.split("// -----\n").map(str::trim_end);
        assert_eq!(parts.next(), Some(kernels::emit(&spec, &target).trim_end()));

        let output = nucleus(&[&arguments[..], &["--kernel"]].concat());
        match kernels::kernel_text(&spec, &target) {
            Some(kernel) => {
                let (comment, shown) = parts.next().unwrap().split_once('\n').unwrap();
                assert!(comment.starts_with("// ") && shown == kernel.trim_end());
                assert_eq!(stdout(&output).trim_end(), kernel.trim_end());
            }
            None => assert!(!output.status.success() && stderr(&output).contains("StableHLO alone")),
        }
        assert_eq!(parts.next(), None);
    }
    let output = nucleus(&["emit", "--batch", "1", "--vocab", "300", "--dtype", "f32", "--target", "v99"]);
    assert!(
        !output.status.success() && stderr(&output).contains("possible values: portable, v4"),
        "{}",
        stderr(&output)
    );
    let output = nucleus(&["emit", "--batch", "200", "--vocab", "300", "--dtype", "f32"]);
    assert!(!output.status.success() && stderr(&output).contains("--batch is 200"), "{}", stderr(&output));
}

/// A full disk is an error; a reader that has read enough is none, and what is compiled is compiled.
#[test]
fn output_that_cannot_be_written() {
    let emit = ["emit", "--batch", "1", "--vocab", "300", "--dtype", "f32"];
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap());
    let output = command(&emit).stdout(full()).stderr(Stdio::piped()).output().unwrap();
    assert!(!output.status.success() && stderr(&output).contains("standard output cannot be written"));

    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    assert!(command(&emit).stdout(closed()).status().unwrap().success());
    let (plugin, folder) = (plugin("lammps-jax-pjrt-cpu"), folder("unheard"));
    let (file, out) = (plugin.to_str().unwrap(), folder.to_str().unwrap());
    let compile =
        ["compile", "--plugin", file, "--batch", "1,2", "--vocab", "300", "--dtype", "f32", "-o", out];
    for (stdout, heard) in [(closed(), true), (full(), false)] {
        let status = command(&compile).stdout(stdout).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.success(), heard);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 4);
        fs::remove_dir_all(&folder).unwrap();
    }
}

#[test]
fn errors_say_what_to_do() {
    let common = ["compile", "--batch", "1", "--vocab", "300", "--dtype", "f32", "-o", "unused"];
    let fails = |more: &[&str], words: &str| {
        let output = nucleus(&[&common[..], more].concat());
        assert!(!output.status.success() && stderr(&output).contains(words), "{}", stderr(&output));
    };
    fails(&[], "NUCLEUS_PJRT_PLUGIN");
    fails(&["--plugin", "/nonexistent.so"], "no PJRT plugin at /nonexistent.so");
    fails(&["--max-k", "5000"], "max_k is 5000");
    fails(&["--option", "novalue"], "NAME=VALUE");
    assert!(!Path::new("unused").exists());
}

/// A library whose entry point does what `body` says.
fn hostile(name: &str, body: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (c, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
    let includes = "#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n";
    fs::write(&c, format!("{includes}void *GetPjrtApi(void) {{ {body} return 0; }}\n")).unwrap();
    let status = Command::new("cc").args(["-shared", "-fPIC", "-w", "-o"]).arg(&library).arg(&c).status();
    assert!(status.expect("cc runs").success());
    library.to_str().unwrap().to_owned()
}

/// Plugins that end their process or never return are described like any other, and the good one is not lost.
#[test]
fn no_plugin_ends_the_search() {
    let good = plugin("xla-cpu-pjrt");
    let good = good.to_str().unwrap();
    let aborts = hostile("aborts", r#"fprintf(stderr, "my last words\n"); abort();"#);
    let leaves = hostile("leaves", "exit(0);");
    let hangs = hostile("hangs", "for (;;) sleep(1);");
    // More than a pipe holds, on both.
    let talks = hostile(
        "talks",
        "for (int i = 0; i < 200000; i++) { puts(\"x\"); fputs(\"y\\n\", stderr); } fflush(0);",
    );
    // A child of its own that keeps the pipes open.
    let forks = hostile("forks", "if (fork() == 0) { sleep(60); _exit(0); }");
    let start = Instant::now();
    let output = nucleus(&[
        "plugins",
        "--only",
        "--timeout",
        "5",
        &aborts,
        &leaves,
        &hangs,
        &forks,
        &talks,
        good,
        "/nonexistent.so",
        good,
    ]);
    let text = stdout(&output);
    assert!(!output.status.success(), "{text}");
    assert!(
        stderr(&output).contains("6 of the plugins that were named gave no device"),
        "{}",
        stderr(&output)
    );
    for words in [
        "signal 6",
        "| my last words",
        "status 0",
        "no answer in 5 s",
        "GetPjrtApi returned null",
        "PJRT API 0.81, StableHLO ",
        "platform cpu (cpu), 4 device(s)",
        "device 3: cpu, TFRT_CPU_3",
        "no PJRT plugin at /nonexistent.so",
        "1 plugin(s) with devices, 6 without",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(text.matches("xla-cpu-pjrt.so  (named)").count(), 1, "{text}");
    assert!(nucleus(&["plugins", "--only", good]).status.success());
    assert!(!nucleus(&["plugins", "--only"]).status.success());
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn plugins_are_found_where_the_environment_says() {
    let path = plugin("xla-cpu-pjrt");
    let output = command(&["plugins"])
        .env("NUCLEUS_PJRT_PLUGIN", &path)
        .env("PJRT_NAMES_AND_LIBRARY_PATHS", "cpu:/nonexistent.so")
        .output()
        .unwrap();
    let text = stdout(&output);
    assert!(text.contains(&format!("{}  (NUCLEUS_PJRT_PLUGIN)", path.display())), "{text}");
    assert!(text.contains("/nonexistent.so  (PJRT_NAMES_AND_LIBRARY_PATHS)"), "{text}");
}

/// The variables that libtpu needs are set by the command where a topology is named, and by nobody else.
#[test]
fn libtpu_needs_no_environment_to_compile_ahead() {
    let path = plugin("libtpu");
    let (path, folder) = (path.to_str().unwrap(), folder("libtpu"));
    let out = folder.to_str().unwrap();
    let common = [
        "compile",
        "--plugin",
        path,
        "--batch",
        "1",
        "--vocab",
        "256",
        "--dtype",
        "f32",
        "--path",
        "arbitrary",
    ];
    let output = nucleus(&[&common[..], &["--topology", "v6e:1x1", "-o", out]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    fs::remove_dir_all(&folder).unwrap();

    if host_has_tpu() {
        println!("left out on a host with a TPU: what is said without one");
        return;
    }
    let start = Instant::now();
    let output = nucleus(&[&common[..], &["-o", out]].concat());
    assert!(
        !output.status.success() && stderr(&output).contains("this host has no TPU"),
        "{}",
        stderr(&output)
    );
    let text = stdout(&nucleus(&["plugins", "--only", path]));
    for words in ["PJRT API 0.", "started no TPU", "0 plugin(s) with devices, 1 without"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(start.elapsed() < Duration::from_secs(20));
}
