//! Tests of programs that one process compiles and another process loads, and of damaged program files.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{mpsc, Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::common::*;
use nucleus::backend::pjrt::program_dir::ProgramDirStats;
use nucleus::compile_ahead::{compile_ahead, AheadOptions, Written};
use nucleus::dtype::Dtype;
use nucleus::error::Error;
use nucleus::kernels::Wanted;
use nucleus::pjrt::{ErrorKind, OptionValue};
use nucleus::plan::{CallShape, Entry, LogitsPlace};
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};

const VOCAB: usize = 1000;

/// The offsets of the checksum and of the metadata in a file.
const CHECKSUM_AT: usize = 32;
const METADATA_AT: usize = 64;

/// A new directory that only this user can write to. It is removed when the value is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ahead-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&path).unwrap();
        Directory(path)
    }

    /// The files in the directory, except the hashes of plugins.
    fn files(&self) -> Vec<PathBuf> {
        files_in(&self.0)
    }
}

/// The files in a directory of programs, except the hashes of plugins.
fn files_in(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| !file.ends_with("nucleus_plugins.json"));
    files.sort();
    files
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Callback = Arc<dyn Fn(&str) + Send + Sync>;

/// Stores every warning of this process, and passes every message to a callback of the running test.
struct Log {
    warnings: Mutex<Vec<String>>,
    callback: Mutex<Option<Callback>>,
}

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let message = record.args().to_string();
        let callback = self.callback.lock().unwrap().clone();
        if let Some(callback) = callback {
            callback(&message);
        }
        if record.level() <= log::Level::Warn {
            self.warnings.lock().unwrap().push(message);
        }
    }

    fn flush(&self) {}
}

static LOG: Log = Log { warnings: Mutex::new(Vec::new()), callback: Mutex::new(None) };

/// Returns the warning that contains all of `words`. Tests run at the same time, so only one test may use these words.
fn warning(words: &[&str]) -> Option<String> {
    let warnings = LOG.warnings.lock().unwrap();
    warnings.iter().find(|text| words.iter().all(|word| text.contains(word))).cloned()
}

fn options(plugin_name: &str, directory: &Path) -> SamplerOptions {
    let _ = log::set_logger(&LOG);
    log::set_max_level(log::LevelFilter::Debug);
    SamplerOptions {
        backend: BackendChoice::Pjrt,
        plugin: Some(plugin(plugin_name)),
        program_dir: Some(directory.to_owned()),
        ..SamplerOptions::default()
    }
}

fn calls(dtype: Dtype) -> CallShape {
    CallShape {
        entry: Entry::Automatic,
        batch: 1,
        vocab: VOCAB,
        dtype,
        stable: true,
        wanted: Wanted::default(),
        logits: LogitsPlace::Host,
    }
}

fn ahead(plugin_name: &str, directory: &Path, batches: &[usize]) -> AheadOptions {
    AheadOptions {
        plugin: Some(plugin(plugin_name)),
        ..AheadOptions::new(directory.to_owned(), batches.to_vec(), calls(Dtype::Bf16))
    }
}

fn counts(sampler: &Sampler) -> (u64, u64) {
    (sampler.stats().compiles, sampler.stats().loaded)
}

/// Runs `work` on a thread. Fails if it does not end in time.
fn ends<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    wait.recv_timeout(Duration::from_secs(120)).expect("the work ends")
}

/// One host compiles. Another host loads the programs from a copy of the directory, on any of its devices.
fn programs_are_loaded_from_a_copy(name: &str) {
    let (here, there) = (Directory::new(&format!("here-{name}")), Directory::new(&format!("there-{name}")));
    let progress = Mutex::new(Vec::<Written>::new());
    let written = compile_ahead(&ahead(name, &here.0, &[3, 8]), &|program| {
        progress.lock().unwrap().push(program.clone());
    })
    .unwrap();
    assert_eq!(written.len(), 4); // two paths, buckets 4 and 8

    // The order of the reports can differ from the order in which the threads finish.
    let progress = progress.into_inner().unwrap();
    assert_eq!(progress.len(), written.len());
    assert!(progress.iter().all(|program| written.contains(program)), "{progress:?} {written:?}");
    assert_eq!(here.files().len(), 4);
    for program in &written {
        assert!(program.file.file_name().unwrap().to_str().unwrap().starts_with(&program.name));
        let stored = fs::metadata(&program.file).unwrap().len();
        assert!(stored > 1000 && stored == program.bytes, "{stored} of {}", program.bytes);
    }
    for file in here.files() {
        fs::copy(&file, there.0.join(file.file_name().unwrap())).unwrap();
    }
    for device in [0, 2] {
        let sampler = Sampler::new(&SamplerOptions { device, ..options(name, &there.0) }).unwrap();
        for rows in [3, 4, 7] {
            answers_rightly(&sampler, rows, VOCAB, rows as u64);
        }
        assert_eq!(counts(&sampler), (0, 4), "device {device}");
        assert_eq!(sampler.stats().compile_ns, 0);
        // A call of another size is compiled, and the library logs a warning.
        answers_rightly(&sampler, 1, VOCAB, 1);
        assert_eq!(counts(&sampler), (2, 4));
    }
    assert!(warning(&["nucleus_arbitrary_1x1000_bf16", "not in program_dir"]).is_some());
    assert_eq!(there.files().len(), 4);
}

/// Builds a file with the metadata of `whole`, another executable, and a correct checksum.
fn with_executable(whole: &[u8], executable: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let metadata = u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize;
    let metadata = &whole[METADATA_AT..METADATA_AT + metadata];
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(executable).unwrap();
    let stored = encoder.finish().unwrap();
    let mut fields = whole[..CHECKSUM_AT].to_vec();
    fields[16..24].copy_from_slice(&(executable.len() as u64).to_le_bytes());
    fields[24..].copy_from_slice(&(stored.len() as u64).to_le_bytes());
    let checksum = Sha256::digest([&fields, metadata, &stored].concat());
    [&fields, &checksum[..], metadata, &stored].concat()
}

/// Compiles for two rows into `directory`. Returns the file of the program for the arbitrary path.
fn one_file(name: &str, directory: &Directory) -> PathBuf {
    let written = compile_ahead(&ahead(name, &directory.0, &[2]), &|_| {}).unwrap();
    written.iter().find(|program| program.name.contains("arbitrary")).unwrap().file.clone()
}

/// Checks that a program is compiled if its file cannot be used, and that a warning names the file and the reason.
fn assert_compiled_because(name: &str, directory: &Directory, file: &Path, reason: &str) {
    let sampler = Sampler::new(&options(name, &directory.0)).unwrap();
    answers_rightly(&sampler, 2, VOCAB, 7);
    assert_eq!(counts(&sampler), (1, 1), "{reason}");
    let found = warning(&[file.to_str().unwrap(), reason]);
    assert!(found.is_some(), "{reason}: {:?}", LOG.warnings.lock().unwrap());
}

/// The file is not damaged, but the plugin rejects its executable.
fn refused_executables_are_compiled(name: &str) {
    let directory = Directory::new(&format!("refused-{name}"));
    let file = one_file(name, &directory);
    let refused = with_executable(&fs::read(&file).unwrap(), b"this is not an executable");
    fs::write(&file, refused).unwrap();
    assert_compiled_because(name, &directory, &file, "PJRT_Executable_DeserializeAndLoad");
}

/// For damaged, foreign and unreadable files, the library logs a warning and compiles the program.
#[test]
fn unusable_files_are_reported_and_compiled() {
    let (name, directory) = (PLUGINS[0], Directory::new("damaged"));
    let file = one_file(name, &directory);
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let mut newer = whole.clone();
    newer[8] = 9;
    let cases: [(Vec<u8>, &str); 4] = [
        (whole[..whole.len() - 100].to_vec(), "bytes instead of"),
        (flipped, "checksum is wrong"),
        (newer, "its format is version 9"),
        (b"#!/bin/sh\necho this is something else\n".to_vec(), "not a file of compiled programs"),
    ];
    for (bytes, reason) in cases {
        fs::write(&file, bytes).unwrap();
        assert_compiled_because(name, &directory, &file, reason);
    }
    fs::write(&file, &whole).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    assert_compiled_because(name, &directory, &file, "other users can write to it (mode 666)");
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    assert_compiled_because(name, &directory, &file, "not a regular file");
}

/// XLA's compiler needs more stack than a small thread of the caller has. Before this was fixed, the process ended.
fn compiling_needs_no_stack_of_the_caller(name: &str) {
    let directory = Directory::new(&format!("stack-{name}"));
    let writing = SamplerOptions { write_programs: true, ..options(name, &directory.0) };
    for loaded in [0, 1] {
        let sampler = Sampler::new(&writing).unwrap();
        let small = std::thread::Builder::new().stack_size(64 << 10);
        let calls = CallShape { entry: Entry::Arbitrary, ..calls(Dtype::F32) };
        let small = small.spawn(move || {
            sampler.prewarm(&calls).unwrap();
            counts(&sampler)
        });
        assert_eq!(small.unwrap().join().unwrap(), (1 - loaded, loaded));
    }
}

macro_rules! each_plugin {
    ($($module:ident: $name:expr;)*) => {$(
        mod $module {
            use super::*;

            #[test]
            fn programs_are_loaded_from_a_copy() {
                super::programs_are_loaded_from_a_copy($name);
            }

            #[test]
            fn refused_executables_are_compiled() {
                super::refused_executables_are_compiled($name);
            }

            #[test]
            fn compiling_needs_no_stack_of_the_caller() {
                super::compiling_needs_no_stack_of_the_caller($name);
            }
        }
    )*};
}

each_plugin! {
    plugin_api_115: PLUGINS[0];
    plugin_api_106: PLUGINS[1];
    plugin_api_81: PLUGINS[2];
}

/// A sampler loads the programs that an earlier sampler wrote. Several samplers can use a directory at the same time.
#[test]
fn compiled_programs_are_written() {
    let directory = Directory::new("cache");
    let nested = directory.0.join("not/there/yet");
    let writing = SamplerOptions { write_programs: true, ..options(PLUGINS[0], &nested) };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| answers_rightly(&Sampler::new(&writing).unwrap(), 5, VOCAB, 11));
        }
    });
    let files = files_in(&nested);
    assert_eq!(files.len(), 2, "{files:?}");
    let sampler = Sampler::new(&SamplerOptions { write_programs: false, ..writing.clone() }).unwrap();
    answers_rightly(&sampler, 5, VOCAB, 12);
    assert_eq!(counts(&sampler), (0, 2));

    // Writing replaces a damaged file.
    fs::write(&files[0], b"damaged").unwrap();
    let sampler = Sampler::new(&writing).unwrap();
    answers_rightly(&sampler, 5, VOCAB, 13);
    assert_eq!(counts(&sampler), (1, 1));
    let sampler = Sampler::new(&writing).unwrap();
    answers_rightly(&sampler, 5, VOCAB, 14);
    assert_eq!(counts(&sampler), (0, 2));
}

/// A sampler does not use programs that another build of the plugin compiled, and a warning names that build. One
/// directory can contain the programs of both builds.
#[test]
fn plugins_load_only_their_own_programs() {
    let directory = Directory::new("versions");
    compile_ahead(&ahead(PLUGINS[1], &directory.0, &[16]), &|_| {}).unwrap();
    let sampler = Sampler::new(&options(PLUGINS[0], &directory.0)).unwrap();
    answers_rightly(&sampler, 16, VOCAB, 21);
    assert_eq!(counts(&sampler), (2, 0));
    assert!(warning(&["compiling nucleus_arbitrary_16x1000_bf16", "another build of the plugin"]).is_some());

    compile_ahead(&ahead(PLUGINS[0], &directory.0, &[16]), &|_| {}).unwrap();
    assert_eq!(directory.files().len(), 4);
    for name in [PLUGINS[0], PLUGINS[1]] {
        let sampler = Sampler::new(&options(name, &directory.0)).unwrap();
        answers_rightly(&sampler, 16, VOCAB, 22);
        assert_eq!(counts(&sampler), (0, 2), "{name}");
    }
    // The sampler rejects a file that has the name of this build's file and the contents of the other build's file.
    let files = directory.files();
    let (a, b) = (&files[0], &files[1]);
    let swap = fs::read(a).unwrap();
    fs::copy(b, a).unwrap();
    fs::write(b, swap).unwrap();
    let sampler = Sampler::new(&options(PLUGINS[0], &directory.0)).unwrap();
    answers_rightly(&sampler, 16, VOCAB, 23);
    assert_eq!(counts(&sampler), (1, 1));
    assert!(warning(&["cannot be used", "it was made for another build of the plugin"]).is_some());
}

/// `smaller_batches` compiles the programs that `nuc_prewarm` needs. Every variant of a program has its own file.
#[test]
fn prewarming_loads() {
    let directory = Directory::new("prewarm");
    let wanted = Wanted { topk_logits: true, weights: true, slices: false };
    let mut options_ahead = AheadOptions { smaller_batches: true, ..ahead(PLUGINS[0], &directory.0, &[4]) };
    assert_eq!(compile_ahead(&options_ahead, &|_| {}).unwrap().len(), 6);
    options_ahead.calls.wanted = wanted;
    assert_eq!(compile_ahead(&options_ahead, &|_| {}).unwrap().len(), 6);
    options_ahead.calls.stable = false; // runs on the arbitrary path only
    assert_eq!(compile_ahead(&options_ahead, &|_| {}).unwrap().len(), 3);
    assert_eq!(directory.files().len(), 15);
    let sampler = Sampler::new(&options(PLUGINS[0], &directory.0)).unwrap();
    for (stable, wanted) in [(true, Wanted::default()), (true, wanted), (false, wanted)] {
        sampler.prewarm(&CallShape { batch: 4, stable, wanted, ..calls(Dtype::Bf16) }).unwrap();
    }
    assert_eq!(counts(&sampler), (0, 15));
}

#[test]
fn programs_that_are_up_to_date_can_be_skipped() {
    let directory = Directory::new("skip");
    let all = ahead(PLUGINS[0], &directory.0, &[2]);
    let skipping = AheadOptions { skip_up_to_date: true, ..all.clone() };
    let up_to_date = |options: &AheadOptions| {
        let written = compile_ahead(options, &|_| {}).unwrap();
        assert!(written.iter().all(|program| program.up_to_date == program.compiling.is_zero()));
        written.iter().filter(|program| program.up_to_date).count()
    };
    assert_eq!((up_to_date(&skipping), up_to_date(&skipping), up_to_date(&all)), (0, 2, 0));
    fs::write(&directory.files()[0], b"damaged").unwrap();
    assert_eq!((up_to_date(&skipping), up_to_date(&skipping)), (1, 2));
}

/// A log callback can prewarm the program that is currently being loaded or compiled.
#[test]
fn a_log_callback_can_prewarm_the_same_program() {
    ends(|| {
        let directory = Directory::new("callback");
        let calls = CallShape { vocab: 777, entry: Entry::Arbitrary, ..calls(Dtype::F32) };
        let ahead = AheadOptions { calls, ..ahead(PLUGINS[0], &directory.0, &[1]) };
        let file = compile_ahead(&ahead, &|_| {}).unwrap().remove(0).file;
        fs::write(file, b"damaged").unwrap();
        let writing = SamplerOptions { write_programs: true, ..options(PLUGINS[0], &directory.0) };
        let sampler = Arc::new(Sampler::new(&writing).unwrap());
        let called = Arc::new(Mutex::new(Vec::new()));
        let callback = {
            let (sampler, called) = (sampler.clone(), called.clone());
            move |message: &str| {
                // The callback also receives messages of other tests.
                if message.contains("1x777_f32") {
                    sampler.prewarm(&calls).unwrap();
                    called.lock().unwrap().push(message.to_owned());
                }
            }
        };
        *LOG.callback.lock().unwrap() = Some(Arc::new(callback));
        sampler.prewarm(&calls).unwrap();
        *LOG.callback.lock().unwrap() = None;
        let called = called.lock().unwrap();
        assert!(called.iter().any(|message| message.contains("1x777_f32")), "{called:?}");
        assert_eq!(sampler.stats().programs, 1);
        assert!(warning(&["arbitrary_1x777_f32", "cannot be used"]).is_some());
    });
}

/// Later calls and prewarms do not evict the programs of earlier prewarms.
#[test]
fn prewarmed_programs_are_never_evicted() {
    let sampler = Sampler::new(&SamplerOptions {
        backend: BackendChoice::Pjrt,
        plugin: Some(plugin(PLUGINS[0])),
        cache_capacity: 3,
        ..SamplerOptions::default()
    })
    .unwrap();
    let shape = |vocab, batch| CallShape { vocab, batch, entry: Entry::Bounded, ..calls(Dtype::Bf16) };
    sampler.prewarm(&shape(100, 2)).unwrap();
    for vocab in [110, 120, 130] {
        bounded_call(&sampler, vocab);
    }
    let stats = sampler.stats();
    assert_eq!((stats.compiles, stats.evictions, stats.programs, stats.pinned), (5, 2, 3, 2));
    bounded_call(&sampler, 100);
    assert_eq!(sampler.stats().compiles, 5);

    let error = sampler.prewarm(&shape(140, 2)).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("cache_capacity is 3") && text.contains("pinned 2") && text.contains("least 4"),
        "{text}"
    );
    assert_eq!(sampler.stats().compiles, 5);

    // If every entry of the cache is pinned, a call compiles its program, uses it and does not keep it.
    sampler.prewarm(&shape(140, 1)).unwrap();
    bounded_call(&sampler, 150);
    bounded_call(&sampler, 150);
    let stats = sampler.stats();
    assert_eq!((stats.compiles, stats.programs, stats.pinned, stats.not_kept), (8, 3, 3, 2));
}

/// Samples one row on the bounded path and compares it with the built-in backend.
fn bounded_call(sampler: &Sampler, vocab: usize) {
    use rand::prelude::*;
    let mut rng = StdRng::seed_from_u64(vocab as u64);
    let problem = Problem::random(Dtype::Bf16, 1, vocab, Some(100), &mut rng);
    let got = sample(sampler, Entry::Bounded, &problem, PLAIN);
    assert_same(&problem, &got, &sample(&builtin(1), Entry::Bounded, &problem, PLAIN), "bounded");
}

/// Before this was fixed, the cache allocated all its entries in advance, and this ended the process.
#[test]
fn a_huge_cache_capacity_costs_nothing() {
    let directory = Directory::new("capacity");
    for cache_capacity in [1_000_000_000, usize::MAX] {
        let options = SamplerOptions { cache_capacity, ..options(PLUGINS[0], &directory.0) };
        bounded_call(&Sampler::new(&options).unwrap(), 60);
    }
}

#[test]
fn a_directory_that_others_can_write_is_not_used() {
    let directory = Directory::new("trust");
    compile_ahead(&ahead(PLUGINS[0], &directory.0, &[32]), &|_| {}).unwrap();
    let loaded = |write_programs| {
        let options = SamplerOptions { write_programs, ..options(PLUGINS[0], &directory.0) };
        let sampler = Sampler::new(&options).unwrap();
        answers_rightly(&sampler, 32, VOCAB, 24);
        counts(&sampler).1
    };
    let mode = |mode| fs::set_permissions(&directory.0, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o777);
    assert_eq!((loaded(false), loaded(true)), (0, 0));
    let path = directory.0.to_str().unwrap();
    assert!(warning(&[path, "mode 777", "NUCLEUS_TRUST_PROGRAM_DIR=1"]).is_some());
    // With the sticky bit, other users can add files to this directory, but cannot replace existing files.
    mode(0o1777);
    assert_eq!(loaded(false), 2);
    mode(0o755);
    if let Err(error) = std::os::unix::fs::chown(&directory.0, Some(65_534), None) {
        println!("not tested: a directory of another user, because chown failed: {error}");
        return;
    }
    assert_eq!(loaded(false), 0);
    assert!(warning(&[path, "it belongs to user 65534"]).is_some());
}

/// A full disk or a similar failure is not reported as a wrong argument.
#[test]
fn files_that_cannot_be_written_are_io_errors() {
    let directory = Directory::new("removed");
    let options = ahead(PLUGINS[0], &directory.0, &[1, 2, 3]);
    let error = compile_ahead(&options, &|_| drop(fs::remove_dir_all(&directory.0))).unwrap_err();
    assert!(matches!(&error, Error::Io(text) if text.contains("cannot be written")), "{error:?}");

    let kernel = Path::new("/sys/kernel/nucleus");
    let error = compile_ahead(&ahead(PLUGINS[0], kernel, &[1]), &|_| {}).unwrap_err();
    assert!(matches!(&error, Error::Io(text) if text.contains("output_dir is /sys/kernel")), "{error:?}");
    let options = SamplerOptions { write_programs: true, ..self::options(PLUGINS[0], kernel) };
    let error = Sampler::new(&options).err().unwrap();
    assert!(matches!(&error, Error::Io(text) if text.contains("program_dir is /sys/kernel")), "{error:?}");
}

/// If the disk is full, the program is not written, but the call succeeds. The file of the same name stays, and no
/// temporary file is left. The test runs in a child process with a small disk.
#[test]
fn a_full_disk_costs_only_the_file() {
    const CHILD: &str = "NUCLEUS_TEST_FULL_DISK";
    const CANNOT_MOUNT: i32 = 77;
    if let Some(directory) = std::env::var_os(CHILD) {
        return on_a_small_disk(&Directory(directory.into()));
    }
    let directory = Directory::new("full");
    let script = r#"mount -t tmpfs -o size=1m,mode=755 none "$1" || exit 77; shift; exec "$@""#;
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(&directory.0)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "compile_ahead::a_full_disk_costs_only_the_file", "--nocapture"])
        .env(CHILD, &directory.0)
        .status();
    match status.as_ref().map(|status| status.code()) {
        Ok(Some(0)) => {}
        // `unshare` exits with status 1 if it fails itself.
        Ok(Some(1 | CANNOT_MOUNT)) | Err(_) => {
            println!("not tested: a full disk, because no file system can be mounted here: {status:?}");
        }
        other => panic!("{other:?}"),
    }
}

fn on_a_small_disk(directory: &Directory) {
    let writing = SamplerOptions { write_programs: true, ..options(PLUGINS[0], &directory.0) };
    let outcome = || {
        let sampler = Sampler::new(&writing).unwrap();
        bounded_call(&sampler, 888);
        counts(&sampler)
    };
    assert_eq!(outcome(), (1, 0));
    let file = directory.files().remove(0);
    let mut damaged = fs::read(&file).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&file, &damaged).unwrap();
    let filler = directory.0.join("filler");
    let error = fs::write(&filler, vec![1; 2 << 20]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);

    assert_eq!(outcome(), (1, 0));
    assert!(warning(&["could not be written to program_dir", "1x888", "No space left on device"]).is_some());
    let mut left = vec![filler.clone(), file.clone()];
    left.sort();
    assert_eq!(directory.files(), left);
    assert!(fs::read(&file).unwrap() == damaged);

    fs::remove_file(&filler).unwrap();
    assert_eq!(outcome(), (1, 0));
    assert_eq!(outcome(), (0, 1));
}

fn set_age(file: &Path, age: Duration) {
    fs::File::open(file).unwrap().set_modified(SystemTime::now() - age).unwrap();
}

fn total_bytes(files: &[PathBuf]) -> u64 {
    files.iter().map(|file| fs::metadata(file).unwrap().len()).sum()
}

/// A write removes the least recently used programs. Loading a program counts as a use.
#[test]
fn the_least_recently_used_programs_are_evicted() {
    let directory = Directory::new("bounded");
    let foreign = directory.0.join("notes.txt");
    fs::write(&foreign, [0; 100_000]).unwrap();
    let writing = SamplerOptions { write_programs: true, ..options(PLUGINS[0], &directory.0) };
    let sampler = Sampler::new(&writing).unwrap();
    let write = |vocab| {
        let before = directory.files();
        bounded_call(&sampler, vocab);
        directory.files().into_iter().find(|file| !before.contains(file)).unwrap()
    };
    let (loaded, idle) = (write(901), write(902));
    set_age(&loaded, Duration::from_secs(7200));
    set_age(&idle, Duration::from_secs(3600));
    let capacity = total_bytes(&[loaded.clone(), idle.clone()]);
    assert_eq!(sampler.program_dir_stats(), ProgramDirStats { evicted: 0, bytes: capacity });

    let bounded =
        Sampler::new(&SamplerOptions { program_dir_capacity: capacity, ..writing.clone() }).unwrap();
    assert_eq!(bounded.program_dir_stats(), ProgramDirStats { evicted: 0, bytes: capacity });
    bounded_call(&bounded, 901);
    assert_eq!((counts(&bounded), idle.exists()), ((0, 1), true));
    bounded_call(&bounded, 903);
    assert!(loaded.exists() && !idle.exists() && foreign.exists());
    let programs: Vec<PathBuf> = directory.files().into_iter().filter(|file| *file != foreign).collect();
    assert_eq!(programs.len(), 2);
    let stats = ProgramDirStats { evicted: 1, bytes: total_bytes(&programs) };
    assert_eq!(bounded.program_dir_stats(), stats);

    // Another sampler needs the removed program, and compiles it.
    let sampler = Sampler::new(&writing).unwrap();
    bounded_call(&sampler, 902);
    assert_eq!(counts(&sampler), (1, 0));

    // Compiling ahead keeps all programs that it wrote.
    directory.files().iter().for_each(|file| set_age(file, Duration::from_secs(3600)));
    let small = AheadOptions { output_dir_capacity: 1, ..ahead(PLUGINS[0], &directory.0, &[2]) };
    let written = compile_ahead(&small, &|_| {}).unwrap();
    let mut left: Vec<PathBuf> = written.into_iter().map(|program| program.file).collect();
    left.push(foreign);
    left.sort();
    assert_eq!(directory.files(), left);
    assert!(warning(&["just written to", directory.0.to_str().unwrap(), "capacity of 1;"]).is_some());
}

/// Several samplers share a directory whose capacity is too small for any program. New files stay, and nothing fails.
#[test]
fn samplers_share_a_directory_that_is_too_small() {
    let directory = Directory::new("too-small");
    let writing =
        SamplerOptions { write_programs: true, program_dir_capacity: 1, ..options(PLUGINS[0], &directory.0) };
    std::thread::scope(|scope| {
        for vocab in [911, 912, 913] {
            let writing = &writing;
            scope.spawn(move || bounded_call(&Sampler::new(writing).unwrap(), vocab));
        }
    });
    assert_eq!(directory.files().len(), 3);
    let path = directory.0.to_str().unwrap();
    assert!(warning(&["just written to", path, "more than its capacity of 1"]).is_some());
    assert_eq!(warning(&["cannot be removed", path]), None);
}

#[test]
fn no_device_is_a_device_error() {
    let directory = Directory::new("no-device");
    let none = vec![("cpu_device_count".to_owned(), OptionValue::I64(0))];
    let sampler = SamplerOptions { client_options: none.clone(), ..options(PLUGINS[0], &directory.0) };
    let ahead = AheadOptions { plugin_options: none, ..ahead(PLUGINS[0], &directory.0, &[1]) };
    for error in [Sampler::new(&sampler).err().unwrap(), compile_ahead(&ahead, &|_| {}).unwrap_err()] {
        let Error::Pjrt(error) = error else { panic!("{error:?}") };
        assert!(!matches!(error.kind(), ErrorKind::Argument | ErrorKind::Misbehaved), "{error:?}");
        assert!(error.to_string().contains("no device"), "{error}");
    }
}

#[test]
fn wrong_options_are_named() {
    let directory = Directory::new("wrong");
    let good = ahead(PLUGINS[0], &directory.0, &[1]);
    let file = directory.0.join("file");
    fs::write(&file, b"").unwrap();
    let message = |options: &AheadOptions| compile_ahead(options, &|_| {}).unwrap_err().to_string();
    let zero_vocab = CallShape { vocab: 0, ..good.calls };
    let logits = LogitsPlace::Device { singleton: false, bad_rows: false };
    let on_device = CallShape { logits, ..good.calls };
    let reference = CallShape { entry: Entry::Reference, ..good.calls };
    for (options, words) in [
        (AheadOptions { batches: vec![], ..good.clone() }, "row_counts is empty"),
        (AheadOptions { batches: vec![1, 0], ..good.clone() }, "row_counts[1] is 0"),
        (
            AheadOptions { batches: vec![1, 65_536, 70_000], calls: on_device, ..good.clone() },
            "row_counts[2] is 70000; with logits on a device it must be 1 to 65536",
        ),
        (
            AheadOptions { batches: vec![1, 0], calls: on_device, ..good.clone() },
            "row_counts[1] is 0; with logits",
        ),
        (AheadOptions { calls: zero_vocab, ..good.clone() }, "vocab is 0"),
        (AheadOptions { calls: reference, ..good.clone() }, "reference"),
        (AheadOptions { max_k: 2000, ..good.clone() }, "max_k is 2000"),
        (AheadOptions { output_dir: file.clone(), ..good.clone() }, "output_dir"),
        (AheadOptions { topology: Some("v5e:2x2".into()), ..good.clone() }, "describes no topologies"),
        (AheadOptions { plugin: Some("/nonexistent.so".into()), ..good.clone() }, "no PJRT plugin at"),
    ] {
        assert!(message(&options).contains(words), "{words}: {}", message(&options));
    }
    let refused = |options: &SamplerOptions| {
        let error = Sampler::new(options).err().unwrap();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
        error.to_string()
    };
    let missing = directory.0.join("missing");
    let message = refused(&options(PLUGINS[0], &missing));
    assert!(message.contains("program_dir is") && message.contains("an existing directory"), "{message}");
    assert!(refused(&options(PLUGINS[0], &file)).contains("it is not a directory"));
    let nowhere = SamplerOptions { program_dir: None, write_programs: true, ..options(PLUGINS[0], &missing) };
    assert!(refused(&nowhere).contains("NUCLEUS_PROGRAM_DIR"));
    assert_eq!(directory.files(), [file]);
}
