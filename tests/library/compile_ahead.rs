//! Programs compiled in one place and loaded in another, and all that can be wrong with their files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::common::*;
use nucleus::compile_ahead::{compile_ahead, AheadOptions, Written};
use nucleus::dtype::Dtype;
use nucleus::kernels::Wanted;
use nucleus::plan::{CallShape, Entry};
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};

const VOCAB: usize = 1000;

/// An empty folder, gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ahead-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Every warning of this process.
struct Warnings(Mutex<Vec<String>>);

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }
    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }
    fn flush(&self) {}
}

static WARNINGS: Warnings = Warnings(Mutex::new(Vec::new()));

/// The warning that mentions all of `words`; tests of this file run at once, so these must be the test's own.
fn warning(words: &[&str]) -> Option<String> {
    let warnings = WARNINGS.0.lock().unwrap();
    warnings.iter().find(|text| words.iter().all(|word| text.contains(word))).cloned()
}

fn options(plugin_name: &str, folder: &Path) -> SamplerOptions {
    let _ = log::set_logger(&WARNINGS);
    log::set_max_level(log::LevelFilter::Warn);
    SamplerOptions {
        backend: BackendChoice::Pjrt,
        plugin: Some(plugin(plugin_name)),
        program_dir: Some(folder.to_owned()),
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
    }
}

fn ahead(plugin_name: &str, folder: &Path, batches: &[usize]) -> AheadOptions {
    AheadOptions {
        plugin: Some(plugin(plugin_name)),
        ..AheadOptions::new(folder.to_owned(), batches.to_vec(), calls(Dtype::Bf16))
    }
}

fn counts(sampler: &Sampler) -> (u64, u64) {
    (sampler.stats().compiles, sampler.stats().loaded)
}

/// A host compiles, another one loads, on whichever of its devices, from a copy of the folder.
fn compiled_here_loaded_there(name: &str) {
    let (here, there) = (Folder::new(&format!("here-{name}")), Folder::new(&format!("there-{name}")));
    let progress = Mutex::new(Vec::<Written>::new());
    let written = compile_ahead(&ahead(name, &here.0, &[3, 8]), &|program| {
        progress.lock().unwrap().push(program.clone());
    })
    .unwrap();
    assert_eq!(written.len(), 4); // two paths, buckets 4 and 8
    assert_eq!(*progress.lock().unwrap(), written);
    assert_eq!(here.files().len(), 4);
    for program in &written {
        assert!(program.file.file_name().unwrap().to_str().unwrap().starts_with(&program.name));
        assert!(fs::metadata(&program.file).unwrap().len() > program.bytes as u64 && program.bytes > 0);
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
        // A call of another size is compiled, and says so.
        answers_rightly(&sampler, 1, VOCAB, 1);
        assert_eq!(counts(&sampler), (2, 4));
    }
    assert!(warning(&["nucleus_arbitrary_1x1000_bf16", "not in program_dir"]).is_some());
    assert_eq!(there.files().len(), 4);
}

/// Files that are damaged, foreign or unreadable are told of, and the program is compiled.
fn damaged_files_are_compiled_anew(name: &str) {
    let folder = Folder::new(&format!("damaged-{name}"));
    let written = compile_ahead(&ahead(name, &folder.0, &[2]), &|_| {}).unwrap();
    let file = written.iter().find(|program| program.name.contains("arbitrary")).unwrap().file.clone();
    let whole = fs::read(&file).unwrap();
    let metadata = u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize;
    let mut flipped = whole.clone();
    let middle = (whole.len() + metadata) / 2;
    flipped[middle] ^= 1;
    let mut newer = whole.clone();
    newer[8] = 9;
    // The plugin itself refuses this one: header and checksum are right, the executable is none.
    let json = String::from_utf8(whole[16..16 + metadata].to_vec()).unwrap();
    let mut header: serde_json::Value = serde_json::from_str(&json).unwrap();
    let nonsense = b"this is no executable";
    header["executable_bytes"] = nonsense.len().into();
    header["executable_sha256"] = sha256(nonsense).into();
    let header = header.to_string().into_bytes();
    let refused = [&whole[..12], &(header.len() as u32).to_le_bytes(), &header, nonsense].concat();

    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("cut", whole[..whole.len() - 100].to_vec(), "bytes instead of"),
        ("flipped", flipped, "checksum is wrong"),
        ("newer", newer, "its format is version 9"),
        ("foreign", b"#!/bin/sh\necho this is something else\n".to_vec(), "not a file of compiled programs"),
        ("empty", vec![], "not a file of compiled programs"),
        ("refused", refused, "PJRT_Executable_DeserializeAndLoad"),
    ];
    for (case, bytes, reason) in cases {
        fs::write(&file, bytes).unwrap();
        let sampler = Sampler::new(&options(name, &folder.0)).unwrap();
        answers_rightly(&sampler, 2, VOCAB, 7);
        assert_eq!(counts(&sampler), (1, 1), "{case}");
        let said = warning(&[file.to_str().unwrap(), reason]);
        assert!(said.is_some(), "{case}: {:?}", WARNINGS.0.lock().unwrap());
    }
    // A folder in the file's place cannot be read.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let sampler = Sampler::new(&options(name, &folder.0)).unwrap();
    answers_rightly(&sampler, 2, VOCAB, 7);
    assert_eq!(counts(&sampler), (1, 1));
}

/// A folder that what is compiled is written to serves the next sampler, and any number at once.
fn folders_can_be_caches(name: &str) {
    let folder = Folder::new(&format!("cache-{name}"));
    let nested = folder.0.join("not/there/yet");
    let writing = SamplerOptions { write_programs: true, ..options(name, &nested) };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| answers_rightly(&Sampler::new(&writing).unwrap(), 5, VOCAB, 11));
        }
    });
    let mut names: Vec<_> = fs::read_dir(&nested).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 2, "{names:?}");
    let sampler = Sampler::new(&SamplerOptions { write_programs: false, ..writing.clone() }).unwrap();
    answers_rightly(&sampler, 5, VOCAB, 12);
    assert_eq!(counts(&sampler), (0, 2));

    // Damage is repaired where writing is allowed.
    fs::write(nested.join(&names[0]), b"damaged").unwrap();
    let sampler = Sampler::new(&writing).unwrap();
    answers_rightly(&sampler, 5, VOCAB, 13);
    assert_eq!(counts(&sampler), (1, 1));
    let sampler = Sampler::new(&writing).unwrap();
    answers_rightly(&sampler, 5, VOCAB, 14);
    assert_eq!(counts(&sampler), (0, 2));
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

macro_rules! each_plugin {
    ($($module:ident: $name:expr;)*) => {$(
        mod $module {
            use super::*;

            #[test]
            fn compiled_here_loaded_there() {
                super::compiled_here_loaded_there($name);
            }

            #[test]
            fn damaged_files_are_compiled_anew() {
                super::damaged_files_are_compiled_anew($name);
            }

            #[test]
            fn folders_can_be_caches() {
                super::folders_can_be_caches($name);
            }
        }
    )*};
}

each_plugin! {
    plugin_api_115: PLUGINS[0];
    plugin_api_106: PLUGINS[1];
    plugin_api_81: PLUGINS[2];
}

/// Programs of another build of the plugin are left alone, with a word on what they were made for, and both builds'
/// programs can lie in one folder.
#[test]
fn plugins_keep_to_their_own_programs() {
    let folder = Folder::new("versions");
    compile_ahead(&ahead(PLUGINS[1], &folder.0, &[16]), &|_| {}).unwrap();
    let sampler = Sampler::new(&options(PLUGINS[0], &folder.0)).unwrap();
    answers_rightly(&sampler, 16, VOCAB, 21);
    assert_eq!(counts(&sampler), (2, 0));
    assert!(warning(&["compiling nucleus_arbitrary_16x1000_bf16", "another build of the plugin"]).is_some());

    compile_ahead(&ahead(PLUGINS[0], &folder.0, &[16]), &|_| {}).unwrap();
    assert_eq!(folder.files().len(), 4);
    for name in [PLUGINS[0], PLUGINS[1]] {
        let sampler = Sampler::new(&options(name, &folder.0)).unwrap();
        answers_rightly(&sampler, 16, VOCAB, 22);
        assert_eq!(counts(&sampler), (0, 2), "{name}");
    }
    // A file that was renamed to look like this build's is not taken for it.
    let files = folder.files();
    let (a, b) = (&files[0], &files[1]);
    let swap = fs::read(a).unwrap();
    fs::copy(b, a).unwrap();
    fs::write(b, swap).unwrap();
    let sampler = Sampler::new(&options(PLUGINS[0], &folder.0)).unwrap();
    answers_rightly(&sampler, 16, VOCAB, 23);
    assert_eq!(counts(&sampler), (1, 1));
    assert!(warning(&["cannot be used", "it was made for another build of the plugin"]).is_some());
}

/// What `nuc_prewarm` needs, `smaller_batches` compiles; every variant of a program has its own file.
#[test]
fn prewarming_loads() {
    let folder = Folder::new("prewarm");
    let wanted = Wanted { topk_logits: true, weights: true, slices: false };
    let mut options_ahead = AheadOptions { smaller_batches: true, ..ahead(PLUGINS[0], &folder.0, &[4]) };
    assert_eq!(compile_ahead(&options_ahead, &|_| {}).unwrap().len(), 6);
    options_ahead.calls.wanted = wanted;
    assert_eq!(compile_ahead(&options_ahead, &|_| {}).unwrap().len(), 6);
    options_ahead.calls.stable = false; // runs in the path for any k alone
    assert_eq!(compile_ahead(&options_ahead, &|_| {}).unwrap().len(), 3);
    assert_eq!(folder.files().len(), 15);
    let sampler = Sampler::new(&options(PLUGINS[0], &folder.0)).unwrap();
    for (stable, wanted) in [(true, Wanted::default()), (true, wanted), (false, wanted)] {
        sampler.prewarm(&CallShape { batch: 4, stable, wanted, ..calls(Dtype::Bf16) }).unwrap();
    }
    assert_eq!(counts(&sampler), (0, 15));
}

#[test]
fn wrong_options_are_named() {
    let folder = Folder::new("wrong");
    let good = ahead(PLUGINS[0], &folder.0, &[1]);
    let file = folder.0.join("file");
    fs::write(&file, b"").unwrap();
    let message = |options: &AheadOptions| compile_ahead(options, &|_| {}).unwrap_err().to_string();
    let zero_vocab = CallShape { vocab: 0, ..good.calls };
    let reference = CallShape { entry: Entry::Reference, ..good.calls };
    for (options, words) in [
        (AheadOptions { batches: vec![], ..good.clone() }, "no batch size"),
        (AheadOptions { batches: vec![1, 0], ..good.clone() }, "batches[1] is 0"),
        (AheadOptions { calls: zero_vocab, ..good.clone() }, "vocab is 0"),
        (AheadOptions { calls: reference, ..good.clone() }, "reference"),
        (AheadOptions { max_k: 2000, ..good.clone() }, "max_k is 2000"),
        (AheadOptions { output_dir: file.clone(), ..good.clone() }, "output_dir"),
        (AheadOptions { topology: Some("v5e:2x2".into()), ..good.clone() }, "describes no topologies"),
        (AheadOptions { plugin: Some("/nonexistent.so".into()), ..good.clone() }, "no PJRT plugin at"),
    ] {
        assert!(message(&options).contains(words), "{words}: {}", message(&options));
    }
    let refused = |options: &SamplerOptions| Sampler::new(options).err().unwrap().to_string();
    let missing = folder.0.join("missing");
    assert!(refused(&options(PLUGINS[0], &missing)).contains("program_dir"));
    assert!(refused(&options(PLUGINS[0], &file)).contains("it is not a folder"));
    let nowhere = SamplerOptions { program_dir: None, write_programs: true, ..options(PLUGINS[0], &missing) };
    assert!(refused(&nowhere).contains("NUCLEUS_PROGRAM_DIR"));
    assert_eq!(folder.files(), [file]);
}
