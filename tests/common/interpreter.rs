//! Cases for the interpreter of TPU and GPU programs (`tests/interpreter`). A case has a program, its inputs and its
//! expected results. The expected results are those of the built-in backend.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nucleus::dtype::Dtype;
use nucleus::kernels::{pack_params, pack_seeds, Path as Way, Source, Spec, Wanted, RESULTS};
use nucleus::plan::Entry;
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use rand::rngs::StdRng;
use rand::Rng;
use serde_json::{json, Value};

use super::{sample, Ask, Problem, RowKind, ROW_KINDS};

/// A device whose programs the interpreter runs.
pub trait Device {
    /// Returns a name. Devices with different programs have different names.
    fn name(&self) -> String;

    /// Returns the program for a spec.
    fn program(&self, spec: &Spec) -> String;

    /// Whether the device has kernels for a spec. The interpreter does not run other programs.
    fn supports(&self, _spec: &Spec) -> bool {
        true
    }

    /// Checks the texts of kernels. Each file contains one kernel.
    fn check_kernels(&self, _kernels: &[PathBuf]) {}

    /// Returns the function for a caller's own program: see [`nucleus::kernels::embed::emit`].
    fn function(&self, spec: &Spec, name: &str) -> String;
}

/// Returns the spec of a program for a path. With `debug`, the program returns every wide array.
pub fn spec(path: Way, batch: usize, vocab: usize, dtype: Dtype, debug: bool) -> Spec {
    let wanted = match debug {
        true => Wanted { topk_logits: true, weights: true, slices: path != Way::Arbitrary },
        false => Wanted::default(),
    };
    Spec { path, batch, vocab, dtype, stable: true, wanted, source: Source::Batch }
}

/// Returns rows of the given kinds, with random parameters like those of [`Problem::random`].
pub fn problem_of(spec: &Spec, kinds: Vec<RowKind>, rng: &mut StdRng) -> Problem {
    let largest = match spec.path {
        Way::Bounded(max_k) => Some(max_k as i32),
        Way::Arbitrary => None,
    };
    let rows = Problem::random_rows(spec.batch, spec.vocab, largest, rng);
    let mut problem = Problem::new(spec.dtype, spec.vocab, kinds, rows, rng);
    problem.options.stable = spec.stable;
    problem
}

/// Returns rows in which a few percent of the entries survive top-k or have a weight. If the logits are normally
/// distributed, these entries are too many for the survivor path, but few enough for the candidate list. Therefore half
/// of the rows of each block have [`RowKind::Normal`]. The other half has the given kinds.
pub fn some_hundredths(spec: &Spec, mut kinds: Vec<RowKind>, rng: &mut StdRng) -> Problem {
    for block in kinds.chunks_mut(8) {
        block.iter_mut().take(4).for_each(|kind| *kind = RowKind::Normal);
    }
    let mut problem = problem_of(spec, kinds, rng);
    for (row, params) in problem.rows.iter_mut().enumerate() {
        let k = (spec.vocab / 80 + 7 * row) as i32;
        let (k, p, min_p, temperature) = match row % 4 {
            0 => (k, 0.95, 0.0, 1.0),
            1 => (0, 0.95, 0.0, 0.35),
            2 => (k, 1.0, 0.0, 2.0),
            _ => (0, 1.0, 1e-9, 0.35),
        };
        let words = random_words(rng.random(), rng.random());
        *params = RowParams::new(k, p, min_p, temperature, words, spec.vocab);
    }
    problem
}

/// Returns `count` consecutive kinds, starting at number `start`. After the last kind, continues with the first.
pub fn kinds_from(start: usize, count: usize) -> Vec<RowKind> {
    (start..start + count).map(|i| ROW_KINDS[i % ROW_KINDS.len()]).collect()
}

/// The numbers of cases and of values that agree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked {
    pub cases: usize,
    pub values: usize,
}

/// Returns the logits of a problem as bytes.
fn logits_bytes(problem: &Problem) -> Vec<u8> {
    match problem.dtype {
        Dtype::F32 => problem.f32s.iter().flat_map(|x| x.to_bits().to_le_bytes()).collect(),
        _ => problem.u16s.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

/// Returns a program that only calls the function `sample_here` of [`Device::function`].
pub fn embedded_program(function: &str) -> String {
    let signature = function.lines().next().unwrap();
    let (arguments, results) = signature.split_once(") -> (").unwrap();
    let results = results.trim_end_matches(" {").trim_end_matches(')');
    let arguments = arguments.split_once('(').unwrap().1;
    let names: Vec<&str> =
        arguments.split(", ").map(|argument| argument.split(':').next().unwrap()).collect();
    let types: Vec<&str> =
        arguments.split(", ").map(|argument| argument.split(": ").nth(1).unwrap()).collect();
    let count = results.split(", ").count();
    let outputs: Vec<String> = (0..count).map(|i| format!("%out#{i}")).collect();
    format!(
        "module @embedded {{\n{function}\nfunc.func public @main({arguments}) -> ({results}) {{\n\
         %out:{count} = func.call @sample_here({}) : ({}) -> ({results})\n\
         return {} : {results}\n}}\n}}\n",
        names.join(", "),
        types.join(", "),
        outputs.join(", "),
    )
}

/// A list of cases for the interpreter. Their files are in a separate directory.
pub struct Cases {
    directory: PathBuf,
    list: Vec<Value>,
    values: usize,
    /// The number of cases for which the device has no kernels.
    skipped: usize,
}

impl Cases {
    pub fn new(directory: PathBuf) -> Cases {
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        Cases { directory, list: Vec::new(), values: 0, skipped: 0 }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.directory.join(name), bytes).unwrap();
        name.to_owned()
    }

    /// Adds a case: one program and one batch.
    pub fn add(&mut self, spec: &Spec, device: &impl Device, problem: &Problem) {
        self.add_with(spec, device, problem, json!({}));
    }

    /// Adds a case and stores notes with it.
    ///
    /// If the device has no kernels for the spec, prints this and adds nothing.
    pub fn add_with(&mut self, spec: &Spec, device: &impl Device, problem: &Problem, notes: Value) {
        if self.skips(spec, device) {
            return;
        }
        let program = format!("{}_{}.mlir", spec.name(), device.name());
        if !self.directory.join(&program).exists() {
            self.write(&program, device.program(spec).as_bytes());
        }
        self.push_problem(spec, &device.name(), program, problem, notes);
    }

    fn skips(&mut self, spec: &Spec, device: &impl Device) -> bool {
        let skips = !device.supports(spec);
        if skips {
            println!("skipped: {} has no kernels for {}", device.name(), spec.name());
            self.skipped += 1;
        }
        skips
    }

    /// Adds a case whose program has this text.
    pub fn add_text(&mut self, spec: &Spec, program: &str, problem: &Problem) {
        let file = self.write(&format!("{}.mlir", self.list.len()), program.as_bytes());
        self.push_problem(spec, "text", file, problem, json!({}));
    }

    fn push_problem(&mut self, spec: &Spec, device: &str, program: String, problem: &Problem, notes: Value) {
        assert_eq!((spec.batch, spec.vocab, spec.dtype), (problem.len(), problem.vocab, problem.dtype));
        assert_eq!(spec.stable, problem.options.stable);
        let number = self.list.len();
        let params: Vec<u8> = problem
            .rows
            .iter()
            .flat_map(|row| pack_params(row, problem.options, problem.dtype))
            .flat_map(i32::to_le_bytes)
            .collect();
        let (arrays, values) = expected(spec, problem);
        let name = format!("{number} {} {} {:?}", spec.name(), device, problem.kinds);
        self.push(name, program, &[logits_bytes(problem), params], &arrays, values, notes);
    }

    /// Adds a case whose program samples inside a function: see [`embed::emit`]. Row `i` has seed `seeds[i]`. The
    /// program adds the step to every offset. Replaces the random words of `problem` with the words that belong to the
    /// seeds, the offsets and the step.
    pub fn add_embedded(
        &mut self,
        spec: &Spec,
        device: &impl Device,
        problem: &mut Problem,
        seeds: &[u64],
        step: u64,
    ) {
        const OFFSET: u64 = u32::MAX as u64;
        if self.skips(spec, device) {
            return;
        }
        let number = self.list.len();
        let program = format!("embedded_{}_{}.mlir", spec.name(), device.name());
        self.write(&program, embedded_program(&device.function(spec, "sample_here")).as_bytes());
        let params: Vec<u8> = problem
            .rows
            .iter()
            .zip(seeds)
            .flat_map(|(row, &seed)| pack_seeds(row, seed, OFFSET, problem.options, problem.dtype))
            .flat_map(i32::to_le_bytes)
            .collect();
        for (row, &seed) in problem.rows.iter_mut().zip(seeds) {
            row.words = random_words(seed, OFFSET + step);
        }
        let (mut arrays, values) = expected(spec, problem);
        arrays.insert(0, arrays[0][..4 * spec.batch].to_vec());
        let inputs = [logits_bytes(problem), params, step.to_le_bytes().to_vec()];
        let name = format!("{number} embedded {} {} {:?}", spec.name(), device.name(), problem.kinds);
        self.push(name, program, &inputs, &arrays, values, json!({}));
    }

    fn push(
        &mut self,
        name: String,
        program: String,
        inputs: &[Vec<u8>],
        arrays: &[Vec<u8>],
        values: usize,
        notes: Value,
    ) {
        let number = self.list.len();
        let write = |kind: &str, arrays: &[Vec<u8>]| -> Vec<String> {
            let arrays = arrays.iter().enumerate();
            arrays.map(|(i, bytes)| self.write(&format!("{number}.{kind}{i}"), bytes)).collect()
        };
        let (inputs, expected) = (write("input", inputs), write("expected", arrays));
        self.values += values;
        self.list.push(json!({
            "name": name, "program": program, "inputs": inputs, "expected": expected, "notes": notes,
        }));
    }

    /// Returns the directory of the cases.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes the list of cases and returns the number of cases. Does not remove the directory.
    pub fn finish(self) -> usize {
        self.write("cases.json", format!("{:#}\n", json!(self.list)).as_bytes());
        self.list.len()
    }

    /// Runs the interpreter on all cases. If a case fails, the error is the interpreter's output.
    pub fn run(&self, options: &[&str]) -> Result<Checked, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join(".cache/interpreter/bin/python");
        assert!(python.exists(), "{} is missing: run `make interpreter`", python.display());
        self.write("cases.json", json!(self.list).to_string().as_bytes());
        let output = Command::new(python)
            .args(["-m", "interpreter", "check", "--trips"])
            .arg(self.directory.join("trips.json"))
            .args(options)
            .arg(&self.directory)
            .env("PYTHONPATH", root.join("tests"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let passed = text.lines().filter(|line| line.ends_with(": PASS")).count();
        if output.status.success() && passed == self.list.len() && passed > 0 {
            return Ok(Checked { cases: passed, values: self.values });
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        // Some operations have undefined results in some lanes. The messages about them are not failures.
        let errors = errors.lines().filter(|line| !line.contains("had no defined result"));
        let wrong = text.lines().filter(|line| !line.ends_with(": PASS"));
        let mut said =
            format!("{} of {} cases pass, and it ended with {}\n", passed, self.list.len(), output.status);
        said.extend(wrong.chain(errors).map(|line| format!("{line}\n")));
        Err(said)
    }

    /// Runs the interpreter on all cases and removes the directory. Panics if a case does not agree.
    pub fn check(self, options: &[&str]) -> Checked {
        let start = Instant::now();
        let checked = self.run(options).unwrap_or_else(|said| self.disagrees(&said));
        let (Checked { cases, values }, seconds) = (checked, start.elapsed().as_secs());
        println!("{}: {cases} cases, {values} values agree, {seconds} s", self.directory.display());
        fs::remove_dir_all(&self.directory).unwrap();
        checked
    }

    /// Like [`run_all`](Cases::run_all), but panics if a case does not agree. Removes the directory afterwards. If all
    /// cases were skipped, runs nothing and returns zeros.
    pub fn check_all(self, options: &[&[&str]], check_kernels: impl Fn(&[PathBuf])) -> Checked {
        if self.list.is_empty() && self.skipped > 0 {
            return Checked::default();
        }
        let checked = self.run_all(options, check_kernels).unwrap_or_else(|said| self.disagrees(&said));
        fs::remove_dir_all(&self.directory).unwrap();
        checked
    }

    /// Runs the interpreter on all cases, once with each list of options. Then checks the text of each kernel. Returns
    /// the sums over all lists. If a case fails, the error is the interpreter's output.
    pub fn run_all(
        &self,
        options: &[&[&str]],
        check_kernels: impl Fn(&[PathBuf]),
    ) -> Result<Checked, String> {
        let kernels = self.directory.join("kernels");
        let with_kernels = ["--kernels", kernels.to_str().unwrap()];
        let mut sum = Checked::default();
        for options in options {
            let Checked { cases, values } = self.run(&[options, &with_kernels[..]].concat())?;
            sum = Checked { cases: sum.cases + cases, values: sum.values + values };
        }
        let files: Vec<PathBuf> =
            fs::read_dir(&kernels).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty(), "the programs have no kernels");
        check_kernels(&files);
        println!("{}: {} cases, {} values agree", self.directory.display(), sum.cases, sum.values);
        Ok(sum)
    }

    fn disagrees(&self, said: &str) -> ! {
        panic!("the interpreter does not agree in {}:\n{said}", self.directory.display())
    }

    /// Returns the sides of branches that no case took in the last run, and the loops that no case entered. All cases
    /// must run the same program. The format of a side is `label / label: then`, and that of a loop is `label:
    /// iterations`. The labels of the enclosing loops and branches come first.
    pub fn never_taken(&self) -> Vec<String> {
        let never = self.ways().into_iter().filter(|&(_, times)| times == 0);
        never.map(|((_, way), _)| way).collect()
    }

    /// Whether a case took a side of a branch or entered a loop in the last run. `way` names the side or the loop in
    /// the format of [`never_taken`](Cases::never_taken).
    pub fn took(&self, way: &str) -> bool {
        self.ways().iter().any(|((_, name), &times)| name == way && times > 0)
    }

    /// Returns how often the cases took each side of a branch, and how many iterations they ran in each loop. Several
    /// branches or loops may have the same labels. The number in the key distinguishes them.
    fn ways(&self) -> BTreeMap<(u64, String), u64> {
        let text = fs::read_to_string(self.directory.join("trips.json")).unwrap();
        let reports: Value = serde_json::from_str(&text).unwrap();
        let mut ways = BTreeMap::new();
        for case in &self.list {
            assert_eq!(case["program"], self.list[0]["program"]);
            let mut around: Vec<&str> = Vec::new();
            for part in reports[case["name"].as_str().unwrap()][0]["loops"].as_array().unwrap() {
                around.truncate(part["within"].as_array().unwrap().len());
                around.push(part["name"].as_str().unwrap());
                let counters: &[&str] =
                    if part["kind"] == "if" { &["then", "else"] } else { &["iterations"] };
                for &counter in counters {
                    let way = (part["index"].as_u64().unwrap(), format!("{}: {counter}", around.join(" / ")));
                    *ways.entry(way).or_default() += part[counter].as_u64().unwrap();
                }
            }
        }
        ways
    }

    /// Changes one bit of the first expected array of a case.
    pub fn spoil(&self, case: usize) {
        let path = self.directory.join(format!("{case}.expected0"));
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(path, bytes).unwrap();
    }
}

/// Returns the results of the built-in backend, and the number of their values. The results have the order and the
/// layout of the program's results.
fn expected(spec: &Spec, problem: &Problem) -> (Vec<Vec<u8>>, usize) {
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
        arrays.push(ints(&used_slots(spec, &answers.indices_k, max_k)));
        arrays.push(logits(&used_slots(spec, &answers.topk_logits_k, max_k)));
        arrays.push(ints(&used_slots(spec, &answers.weights_k, max_k)));
    }
    let slots = if wanted.slices { 3 * spec.slots() } else { 0 };
    let wide = spec.vocab * (usize::from(wanted.topk_logits) + usize::from(wanted.weights));
    (arrays, spec.batch * (RESULTS + slots + wide))
}

fn ints(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Returns the first slots of each row of a k-slice. The k-slice has `max_k` slots per row, but the program has only
/// these first slots.
fn used_slots<T: Copy>(spec: &Spec, slice: &[T], max_k: usize) -> Vec<T> {
    slice.chunks(max_k).flat_map(|row| row[..spec.slots()].to_vec()).collect()
}
