//! The TPU kernels without a TPU: the program that libtpu would receive is run by an interpreter of its own making
//! (`tests/tpu/interpreter`), and every output array must equal the built-in backend's, bit for bit.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use nucleus::kernels::{pack_params, tpu, Chip, Path as Way, Spec, Target, Wanted};
use nucleus::problem::Dtype;
use nucleus::sampler::{BackendChoice, Entry, Sampler, SamplerOptions};
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use rand::prelude::*;
use serde_json::json;

const MIB: usize = 1 << 20;

/// A generation, with another size of its memory if one is given: what a kernel must not fit leads to other ways through.
fn chip(name: &str, vmem: Option<usize>) -> Chip {
    match Target::named(name) {
        Some(Target::Tpu(chip)) => Chip { vmem_bytes: vmem.unwrap_or(chip.vmem_bytes), ..chip },
        _ => panic!("{name} is no TPU"),
    }
}

const PLAIN_CALL: Wanted = Wanted { topk_logits: false, weights: false, slices: false };

fn debug_call(path: Way) -> Wanted {
    Wanted { topk_logits: true, weights: true, slices: path != Way::Arbitrary }
}

/// Cases for the interpreter, in a folder of their own.
struct Cases {
    folder: PathBuf,
    list: Vec<serde_json::Value>,
}

impl Cases {
    fn new(name: &str) -> Cases {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tpu").join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Cases { folder, list: Vec::new() }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.folder.join(name), bytes).unwrap();
        name.to_owned()
    }

    /// One program on one batch.
    fn add(&mut self, spec: &Spec, chip: &Chip, problem: &Problem) {
        assert_eq!((spec.batch, spec.vocab, spec.dtype), (problem.len(), problem.vocab, problem.dtype));
        let number = self.list.len();
        let program = format!("{}_{}_{}.mlir", spec.name(), chip.name, chip.vmem_bytes / MIB);
        if !self.folder.join(&program).exists() {
            self.write(&program, tpu::emit(spec, chip).as_bytes());
        }
        let logits: Vec<u8> = match problem.dtype {
            Dtype::F32 => problem.f32s.iter().flat_map(|x| x.to_bits().to_le_bytes()).collect(),
            _ => problem.u16s.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        let params: Vec<u8> = problem
            .rows
            .iter()
            .flat_map(|row| pack_params(row, problem.options, problem.dtype))
            .flat_map(i32::to_le_bytes)
            .collect();
        let inputs =
            [self.write(&format!("{number}.logits"), &logits), self.write(&format!("{number}.params"), &params)];
        let expected: Vec<String> = expected(spec, problem)
            .iter()
            .enumerate()
            .map(|(i, bytes)| self.write(&format!("{number}.expected{i}"), bytes))
            .collect();
        let name = format!("{number} {} {:?}", spec.name(), problem.kinds);
        self.list.push(json!({"name": name, "program": program, "inputs": inputs, "expected": expected}));
    }

    /// Runs the interpreter on all cases.
    fn check(&self, options: &[&str]) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join(".cache/interpreter/bin/python");
        assert!(python.exists(), "{} is missing: run `make interpreter`", python.display());
        self.write("cases.json", json!(self.list).to_string().as_bytes());
        let output = Command::new(python)
            .args(["-m", "interpreter", "check"])
            .args(options)
            .arg(&self.folder)
            .env("PYTHONPATH", root.join("tests/tpu"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        println!("{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "the interpreter does not agree with the built-in backend");
        assert_eq!(text.lines().filter(|line| line.contains("PASS")).count(), self.list.len());
        if std::env::var_os("KEEP").is_none() {
            std::fs::remove_dir_all(&self.folder).unwrap();
        }
    }
}

/// What the built-in backend says, in the order and layout of the program's results.
fn expected(spec: &Spec, problem: &Problem) -> Vec<Vec<u8>> {
    let max_k = match spec.path {
        Way::Bounded(max_k) => max_k,
        Way::Arbitrary => 128,
    };
    let options = SamplerOptions {
        backend: BackendChoice::Builtin,
        max_k,
        num_threads: 1,
        ..SamplerOptions::default()
    };
    let entry = if spec.path == Way::Arbitrary { Entry::Arbitrary } else { Entry::Bounded };
    let sampler = Sampler::new(&options).unwrap();
    let wanted = spec.wanted;
    let ask = Ask { topk_logits: wanted.topk_logits, weights: wanted.weights, slices: wanted.slices };
    let answers = sample(&sampler, entry, problem, ask);
    let ints = |values: &[i32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let words = |values: &[u32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let logits = |values: &[u32]| match spec.dtype {
        Dtype::F32 => words(values),
        _ => values.iter().flat_map(|&x| (x as u16).to_le_bytes()).collect(),
    };
    let mut arrays = vec![[
        ints(&answers.next_tokens),
        ints(&answers.greedy_sampled),
        words(&answers.random_high),
        words(&answers.random_low),
        words(&answers.row_status),
    ]
    .concat()];
    if wanted.topk_logits {
        arrays.push(logits(&answers.topk_logits));
    }
    if wanted.weights {
        arrays.push(ints(&answers.weights));
    }
    if wanted.slices {
        let slots = max_k.min(spec.vocab);
        let cut = |values: &[i32]| values.chunks(max_k).flat_map(|row| row[..slots].to_vec()).collect::<Vec<_>>();
        let cut_bits =
            |values: &[u32]| values.chunks(max_k).flat_map(|row| row[..slots].to_vec()).collect::<Vec<_>>();
        arrays.push(ints(&cut(&answers.indices_k)));
        arrays.push(logits(&cut_bits(&answers.topk_logits_k)));
        arrays.push(ints(&cut(&answers.weights_k)));
    }
    arrays
}

/// Eight rows of a kind, each with other parameters.
fn rows_of(kind: RowKind, spec: &Spec, rng: &mut StdRng) -> Problem {
    let largest = match spec.path {
        Way::Bounded(max_k) => Some(max_k as i32),
        Way::Arbitrary => None,
    };
    let mut problem = Problem::random(spec.dtype, spec.batch, spec.vocab, largest, rng);
    problem.kinds = vec![kind; spec.batch];
    let bits =
        problem.kinds.iter().flat_map(|&kind| make_row(kind, spec.vocab, rng)).map(|x| spec.dtype.round(x)).collect();
    problem.set_bits(bits);
    problem
}

fn spec(path: Way, batch: usize, vocab: usize, dtype: Dtype, debug: bool) -> Spec {
    let wanted = if debug { debug_call(path) } else { PLAIN_CALL };
    Spec { path, batch, vocab, dtype, stable: true, wanted }
}

#[test]
fn scratch() {
    let Ok(text) = std::env::var("SCRATCH") else { return };
    let words: Vec<&str> = text.split(' ').collect();
    let path = if words[0] == "arbitrary" { Way::Arbitrary } else { Way::Bounded(words[0].parse().unwrap()) };
    let dtype = match words[3] {
        "f32" => Dtype::F32,
        "bf16" => Dtype::Bf16,
        _ => Dtype::F16,
    };
    let spec = spec(path, words[1].parse().unwrap(), words[2].parse().unwrap(), dtype, words[4] == "debug");
    let mut rng = StdRng::seed_from_u64(7);
    let mut cases = Cases::new("scratch");
    for kind in ROW_KINDS {
        if words.len() > 6 && !format!("{kind:?}").eq_ignore_ascii_case(words[6]) {
            continue;
        }
        let mut problem = rows_of(kind, &spec, &mut rng);
        if words.len() > 7 {
            let k: i32 = words[7].parse().unwrap();
            problem.rows = (0..spec.batch)
                .map(|_| RowParams::new(k, 0.95, 0.0, 1.0, random_words(rng.random(), 0), spec.vocab))
                .collect();
        }
        let (name, vmem) = words[5].split_once('/').unwrap_or((words[5], ""));
        cases.add(&spec, &chip(name, vmem.parse::<usize>().ok().map(|n| n * MIB)), &problem);
    }
    let folder = cases.folder.join("trips.json");
    cases.check(&["--trips", folder.to_str().unwrap()]);
}
