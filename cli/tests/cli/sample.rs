//! `nucleus sample`: files of logits in, tokens and debug arrays out.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use npyz::{NpyFile, WriterBuilder as _};
use nucleus::batch::{Batch, CallOptions, RandomSource, RowArguments};
use nucleus::dtype::{Logits, LogitsMut};
use nucleus::outputs::{Outputs, RowArrays};
use nucleus::plan::Entry;
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};
use nucleus::{bf16, f16};
use serde_json::Value;

use super::{directory, failure, nucleus, plugin, stderr, stdout};

const ROWS: usize = 3;
const VOCAB: usize = 300;

fn logits() -> Vec<f32> {
    (0..(ROWS * VOCAB) as u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 20) as f32 / 512.0).collect()
}

/// Creates a directory and returns the path of a file in it.
fn file(test: &str, name: &str) -> PathBuf {
    let directory = directory(test);
    fs::create_dir_all(&directory).unwrap();
    directory.join(name)
}

fn write_npy<T: npyz::Serialize>(path: &Path, descr: &str, values: impl IntoIterator<Item = T>) {
    let mut writer = npyz::WriteOptions::<T>::new()
        .dtype(npyz::DType::new_scalar(descr.parse().unwrap()))
        .shape(&[ROWS as u64, VOCAB as u64])
        .writer(File::create(path).unwrap())
        .begin_nd()
        .unwrap();
    writer.extend(values).unwrap();
    writer.finish().unwrap();
}

/// Writes a file without elements.
fn write_shape(path: &Path, shape: &[u64]) {
    let writer = npyz::WriteOptions::<f32>::new()
        .default_dtype()
        .shape(shape)
        .writer(File::create(path).unwrap())
        .begin_nd()
        .unwrap();
    writer.finish().unwrap();
}

/// Writes an `.npy` file of f32. Its header states this shape, but the file has no elements.
fn write_header(path: &Path, shape: &str) {
    let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = u16::try_from(dictionary.len()).unwrap().to_le_bytes();
    fs::write(path, [b"\x93NUMPY\x01\x00", &length[..], dictionary.as_bytes()].concat()).unwrap();
}

/// The outputs of the library for the parameters that these tests pass to the command.
#[derive(Default)]
struct Expected {
    tokens: Vec<i32>,
    topk_logits: Vec<f32>,
    weights: Vec<i32>,
    indices_k: Vec<i32>,
}

fn expected(logits: &[f32], top_k: &[i32; ROWS], entry: Entry, max_k: usize) -> Expected {
    let arguments = RowArguments {
        k: Some(top_k),
        p: Some(&[0.9; ROWS]),
        random: RandomSource::Seeds { seed: Some(&[7; ROWS]), offset: Some(&[3; ROWS]) },
        ..RowArguments::default()
    };
    let batch = Batch::new(Logits::F32(logits), ROWS, VOCAB, 0, &arguments, CallOptions::default()).unwrap();
    let options = SamplerOptions { backend: BackendChoice::Builtin, max_k, ..SamplerOptions::default() };
    let mut found = Expected {
        tokens: vec![0; ROWS],
        topk_logits: vec![0.0; ROWS * VOCAB],
        weights: vec![0; ROWS * VOCAB],
        indices_k: vec![0; ROWS * max_k],
    };
    let mut outputs = Outputs {
        tokens: Some(&mut found.tokens),
        wide: RowArrays {
            topk_logits: Some(LogitsMut::F32(&mut found.topk_logits)),
            weights: Some(&mut found.weights),
            indices_k: (entry == Entry::Bounded).then_some(&mut found.indices_k),
            ..RowArrays::default()
        },
        ..Outputs::default()
    };
    Sampler::new(&options).unwrap().sample(entry, &batch, &mut outputs).unwrap();
    found
}

fn tokens(output: &std::process::Output) -> Vec<i32> {
    assert!(output.status.success(), "{}", stderr(output));
    let json: Value = serde_json::from_str(&stdout(output)).unwrap();
    serde_json::from_value(json["tokens"].clone()).unwrap()
}

fn sample(path: &Path, more: &[&str]) -> std::process::Output {
    let mut arguments =
        vec!["sample", path.to_str().unwrap(), "--top-p", "0.9", "--seed", "7", "--offset", "3"];
    arguments.extend(more);
    nucleus(&arguments)
}

fn array<T: npyz::Deserialize>(npz: &Path, name: &str) -> (Vec<u64>, Vec<T>) {
    let mut archive = zip::ZipArchive::new(File::open(npz).unwrap()).unwrap();
    let mut bytes = Vec::new();
    archive.by_name(&format!("{name}.npy")).unwrap().read_to_end(&mut bytes).unwrap();
    let file = NpyFile::new(&bytes[..]).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

#[test]
fn the_tokens_and_arrays_are_those_of_the_library() {
    let path = file("sample_npy", "logits.npy");
    let logits = logits();
    write_npy(&path, "<f4", logits.iter().copied());
    let npz = path.with_extension("npz");
    let more = ["--top-k", "8,0,5", "--debug", npz.to_str().unwrap(), "--json"];
    let expected = expected(&logits, &[8, 0, 5], Entry::Automatic, 128);
    assert_eq!(tokens(&sample(&path, &more)), expected.tokens);
    let wide = vec![ROWS as u64, VOCAB as u64];
    assert_eq!(array(&npz, "topk_logits_unsorted"), (wide.clone(), expected.topk_logits));
    assert_eq!(array(&npz, "topk_topp_unnorm_probs_i32_unsorted"), (wide, expected.weights));
    assert_eq!(array(&npz, "next_tokens"), (vec![ROWS as u64], expected.tokens));
}

/// The k-slices have max_k slots, even if the vocabulary is smaller.
#[test]
fn a_vocabulary_smaller_than_max_k_has_k_slices() {
    let path = file("sample_small_vocab", "logits.npy");
    let logits = logits();
    write_npy(&path, "<f4", logits.iter().copied());
    let npz = path.with_extension("npz");
    let (backend, plugin) = (["--max-k", "512", "--keep-ties"], plugin("lammps-jax-pjrt-cpu"));
    for more in [&[][..], &["--plugin", plugin.to_str().unwrap()]] {
        let all = ["--top-k", "8", "--path", "bounded", "--debug", npz.to_str().unwrap(), "--json"];
        tokens(&sample(&path, &[&all, &backend[..], more].concat()));
        let (shape, indices) = array::<i32>(&npz, "topk_indices_k");
        assert_eq!(shape, [ROWS as u64, 512]);
        assert_eq!(indices[VOCAB..512], [-1; 512 - VOCAB]);
    }
}

#[test]
fn the_bounded_path_has_k_slices() {
    let path = file("sample_slices", "logits.npy");
    let logits = logits();
    write_npy(&path, "<f4", logits.iter().copied());
    let npz = path.with_extension("npz");
    let more =
        ["--top-k", "8", "--path", "bounded", "--max-k", "16", "--debug", npz.to_str().unwrap(), "--json"];
    let expected = expected(&logits, &[8; ROWS], Entry::Bounded, 16);
    assert_eq!(tokens(&sample(&path, &more)), expected.tokens);
    assert_eq!(array(&npz, "topk_indices_k"), (vec![ROWS as u64, 16], expected.indices_k));
}

/// Rounds logits to a 16-bit type, and compares the tokens of the command with those of the widened logits.
fn sixteen_bits(name: &str, widen: impl Fn(f32) -> f32, write: impl Fn(&Path, &[f32])) {
    let path = file(name, "logits.npy");
    let logits = logits();
    write(&path, &logits);
    let widened: Vec<f32> = logits.into_iter().map(widen).collect();
    let expected = expected(&widened, &[8; ROWS], Entry::Automatic, 128);
    assert_eq!(tokens(&sample(&path, &["--top-k", "8", "--json"])), expected.tokens);
}

#[test]
fn float16_is_read() {
    sixteen_bits(
        "sample_f16",
        |x| f16::from_f32(x).to_f32(),
        |path, logits| {
            write_npy(path, "<f2", logits.iter().map(|&x| f16::from_f32(x)));
        },
    );
}

#[test]
fn bfloat16_of_ml_dtypes_is_read() {
    sixteen_bits(
        "sample_bf16",
        |x| bf16::from_f32(x).to_f32(),
        |path, logits| {
            let bytes = |&x: &f32| npyz::FixedSizeBytes(bf16::from_f32(x).to_bits().to_le_bytes());
            write_npy(path, "|V2", logits.iter().map(bytes));
        },
    );
}

#[test]
fn safetensors_are_read() {
    let path = file("sample_safetensors", "logits.safetensors");
    let logits = logits();
    let bytes: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = |shape: Vec<usize>| {
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &bytes).unwrap()
    };
    // A dimension of size 1 between rows and vocabulary is common in the outputs of models.
    let tensors = [("logits", view(vec![ROWS, 1, VOCAB])), ("other", view(vec![ROWS * VOCAB]))];
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
    let message = failure(&sample(&path, &[]));
    assert!(message.contains("the file has 2 arrays; select one with --tensor: logits, other"), "{message}");
    let message = failure(&sample(&path, &["--tensor", "x"]));
    assert!(message.contains("there is no array \"x\""), "{message}");
    let expected = expected(&logits, &[8; ROWS], Entry::Automatic, 128);
    assert_eq!(tokens(&sample(&path, &["--tensor", "logits", "--top-k", "8", "--json"])), expected.tokens);
}

#[test]
fn a_plugin_gives_the_same_tokens() {
    let path = file("sample_plugin", "logits.npy");
    write_npy(&path, "<f4", logits());
    let plugin = plugin("lammps-jax-pjrt-cpu");
    let on_plugin = sample(&path, &["--top-k", "8", "--json", "--plugin", plugin.to_str().unwrap()]);
    assert!(stdout(&on_plugin).contains("\"platform\":\"cpu\""), "{}", stdout(&on_plugin));
    assert_eq!(tokens(&on_plugin), tokens(&sample(&path, &["--top-k", "8", "--json"])));
}

/// The header of a damaged file can state any shape.
#[test]
fn impossible_shapes_are_refused() {
    let path = file("sample_shapes", "logits.npy");
    for (shape, reason) in [
        ("(4611686018427387904, 8)", "no file can contain"),
        ("(4294967296, 4294967296, 30)", "no file can contain"),
        ("(2305843009213693952, 2)", "no file can contain"),
        ("(72057594037927936, 8)", "the file has only"),
        ("(1000, 8)", "the file has only"),
        ("(1, 8)", "failed to fill"),
    ] {
        write_header(&path, shape);
        let message = failure(&sample(&path, &[]));
        assert!(message.contains("logits.npy: ") && message.contains(reason), "{shape}: {message}");
    }
}

/// If a debug file cannot be written, the command prints only one message. This message contains the path once.
#[test]
fn debug_files_that_cannot_be_written() {
    let path = file("sample_unwritable", "logits.npy");
    write_npy(&path, "<f4", logits());
    for (debug, reason) in [("/nonexistent/o.npz", "No such file"), ("/dev/full", "No space left")] {
        let message = failure(&sample(&path, &["--debug", debug]));
        assert!(message.starts_with(&format!("nucleus: {debug} cannot be written: ")), "{message}");
        assert!(message.contains(reason) && message.lines().count() == 1, "{message}");
    }
}

#[test]
fn wrong_files_and_parameters_are_described() {
    let path = file("sample_wrong", "logits.npy");
    write_npy(&path, "<f8", logits().into_iter().map(f64::from));
    let message = failure(&sample(&path, &[]));
    assert!(message.contains("the type is '<f8'; it must be float32, float16 or bfloat16"), "{message}");
    write_npy(&path, "<f4", logits());
    let message = failure(&sample(&path, &["--top-k", "1,2"]));
    assert!(message.contains("--top-k has 2 values"), "{message}");
    // The other rows are sampled.
    for json in [&[][..], &["--json"]] {
        let output = sample(&path, &[&["--temperature", "1,nan,1"], json].concat());
        let message = failure(&output);
        assert!(message.contains("temperature[1] is NaN"), "{message}");
        let printed = String::from_utf8_lossy(&output.stdout);
        match json.is_empty() {
            true => {
                assert!(printed.lines().nth(1).unwrap().contains("-1  (impossible parameter)"), "{printed}")
            }
            false => assert_eq!(serde_json::from_str::<Value>(&printed).unwrap()["tokens"][1], -1),
        }
    }
    write_shape(&path, &[10_000_000_000_000, 0]);
    let message = failure(&sample(&path, &["--temperature", "0"]));
    assert!(message.contains("vocab is 0"), "{message}");
    write_npy(&path, "<f4", logits());
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    failure(&sample(&path, &[]));
    failure(&sample(&path.with_extension("txt"), &[]));
    failure(&sample(&path.with_file_name("none.npy"), &[]));
}
