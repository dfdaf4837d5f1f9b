//! Tests that run the command as a user does.

mod host;
mod sample;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nucleus::dtype::Dtype;
use nucleus::kernels::{self, Path as KernelPath, Spec, Target, Wanted};
use nucleus::pjrt::{host_has_tpu, LIBTPU_AHEAD_ENVIRONMENT};
use nucleus::plan::{CallShape, Entry, LogitsPlace};
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};

fn plugin(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/plugins").canonicalize();
    let path = directory.expect("no plugins: run `make plugins`").join(name).with_extension("so");
    assert!(path.is_file(), "{} is missing: run `make plugins`", path.display());
    path
}

fn nucleus(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nucleus"));
    command.args(arguments);
    for variable in ["NUCLEUS_PJRT_PLUGIN", "XLA_FLAGS", "LIBTPU_INIT_ARGS"] {
        command.env_remove(variable);
    }
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

/// Checks that a command failed, and returns its message.
#[track_caller]
fn failure(output: &Output) -> String {
    assert!(!output.status.success(), "{}{}", stdout(output), stderr(output));
    stderr(output)
}

fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    path
}

/// The arguments of a compile for one row of 300 f32 logits.
fn compile_arguments<'a>(plugin: &'a str, output: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["compile", "--plugin", plugin, "--output", output];
    arguments.extend(["--batch", "1", "--vocab", "300", "--dtype", "f32", "--path", "arbitrary"]);
    arguments
}

#[test]
fn samplers_load_what_it_compiles() {
    let (plugin, directory) = (plugin("lammps-jax-pjrt-cpu"), directory("compile"));
    let (file, out) = (plugin.to_str().unwrap(), directory.to_str().unwrap());
    let mut arguments = vec!["compile", "--plugin", file, "--option", "cpu_device_count=2", "--batch", "1,3"];
    arguments.extend(["--vocab", "500", "--dtype", "bf16", "--max-k", "64", "-o", out]);
    let output = nucleus(&arguments);
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
        assert_eq!(fs::metadata(file).unwrap().len().to_string(), bytes, "{line}");
    }
    assert!(lines[4].starts_with("4 program(s) compiled, 0 up to date, in "), "{text}");

    let sampler = Sampler::new(&SamplerOptions {
        backend: BackendChoice::Pjrt,
        plugin: Some(plugin.clone()),
        client_options: vec![("cpu_device_count".to_owned(), nucleus::pjrt::OptionValue::I64(2))],
        max_k: 64,
        program_dir: Some(directory.clone()),
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
        logits: LogitsPlace::Host,
    };
    sampler.prewarm(&calls).unwrap();
    assert_eq!((sampler.stats().compiles, sampler.stats().loaded), (0, 2));
    fs::remove_dir_all(&directory).unwrap();
}

/// With --logits device3d, samplers load the programs for buffers with exactly this number of rows, and the programs
/// that join the results of two paths.
#[test]
fn samplers_load_programs_for_logits_on_a_device() {
    let (plugin, directory) = (plugin("lammps-jax-pjrt-cpu"), directory("compile-device"));
    let (file, out) = (plugin.to_str().unwrap(), directory.to_str().unwrap());
    let mut arguments = vec!["compile", "--plugin", file, "--batch", "5", "--row-buckets", "2,4"];
    arguments.extend(["--logits", "device3d", "--smaller-batches", "--vocab", "100", "--dtype", "f32"]);
    arguments.extend(["--max-k", "8", "-o", out]);
    let output = nucleus(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.contains("nucleus_bounded8_5x100_f32_of5x1 ") && text.contains("_2x100_f32_of5x1_gathered "),
        "{text}"
    );
    assert!(text.contains("8 program(s) compiled"), "{text}");

    let sampler = Sampler::new(&SamplerOptions {
        backend: BackendChoice::Pjrt,
        plugin: Some(plugin.clone()),
        max_k: 8,
        row_buckets: vec![2, 4],
        program_dir: Some(directory.clone()),
        ..SamplerOptions::default()
    })
    .unwrap();
    let calls = CallShape {
        entry: Entry::Automatic,
        batch: 5,
        vocab: 100,
        dtype: Dtype::F32,
        stable: true,
        wanted: Wanted::default(),
        logits: LogitsPlace::Device { singleton: true, bad_rows: false },
    };
    sampler.prewarm(&calls).unwrap();
    let stats = sampler.stats();
    assert_eq!((stats.compiles, stats.loaded), (0, 8));
    fs::remove_dir_all(&directory).unwrap();

    arguments[6] = "4,2";
    let output = nucleus(&arguments);
    assert!(stderr(&output).contains("--row-buckets[1] is 2"), "{}", stderr(&output));
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
        source: kernels::Source::Batch,
    };
    for target in Target::names() {
        let mut arguments =
            vec!["emit", "--batch", "3", "--vocab", "300", "--dtype", "f16", "--path", "bounded"];
        arguments.extend(["--max-k", "16", "--debug-arrays", "logits,k-slices", "--target", target]);
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
    assert!(failure(&output).contains("--batch is 200; "), "{}", stderr(&output));
    // A call with logits on the device runs one program for all rows.
    let output = nucleus(&[
        "emit",
        "--batch",
        "200",
        "--vocab",
        "300",
        "--dtype",
        "f32",
        "--logits",
        "device",
        "--path",
        "arbitrary",
    ]);
    assert!(output.status.success() && stdout(&output).contains("200x300"), "{}", stderr(&output));
    let slices = ["--path", "arbitrary", "--debug-arrays", "k-slices"];
    let output =
        nucleus(&[&["emit", "--batch", "1", "--vocab", "300", "--dtype", "f32"][..], &slices].concat());
    assert!(failure(&output).contains("--debug-arrays has the k-slices"), "{}", stderr(&output));
    let slices = ["--path", "bounded", "--debug-arrays", "k-slices", "--keep-ties", "--logits", "device"];
    let output =
        nucleus(&[&["emit", "--batch", "1", "--vocab", "300", "--dtype", "f32"][..], &slices].concat());
    assert!(failure(&output).contains("--keep-ties is 1 and a k-slice is requested"), "{}", stderr(&output));
}

/// `emit --embed` prints the library's function, and only the function.
#[test]
fn functions_to_embed_are_printed() {
    let spec = Spec {
        path: KernelPath::Arbitrary,
        batch: 3,
        vocab: 300,
        dtype: Dtype::F32,
        stable: true,
        wanted: Wanted::default(),
        source: kernels::Source::Batch,
    };
    for target in ["portable", "v5e"] {
        let arguments = ["emit", "--batch", "3", "--vocab", "300", "--dtype", "f32", "--target", target];
        let output = nucleus(&[&arguments[..], &["--embed", "my.sampler"]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let function = kernels::embed::emit(&spec, &Target::named(target).unwrap(), "my.sampler");
        assert_eq!(stdout(&output).trim_end(), function.trim_end());
        let output = nucleus(&[&arguments[..], &["--embed", "9 lives"]].concat());
        assert!(failure(&output).contains("name is \"9 lives\""), "{}", stderr(&output));
    }
    // The limit of the number of rows is the same as in nuc_emit.
    let of_rows = |rows: &str| {
        nucleus(&["emit", "--batch", rows, "--vocab", "300", "--dtype", "f32", "--embed", "sample"])
    };
    let output = of_rows("65536");
    assert!(output.status.success() && stdout(&output).contains("65536x300"), "{}", stderr(&output));
    assert!(failure(&of_rows("65537")).contains("65537 is not in 1..=65536"));
}

/// A full disk is an error. A closed pipe is not an error, and the command still compiles every program.
#[test]
fn output_that_cannot_be_written() {
    let emit = ["emit", "--batch", "1", "--vocab", "300", "--dtype", "f32"];
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap());
    let output = command(&emit).stdout(full()).stderr(Stdio::piped()).output().unwrap();
    assert!(failure(&output).contains("standard output cannot be written"));

    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    assert!(command(&emit).stdout(closed()).status().unwrap().success());
    let (plugin, directory) = (plugin("lammps-jax-pjrt-cpu"), directory("unheard"));
    let arguments = compile_arguments(plugin.to_str().unwrap(), directory.to_str().unwrap());
    for (stdout, heard) in [(closed(), true), (full(), false)] {
        let status = command(&arguments).stdout(stdout).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.success(), heard);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(&directory).unwrap();
    }
}

/// A second compile does nothing, unless it is forced or a file is damaged.
#[test]
fn programs_that_are_up_to_date_are_skipped() {
    let (plugin, directory) = (plugin("lammps-jax-pjrt-cpu"), directory("again"));
    let arguments = compile_arguments(plugin.to_str().unwrap(), directory.to_str().unwrap());
    let run = |more: &[&str]| {
        let output = nucleus(&[&arguments[..], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let file = |text: &str| PathBuf::from(text.lines().next().unwrap().split_whitespace().last().unwrap());
    let first = run(&[]);
    assert!(first.contains("1 program(s) compiled, 0 up to date"), "{first}");
    let second = run(&[]);
    assert!(second.contains("  up to date  ") && second.contains("0 program(s) compiled, 1 up"), "{second}");
    assert_eq!(file(&first), file(&second));
    let forced = run(&["--force"]);
    assert!(forced.contains("1 program(s) compiled, 0 up to date"), "{forced}");
    let mut bytes = fs::read(file(&first)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(file(&first), bytes).unwrap();
    let repaired = run(&[]);
    assert!(repaired.contains("1 program(s) compiled, 0 up to date"), "{repaired}");
    fs::remove_dir_all(&directory).unwrap();
}

/// Messages name the flags of this command, not the fields of the library's options.
#[test]
fn errors_say_what_to_do() {
    let plugin = plugin("lammps-jax-pjrt-cpu");
    let unused = directory("unused");
    let common = compile_arguments(plugin.to_str().unwrap(), unused.to_str().unwrap());
    let fails = |more: &[&str], words: &str| {
        let message = failure(&nucleus(&[&common[..], more].concat()));
        assert!(message.contains(words), "{words}: {message}");
        for field in ["max_k", "row_counts", "output_dir", "topology is", "plugin_options"] {
            assert!(!message.replace("--topology is", "").contains(field), "{field}: {message}");
        }
    };
    let without_plugin: Vec<&str> = [&common[..1], &common[3..]].concat();
    let message = failure(&nucleus(&without_plugin));
    assert!(message.contains("add --plugin FILE") && message.contains("NUCLEUS_PJRT_PLUGIN"), "{message}");
    let missing = [&without_plugin[..], &["--plugin", "/nonexistent.so"]].concat();
    assert!(failure(&nucleus(&missing)).contains("no PJRT plugin at /nonexistent.so"));

    for (arguments, words) in [
        (&["--max-k", "5000"][..], "--max-k <K>': 5000 is not in 1..=1024"),
        (&["--option", "novalue"], "NAME=VALUE"),
        (&["--topology", "v5e:2x2"], "--topology is"),
        (&["--debug-arrays", "k-slices"], "--debug-arrays has the k-slices"),
    ] {
        fails(arguments, words);
    }
    assert!(!unused.exists());
    // clap accepts each of these flags only once.
    let replaced = |flag: &str, value: &str| {
        let mut arguments: Vec<&str> = common.clone();
        let at = common.iter().position(|argument| *argument == flag).unwrap() + 1;
        arguments[at] = value;
        failure(&nucleus(&arguments))
    };
    assert!(replaced("--batch", "0")
        .contains("'0' for '--batch <ROWS,...>': it must be an integer that is at least 1"));
    assert!(replaced("--vocab", "0").contains("'0' for '--vocab <VOCAB>'"));
    let mut many_rows = [&common[..], &["--logits", "device"]].concat();
    many_rows[common.iter().position(|argument| *argument == "--batch").unwrap() + 1] = "65537";
    assert!(failure(&nucleus(&many_rows)).contains("--batch[0] is 65537; with logits on a device"));
    let message = replaced("--output", "/dev/null/x");
    assert!(message.contains("--output is /dev/null/x"), "{message}");
}

/// C code: the first fields of `PJRT_Api`, and a plugin with one client and one device. The indices of the table
/// entries are those of the API's header. An argument struct is an array of words.
const WORKING_PLUGIN: &str = r#"
static void *fine(void **args) { return 0; }
static void *text(void **args) { args[3] = "fake"; args[4] = (void *)4; return 0; }
static void *fail(void **args) { return &thing; }
static void *object(void **args) { args[3] = &thing; return 0; }
static void *client(void **args) { args[8] = &thing; return 0; }
static void *devices(void **args) {
    static void *list[] = {&thing};
    args[3] = list; args[4] = (void *)1; return 0;
}
static struct { size_t size; void *ext; size_t version_size; void *version_ext; int major, minor; void *functions[150]; }
    api = {sizeof api, 0, sizeof(size_t) * 2 + sizeof(int) * 2, 0, 0, 115};
static void *working(void) {
    for (int i = 0; i < 150; i++) api.functions[i] = fine;
    api.functions[1] = text;
    api.functions[10] = client;
    api.functions[16] = devices;
    api.functions[29] = object;
    api.functions[12] = api.functions[14] = api.functions[26] = api.functions[27] = text;
    return &api;
}
"#;

/// A library whose entry point has the C statements `body`.
fn hostile(name: &str, body: &str) -> String {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (c, library) = (directory.join(format!("{name}.c")), directory.join(format!("{name}.so")));
    let head = "#include <stddef.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n\
                static int thing;\n";
    let source = format!("{head}{WORKING_PLUGIN}void *GetPjrtApi(void) {{ {body} return 0; }}\n");
    fs::write(&c, source).unwrap();
    let status = Command::new("cc").args(["-shared", "-fPIC", "-w", "-o"]).arg(&library).arg(&c).status();
    assert!(status.expect("cc runs").success());
    library.to_str().unwrap().to_owned()
}

/// The list includes plugins that terminate their process or never return, and also the working plugin.
#[test]
fn no_plugin_ends_the_search() {
    let good = plugin("xla-cpu-pjrt");
    let good = good.to_str().unwrap();
    let aborts = hostile("aborts", r#"fprintf(stderr, "my last words\n"); abort();"#);
    let leaves = hostile("leaves", "exit(0);");
    let hangs = hostile("hangs", "for (;;) sleep(1);");
    // Writes more output than a pipe can hold, on both streams.
    let talks = hostile(
        "talks",
        "for (int i = 0; i < 200000; i++) { puts(\"x\"); fputs(\"y\\n\", stderr); } fflush(0);",
    );
    // A child process of the plugin keeps the pipes open.
    let forks = hostile("forks", "if (fork() == 0) { sleep(60); _exit(0); }");
    let start = Instant::now();
    // On a busy machine, the working plugin can need more than 5 s.
    let mut arguments =
        vec!["plugins", "--only", "--timeout", "10", &aborts, &leaves, &hangs, &forks, &talks];
    arguments.extend([good, "/nonexistent.so", good]);
    let output = nucleus(&arguments);
    let text = stdout(&output);
    let message = failure(&output);
    assert!(message.contains("6 of the named plugins did not work"), "{message}");
    for words in [
        "it ended its process: signal 6 (SIGABRT)",
        "| my last words",
        "exit status 0",
        "its process did not end in 10 s",
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
    assert!(start.elapsed() < Duration::from_secs(60));
}

/// A plugin that crashes or hangs after it has reported a device counts as not working.
#[test]
fn plugins_must_let_their_process_end() {
    let works = hostile("works", "return working();");
    assert!(nucleus(&["plugins", "--only", &works]).status.success());
    let crashes = hostile("crashes", "atexit(abort); return working();");
    let stays = hostile("stays", "atexit((void (*)(void))pause); return working();");
    for (path, words) in [(crashes, "signal 6 (SIGABRT)"), (stays, "its process did not end in 3 s")] {
        let output = nucleus(&["plugins", "--only", "--timeout", "3", &path]);
        let text = stdout(&output);
        assert!(failure(&output).contains("1 of the named plugins did not work"), "{text}");
        for words in ["device 0: fake, fake", words, "0 plugin(s) with devices, 1 without"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}

/// A plugin in NUCLEUS_PJRT_PLUGIN counts as named. A plugin in another variable does not.
#[test]
fn plugins_are_found_where_the_environment_says() {
    let works = hostile("found", "return working();");
    let run = |nucleus: &str, jax: &str| {
        command(&["plugins"])
            .env("NUCLEUS_PJRT_PLUGIN", nucleus)
            .env("PJRT_NAMES_AND_LIBRARY_PATHS", format!("cpu:{jax}"))
            .current_dir("/")
            .output()
            .unwrap()
    };
    let output = run(&works, "/nonexistent.so");
    let text = stdout(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains(&format!("{works}  (NUCLEUS_PJRT_PLUGIN)")), "{text}");
    assert!(text.contains("/nonexistent.so  (PJRT_NAMES_AND_LIBRARY_PATHS)"), "{text}");
    assert!(failure(&run("/nonexistent.so", &works)).contains("1 of the named plugins did not work"));
}

/// The command finds plugins in .cache/plugins of the checkout, where `make plugins` downloads them.
#[test]
fn fetched_plugins_are_found_from_below_the_checkout() {
    let checkout = std::env::temp_dir().join(format!("nucleus-checkout-{}", std::process::id()));
    let (below, plugins) = (checkout.join("a/b"), checkout.join(".cache/plugins"));
    fs::create_dir_all(&below).unwrap();
    fs::create_dir_all(&plugins).unwrap();
    fs::copy(hostile("fetched", "return working();"), plugins.join("fetched-pjrt.so")).unwrap();
    let output = command(&["plugins"]).current_dir(&below).output().unwrap();
    let text = stdout(&output);
    assert!(output.status.success(), "{text}");
    let line = format!("{}  (.cache/plugins)", plugins.join("fetched-pjrt.so").display());
    assert!(text.contains(&line) && text.contains("device 0: fake, fake"), "{text}");
    assert!(stdout(&nucleus(&["plugins", "--help"])).contains(".cache/plugins"));
    fs::remove_dir_all(&checkout).unwrap();
}

/// If a plugin terminates its process during a compile, the message says so.
#[test]
fn a_compile_says_that_the_plugin_ended_the_process() {
    let out = directory("died");
    let out = out.to_str().unwrap();
    let aborts = hostile("aborts_in_compile", r#"fprintf(stderr, "my last words\n"); abort();"#);
    let message = failure(&nucleus(&compile_arguments(&aborts, out)));
    assert!(message.contains("my last words\n"), "{message}");
    assert!(message.contains("the plugin ended the process of the compile: signal 6 (SIGABRT)"), "{message}");
    assert!(!message.contains("XLA_FLAGS"), "{message}");
    let leaves = hostile("leaves_in_compile", "exit(0);");
    let message = failure(&nucleus(&compile_arguments(&leaves, out)));
    assert!(message.contains("ended the process of the compile: exit status 0"), "{message}");
}

#[test]
fn an_unknown_flag_in_the_environment_is_suspected() {
    let (plugin, out) = (plugin("lammps-jax-pjrt-cpu"), directory("flags"));
    let arguments = compile_arguments(plugin.to_str().unwrap(), out.to_str().unwrap());
    let output = command(&arguments).env("XLA_FLAGS", "--xla_no_such_flag=1").output().unwrap();
    let message = failure(&output);
    for words in [
        "--xla_no_such_flag",
        "the plugin ended the process of the compile: ",
        "XLA_FLAGS is set in the environment: an unknown flag there ends the process inside a plugin",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
}

/// The log has the library's format and uses the library's names for the levels.
#[test]
fn the_log_is_the_librarys() {
    let out = directory("log");
    // Destroying the client fails, and the library logs a warning.
    let clings = hostile("clings", "working(); api.functions[11] = fail; return &api;");
    let message = failure(&nucleus(&compile_arguments(&clings, out.to_str().unwrap())));
    assert!(
        message.contains("\nnucleus: warning: ") || message.starts_with("nucleus: warning: "),
        "{message}"
    );
}

/// If the command is killed, its child exits.
#[test]
fn the_child_ends_with_the_command() {
    let out = directory("orphan");
    let waits = hostile(
        "waits",
        r#"FILE *file = fopen(getenv("PID_FILE"), "w"); fprintf(file, "%d\n", getpid()); fclose(file);
           for (;;) sleep(1);"#,
    );
    let pid_file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("orphan.pid");
    let _ = fs::remove_file(&pid_file);
    let mut parent = command(&compile_arguments(&waits, out.to_str().unwrap()))
        .env("PID_FILE", &pid_file)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let wait_for = |what: &str, condition: &dyn Fn() -> bool| {
        while !condition() {
            assert!(Instant::now() < deadline, "{what}");
            sleep(Duration::from_millis(20));
        }
    };
    let read = || fs::read_to_string(&pid_file).unwrap_or_default();
    wait_for("the child has loaded the plugin", &|| read().ends_with('\n'));
    parent.kill().unwrap();
    parent.wait().unwrap();
    let status = PathBuf::from(format!("/proc/{}/stat", read().trim()));
    // After the exit, the process may be a zombie until its parent reaps it.
    let ended = || fs::read_to_string(&status).map_or(true, |text| text.contains(") Z "));
    wait_for("the child has ended", &ended);
}

/// If --topology is given, the command sets the variables that libtpu needs. Otherwise the message tells the user to
/// add it.
#[test]
fn libtpu_needs_no_environment_to_compile_ahead() {
    let (path, directory) = (plugin("libtpu"), directory("libtpu"));
    let path = path.to_str().unwrap();
    let common = compile_arguments(path, directory.to_str().unwrap());
    let output = nucleus(&[&common[..], &["--topology", "v6e:1x1"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    fs::remove_dir_all(&directory).unwrap();

    if host_has_tpu() {
        println!("skipped on a host with a TPU: the messages without one");
        return;
    }
    let start = Instant::now();
    let message = failure(&nucleus(&common));
    assert!(message.contains("this host has no TPU: add --topology NAME"), "{message}");
    assert!(!message.contains("TPU_SKIP_MDS_QUERY"), "{message}");
    let output = command(&common).env("TPU_SKIP_MDS_QUERY", "1").output().unwrap();
    let message = failure(&output);
    assert!(message.contains("started no TPU") && message.contains("add --topology NAME"), "{message}");
    let text = stdout(&nucleus(&["plugins", "--only", path]));
    for words in ["PJRT API 0.", "started no TPU", "0 plugin(s) with devices, 1 without"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(start.elapsed() < Duration::from_secs(60));
}
