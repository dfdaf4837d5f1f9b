//! The GPU kernels in the interpreter. Every output array must be bit-identical to that of the built-in backend. The
//! interpreter runs every case with several schedules of the blocks, and ptxas assembles every kernel.

use std::path::PathBuf;

use crate::common::interpreter::{kinds_from, problem_of, spec, Cases, Checked, Device};
use crate::common::kernel_cases::Suite;
use crate::common::*;
use crate::ptxas;
use nucleus::dtype::Dtype;
use nucleus::kernels::{embed, emit, gpu, Column, Gpu, Path as Way, Spec, Target, COLUMNS, RESULTS};
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use nucleus::semantics::weights::MAX_WEIGHT;
use rand::prelude::*;

/// Lists of options of the interpreter. Each case runs once with each list.
pub(crate) const SCHEDULES: &[&[&str]] =
    &[&[], &["--schedule=random", "--seed=1"], &["--schedule=random", "--seed=2", "--garbage=large"]];

/// A model of GPUs, as a device of the interpreter.
pub(crate) struct Model(pub(crate) Gpu);

impl Device for Model {
    fn name(&self) -> String {
        self.0.name.to_owned()
    }

    fn program(&self, spec: &Spec) -> String {
        emit(spec, &Target::Gpu(self.0))
    }

    fn function(&self, spec: &Spec, name: &str) -> String {
        embed::emit(spec, &Target::Gpu(self.0), name)
    }

    fn supports(&self, spec: &Spec) -> bool {
        gpu::supports(spec)
    }

    fn check_kernels(&self, kernels: &[PathBuf]) {
        for used in ptxas::assemble(kernels) {
            assert_eq!(used.spilled_bytes, 0, "{used:?}");
        }
    }
}

/// The cases that all devices with kernels share.
fn suite() -> Suite<Model> {
    let Some(Target::Gpu(gpu)) = Target::named("h100") else { panic!("a GPU") };
    Suite {
        directory: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gpu"),
        devices: vec![Model(gpu)],
        options: SCHEDULES,
        vocab: 1000,
        long: &[20_000],
        thin: 7,
    }
}

crate::kernel_tests!(suite());

/// Interprets a program for a batch with every schedule, compares every result with that of the built-in backend, and
/// assembles the kernels. The error is the interpreter's output.
pub(crate) fn check(name: &str, spec: &Spec, program: &str, problem: &Problem) -> Result<Checked, String> {
    check_with(name, spec, program, problem, SCHEDULES)
}

/// Like [`check`], with other lists of options.
pub(crate) fn check_with(
    name: &str,
    spec: &Spec,
    program: &str,
    problem: &Problem,
    options: &[&[&str]],
) -> Result<Checked, String> {
    let mut cases = Cases::new(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gpu").join(name));
    cases.add_text(spec, program, problem);
    cases.run_all(options, |kernels| drop(ptxas::assemble(kernels)))
}

const ARGMAX: &str = include_str!("../interpreter/ptx/programs/argmax.ptx");
const BATCH: usize = 3;
const VOCAB: usize = 512;

/// Writes text as the contents of an MLIR string.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\5C").replace('"', "\\22").replace('\n', "\\0A")
}

/// Returns a program around a hand-written kernel, for rows with top-k = 1 and without NaNs. The token is the index of
/// the maximum. The only kept weight is that of the maximum, which is a power of two. So the remainder of the draw
/// consists of the last bits of the random number.
fn greedy_program(kernel: &str) -> String {
    let config = format!(
        "{{name = \"argmax\", kernel_type = \"ptx\", kernel_data = \"{}\", grid_x = {} : i32, grid_y = 1 : i32, \
         grid_z = 1 : i32, block_x = 128 : i32, block_y = 1 : i32, block_z = 1 : i32, shared_mem_bytes = 0 : i32}}",
        escaped(kernel),
        2 * BATCH
    );
    let word = Column::Word3 as usize;
    format!(
        r#"module @greedy {{
func.func public @main(%logits: tensor<3x512xf32>, %rows: tensor<3x{COLUMNS}xi32>) -> tensor<5x3xi32> {{
%zero = stablehlo.constant dense<0> : tensor<3xi32>
%k:3 = stablehlo.custom_call @__gpu$xla.gpu.ptx(%logits, %zero) {{api_version = 2 : i32, backend_config = "{}",
  output_operand_aliases = [#stablehlo.output_operand_alias<output_tuple_indices = [0], operand_index = 1,
  operand_tuple_indices = []>]}} : (tensor<3x512xf32>, tensor<3xi32>) -> (tensor<3xi32>, tensor<6xui64>, tensor<3xi32>)
%column = stablehlo.slice %rows [0:3, {word}:{}] : (tensor<3x{COLUMNS}xi32>) -> tensor<3x1xi32>
%random = stablehlo.reshape %column : (tensor<3x1xi32>) -> tensor<3xi32>
%bits = stablehlo.constant dense<{}> : tensor<3xi32>
%low = stablehlo.and %random, %bits : tensor<3xi32>
%t = stablehlo.reshape %k#2 : (tensor<3xi32>) -> tensor<1x3xi32>
%z = stablehlo.reshape %zero : (tensor<3xi32>) -> tensor<1x3xi32>
%l = stablehlo.reshape %low : (tensor<3xi32>) -> tensor<1x3xi32>
%all = stablehlo.concatenate %t, %t, %z, %l, %z, dim = 0 : (tensor<1x3xi32>, tensor<1x3xi32>, tensor<1x3xi32>,
  tensor<1x3xi32>, tensor<1x3xi32>) -> tensor<5x3xi32>
return %all : tensor<5x3xi32>
}}
}}
"#,
        escaped(&config),
        word + 1,
        MAX_WEIGHT - 1,
    )
}

fn greedy_problems() -> (Spec, Vec<Problem>) {
    let mut rng = StdRng::seed_from_u64(1);
    let spec = spec(Way::Arbitrary, BATCH, VOCAB, Dtype::F32, false);
    let batches = [
        [RowKind::Normal, RowKind::Peaked, RowKind::Constant],
        [RowKind::OneHot, RowKind::Ascending, RowKind::SourceWorstCase],
        [RowKind::Tied, RowKind::Descending, RowKind::Masked],
    ];
    let problems = batches.map(|kinds| {
        let mut problem = problem_of(&spec, kinds.to_vec(), &mut rng);
        for params in &mut problem.rows {
            *params = RowParams::new(1, 1.0, 0.0, 1.0, random_words(rng.random(), 1), VOCAB);
        }
        problem
    });
    (spec, problems.to_vec())
}

#[test]
fn a_hand_written_program_agrees() {
    let (spec, problems) = greedy_problems();
    for (number, problem) in problems.iter().enumerate() {
        let name = format!("greedy_{number}");
        let checked =
            check(&name, &spec, &greedy_program(ARGMAX), problem).unwrap_or_else(|said| panic!("{said}"));
        let runs = SCHEDULES.len();
        assert_eq!((checked.cases, checked.values), (runs, runs * RESULTS * BATCH));
    }
}

/// A planted mistake: if two logits of a thread are equal, the kernel selects the second one.
#[test]
fn a_planted_comparison_is_found() {
    let (right, wrong) = ("setp.gt.f32 %p1, %f2, %f1", "setp.ge.f32 %p1, %f2, %f1");
    assert!(ARGMAX.contains(right));
    let (spec, problems) = greedy_problems();
    let said = check("greedy_wrong", &spec, &greedy_program(&ARGMAX.replace(right, wrong)), &problems[0])
        .unwrap_err();
    assert!(said.contains(": 2 mismatches") && said.contains("output 0 at [0, 2]: got 0x00000001"), "{said}");
}

/// A planted mistake in a kernel of the library: an entry counts itself among the entries before it.
#[test]
fn a_planted_comparison_in_a_kernel_is_found() {
    let (right, wrong) = ("setp.lt.u64", "setp.le.u64");
    let spec = spec(Way::Bounded(64), 4, VOCAB, Dtype::F32, false);
    let program = suite().devices[0].program(&spec);
    assert!(program.contains(right));
    let problem = problem_of(&spec, vec![RowKind::Normal; 4], &mut StdRng::seed_from_u64(3));
    check("bounded", &spec, &program, &problem).unwrap_or_else(|said| panic!("{said}"));
    let said = check("bounded_wrong", &spec, &program.replace(right, wrong), &problem).unwrap_err();
    assert!(said.contains("mismatches"), "{said}");
}

/// Without the fence before the ticket, the block that finishes a row may read an old key of the other block.
#[test]
fn a_missing_fence_is_found() {
    let kernel = ARGMAX.lines().filter(|line| !line.ends_with("// release")).collect::<Vec<_>>().join("\n");
    let (spec, problems) = greedy_problems();
    let said = check("greedy_race", &spec, &greedy_program(&kernel), &problems[0]).unwrap_err();
    assert!(said.contains("races with a write by thread 0 of block") && said.contains("result 1"), "{said}");
}

/// Without the fences in the last kernel, the block of a row that ends last may read old sums of the other blocks.
#[test]
fn missing_fences_in_a_kernel_are_found() {
    const FENCE: &str = "fence.acq_rel.gpu;";
    let mut rng = StdRng::seed_from_u64(18);
    let spec = spec(Way::Arbitrary, 2, 20_001, Dtype::F32, false);
    let mut problem = problem_of(&spec, vec![RowKind::Normal; spec.batch], &mut rng);
    for params in &mut problem.rows {
        *params = RowParams::new(0, 0.9, 0.0, 1.0, random_words(rng.random(), 1), spec.vocab);
    }
    let program = suite().devices[0].program(&spec);
    assert_eq!(program.matches(FENCE).count(), 2);
    check("fences", &spec, &program, &problem).unwrap_or_else(|said| panic!("{said}"));
    for place in 0..2 {
        let mut parts: Vec<&str> = program.split_inclusive(FENCE).collect();
        parts[place] = parts[place].strip_suffix(FENCE).expect("a fence");
        let said = check("fences_wrong", &spec, &parts.concat(), &problem).unwrap_err();
        assert!(said.contains("races with a"), "{said}");
    }
}

/// On a GPU with one multiprocessor, a block of the arbitrary path processes several tiles of a row.
#[test]
fn slices_of_several_tiles() {
    let model = Model(Gpu { name: "small", multiprocessors: 1 });
    let mut rng = StdRng::seed_from_u64(5);
    let mut cases = Cases::new(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gpu/tiles"));
    for (number, stable) in [true, false, true].into_iter().enumerate() {
        let dtype = [Dtype::F32, Dtype::Bf16, Dtype::F16][number];
        let spec = Spec { stable, ..spec(Way::Arbitrary, 4, 20_001 - number, dtype, number == 0) };
        cases.add(&spec, &model, &problem_of(&spec, kinds_from(4 * number, 4), &mut rng));
    }
    cases.check_all(&SCHEDULES[..2], |kernels| model.check_kernels(kernels));
}

/// Greedy rows on the bounded path. If the caller cannot see which entries top-k keeps, the kernels find only the
/// maximum of the row. In the longest rows, the last slice has four logits.
#[test]
fn greedy_rows_of_the_bounded_path() {
    const LONG: usize = 12_292;
    let model = &suite().devices[0];
    let mut rng = StdRng::seed_from_u64(15);
    let mut cases = Cases::new(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gpu/maximum"));
    for (number, dtype) in [Dtype::F32, Dtype::Bf16, Dtype::F16].into_iter().enumerate() {
        let mut spec = spec(Way::Bounded(64), ROW_KINDS.len(), LONG - 4 * number, dtype, false);
        spec.wanted.weights = number == 1;
        let mut problem = problem_of(&spec, kinds_from(0, spec.batch), &mut rng);
        for (row, params) in problem.rows.iter_mut().enumerate() {
            // Every fourth row is drawn.
            let temperature = if row % 4 == number { 1.0 } else { 0.0 };
            let words = random_words(rng.random(), 1);
            *params = RowParams::new(1 + 9 * (row % 8) as i32, 0.9, 0.1, temperature, words, spec.vocab);
        }
        // In row 0, the maximum is the last logit. In row 1, two equal logits are the maximum.
        let mut bits = problem.bits.clone();
        let large = dtype.round(1000.0);
        bits[spec.vocab - 1] = large;
        for index in [5000, 9000] {
            bits[spec.vocab + index] = large;
        }
        problem.set_bits(bits);
        cases.add(&spec, model, &problem);
    }
    cases.check_all(SCHEDULES, |kernels| model.check_kernels(kernels));
}

/// Rows of consecutive floats. The bound of the list of a row is then an entry, and the first kept entry is next to it.
#[test]
fn bounds_that_are_entries() {
    const ENTRIES: usize = 127;
    let model = &suite().devices[0];
    let mut rng = StdRng::seed_from_u64(12);
    let mut cases = Cases::new(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gpu/bounds"));
    for stable in [true, false] {
        let spec = Spec { stable, ..spec(Way::Arbitrary, 32, ENTRIES, Dtype::F32, true) };
        let mut problem = problem_of(&spec, vec![RowKind::Normal; spec.batch], &mut rng);
        let mut bits = problem.bits.clone();
        for (row, logits) in bits.chunks_mut(ENTRIES).enumerate() {
            for (index, logit) in logits.iter_mut().enumerate() {
                let place = index * 50 % ENTRIES;
                // One logit is much larger than the others, so that the search begins with large steps.
                *logit =
                    if place == 0 { 100f32.to_bits() } else { 1f32.to_bits() + (1000 * row + place) as u32 };
            }
            let words = random_words(rng.random(), 1);
            problem.rows[row] = RowParams::new(56 + row as i32, 1.0, 0.0, 1.0, words, ENTRIES);
        }
        problem.set_bits(bits);
        cases.add(&spec, model, &problem);
    }
    cases.check_all(&SCHEDULES[..1], |kernels| model.check_kernels(kernels));
}

/// Two comparisons limit the number of entries that a search stores in shared memory and reads. If one comparison is
/// missing, the kernels store or read beyond the end of the array of these entries. This function checks that the
/// interpreter finds this error. It also checks that the interpreter finds a limit that is too large by one.
fn detects_wrong_limits(name: &str, spec: &Spec, program: &str, problem: &Problem, limit: i32) {
    let right = format!(", {limit};");
    for (comparison, limit) in
        [("setp.lt.s32", i32::MAX), ("setp.le.s32", i32::MAX), ("setp.le.s32", limit + 1)]
    {
        let mut wrong = String::new();
        for part in program.split_inclusive(';') {
            let is_check = part.contains(comparison) && part.ends_with(&right);
            wrong += &if is_check { part.replace(&right, &format!(", {limit};")) } else { part.to_owned() };
        }
        assert!(wrong != program, "{comparison}");
        let said = check(name, spec, &wrong, problem).unwrap_err();
        assert!(said.contains("mismatches") || said.contains("kernel nucleus_"), "{said}");
    }
}

/// Rows in which one bin of a search has many entries. The search can compare at most 31 entries with each other. The
/// bins have 30, 31, 32 or 40 entries. The threshold of top-p is among these entries. The kernels must detect that 32
/// and 40 entries are too many. In the last row, groups of three entries are equal, and top-k keeps only some of the
/// entries at its threshold.
#[test]
fn bins_with_many_entries() {
    const CLUSTERS: [usize; 5] = [40, 40, 31, 32, 30];
    let spec = spec(Way::Arbitrary, CLUSTERS.len(), 1000, Dtype::F32, true);
    let mut rng = StdRng::seed_from_u64(13);
    let mut problem = problem_of(&spec, vec![RowKind::Normal; spec.batch], &mut rng);
    let mut bits = problem.bits.clone();
    for (row, logits) in bits.chunks_mut(spec.vocab).enumerate() {
        let (cluster, has_ties) = (CLUSTERS[row], row == 4);
        for (index, logit) in logits.iter_mut().enumerate() {
            let value = match index {
                500 => 6.0,
                _ if index < cluster && has_ties => 5.0 + 1e-5 * (index / 3) as f32,
                _ if index < cluster => 5.0 + 1e-5 * (index * 17 % cluster) as f32,
                _ if has_ties => 2.9 - 0.07 * (index / 3) as f32,
                _ => rng.random_range(-20.0..3.0_f32),
            };
            *logit = value.to_bits();
        }
        let words = random_words(rng.random(), 1);
        let top_k = [100, 0, 100, 100, 101][row];
        problem.rows[row] = RowParams::new(top_k, 0.5, 0.0, 1.0, words, spec.vocab);
    }
    problem.set_bits(bits);
    let program = suite().devices[0].program(&spec);
    check("many", &spec, &program, &problem).unwrap_or_else(|said| panic!("{said}"));
    // With the limit 32, only the row with 32 entries is wrong.
    detects_wrong_limits("many_wrong", &spec, &program, &problem, 31);
}

/// The kernels compare at most 128 kept entries of the drawn chunk with each other. If there are more, they read the
/// chunk. On a GPU with one multiprocessor, the first 400 logits of a row are in one chunk. Here, top-k keeps up to 300
/// of these logits and no others.
#[test]
fn chunks_with_many_kept_entries() {
    const KEPT: [usize; 8] = [1, 15, 16, 126, 127, 128, 129, 300];
    let model = Model(Gpu { name: "small", multiprocessors: 1 });
    let spec = spec(Way::Arbitrary, KEPT.len(), 20_001, Dtype::F32, true);
    let mut rng = StdRng::seed_from_u64(17);
    let mut problem = problem_of(&spec, vec![RowKind::Normal; spec.batch], &mut rng);
    let mut bits = problem.bits.clone();
    for (row, logits) in bits.chunks_mut(spec.vocab).enumerate() {
        let mut order: Vec<usize> = (0..400).collect();
        order.shuffle(&mut rng);
        order.truncate(KEPT[row]);
        for (index, logit) in logits.iter_mut().enumerate() {
            let range = if order.contains(&index) { 6.0..7.0 } else { -4.0..-0.1_f32 };
            *logit = rng.random_range(range).to_bits();
        }
        let words = random_words(rng.random(), 1);
        problem.rows[row] = RowParams::new(KEPT[row] as i32, 1.0, 0.0, 1.0, words, spec.vocab);
    }
    problem.set_bits(bits);
    let program = model.program(&spec);
    let checked = check("drawn", &spec, &program, &problem).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(checked.cases, SCHEDULES.len());
    detects_wrong_limits("drawn_wrong", &spec, &program, &problem, 128);
}

/// The number of logits of the rows with ties. The bound of their lists is below the ties, so the lists contain the
/// ties.
const TIED: usize = 20_001;

/// Returns rows in which many logits are equal to the k-th one. Top-k keeps all but some of the last ones.
fn tied_rows(spec: &Spec, rng: &mut StdRng) -> Problem {
    const ABOVE: usize = 50;
    let mut problem = problem_of(spec, vec![RowKind::Normal; spec.batch], rng);
    let mut bits = problem.bits.clone();
    for (row, logits) in bits.chunks_mut(TIED).enumerate() {
        // The histogram of a list cannot count 4096 entries in one bin.
        let ties = [16, 40, 300, 5000][row % 4];
        let (is_spread, has_wide_range) = (row / 4 % 2 == 0, row >= 8);
        // The order of the indices that are not ties is random, and so is the order of all indices if the ties are
        // spread. Otherwise, the ties are adjacent.
        let mut order: Vec<usize> = (0..TIED).collect();
        order.shuffle(rng);
        if !is_spread {
            let start = rng.random_range(0..TIED - ties);
            order.retain(|index| !(start..start + ties).contains(index));
            order.splice(ABOVE..ABOVE, start..start + ties);
        }
        for (place, &index) in order.iter().enumerate() {
            let value: f32 = match place {
                // Here, the keys have many different exponents and signs. So a search needs several steps.
                _ if place < ABOVE && has_wide_range => 0.7_f32.powi(place as i32 - 10),
                _ if place < ABOVE + ties && has_wide_range => 0.0,
                _ if place < ABOVE => rng.random_range(4.0..7.0),
                _ if place < ABOVE + ties => 3.0,
                _ => rng.random_range(-4.0..-0.1),
            };
            logits[index] = spec.dtype.round(value);
        }
        let words = random_words(rng.random(), 1);
        let top_k = ABOVE + ties - ties.div_ceil(20);
        problem.rows[row] =
            RowParams::new(top_k as i32, [0.9, 0.99, 1.0][row % 3], 0.0, 1.0, words, spec.vocab);
    }
    problem.set_bits(bits);
    problem
}

#[test]
fn ties_at_the_last_place_of_top_k() {
    let model = &suite().devices[0];
    let mut rng = StdRng::seed_from_u64(16);
    let mut cases = Cases::new(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gpu/ties"));
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
        for stable in [true, false] {
            let spec = Spec { stable, ..spec(Way::Arbitrary, 12, TIED, dtype, stable) };
            cases.add(&spec, model, &tied_rows(&spec, &mut rng));
        }
    }
    cases.check_all(&SCHEDULES[..1], |kernels| model.check_kernels(kernels));
}

/// The shape of the rows whose lists are wrong.
const MISLED: usize = 30_001;

/// Returns rows for which the lists of the arbitrary path have too few or too many entries. So the kernels must select
/// from the whole row.
fn misleading_rows(spec: &Spec) -> Problem {
    let mut rng = StdRng::seed_from_u64(11);
    let mut problem = problem_of(spec, vec![RowKind::Normal; spec.batch], &mut rng);
    let mut is_sampled = vec![false; MISLED];
    gpu::sampled_indices(spec).into_iter().for_each(|index| is_sampled[index] = true);
    let mut bits = problem.bits.clone();
    for (row, logits) in bits.chunks_mut(MISLED).enumerate() {
        for (index, logit) in logits.iter_mut().enumerate() {
            let value: f32 = rng.random_range(0.0..1.0);
            *logit = spec.dtype.round(match row {
                // The sample contains only small values, so the list of the row is too long.
                0 | 1 => value + if is_sampled[index] { 0.0 } else { 5.0 },
                // The sample contains only large values, so the list is too short.
                2 => value + if is_sampled[index] { 5.0 } else { 0.0 },
                // Many weights are equal to the threshold of top-p, so the second pass collects too many.
                3 if index % 10 == 0 => 3.0 + value,
                3 if index % 10 < 7 => 2.5 + 0.0001 * (index % 2) as f32,
                3 => -value,
                // Here, all weights that the second pass collects are equal.
                4 if index % 10 == 0 => 3.0 + value,
                4 if index % 10 < 7 => 2.5,
                4 => -value,
                // k exceeds the capacity of the lists.
                _ => 3.0 * value,
            });
        }
        let (k, p) = [(0, 0.9), (3000, 0.9), (6000, 0.8), (0, 0.5), (0, 0.5), (28_000, 0.7)][row];
        problem.rows[row] = RowParams::new(k, p, 0.0, 0.9, random_words(rng.random(), 1), MISLED);
    }
    problem.set_bits(bits);
    problem
}

/// The bounds from the samples of random rows give lists that are neither too short nor too long. In this program, the
/// last kernel does not select the entries from the whole row. So the results of a row with a wrong bound are wrong.
#[test]
fn bounds_of_random_rows() {
    let spec = spec(Way::Arbitrary, 6, MISLED, Dtype::F32, true);
    let program = suite().devices[0].program(&spec);
    // 2 is the state of a row whose list is too short or too long.
    let parts: Vec<&str> = program.split_inclusive(';').collect();
    let is_failed = |part: &str| part.contains("setp.eq.s32") && part.ends_with(", 2;");
    assert_eq!(parts.iter().filter(|part| is_failed(part)).count(), 1);
    let without =
        |part: &&str| if is_failed(part) { part.replace(", 2;", ", 3;") } else { (*part).to_owned() };
    let program: String = parts.iter().map(without).collect();
    let said = check("bounds_wrong", &spec, &program, &misleading_rows(&spec)).unwrap_err();
    assert!(said.contains("mismatches"), "{said}");

    let mut rng = StdRng::seed_from_u64(14);
    let mut problem = problem_of(&spec, vec![RowKind::Normal; spec.batch], &mut rng);
    for (row, (k, p)) in
        [(0, 0.9), (0, 0.3), (50, 0.9), (1000, 0.9), (3000, 0.95), (6000, 0.8)].into_iter().enumerate()
    {
        problem.rows[row] = RowParams::new(k, p, 0.0, 0.9, random_words(rng.random(), 1), MISLED);
    }
    check("bounds_random", &spec, &program, &problem).unwrap_or_else(|said| panic!("{said}"));
}

#[test]
fn misleading_samples() {
    let spec = spec(Way::Arbitrary, 6, MISLED, Dtype::F32, true);
    let problem = misleading_rows(&spec);
    let program = suite().devices[0].program(&spec);
    check("misled", &spec, &program, &problem).unwrap_or_else(|said| panic!("{said}"));
    // The kernels compare the length of each list with its capacity. Without this comparison, they would use a list
    // that is too long.
    const COMPARISON: &str = "setp.lt.s32 ";
    for capacity in [24 * 1024, 4 * 1024] {
        let check_of = format!(", {capacity}, %r");
        let without_check = |part: &str| match part.split_once(';') {
            Some((operands, _)) if operands.contains(&check_of) => {
                part.replacen(&check_of, &format!(", {}, %r", i32::MAX), 1)
            }
            _ => part.to_owned(),
        };
        let parts: Vec<String> = program.split(COMPARISON).map(without_check).collect();
        let wrong = parts.join(COMPARISON);
        assert!(wrong != program, "the check of {capacity} entries");
        // The kernel reads beyond the end of the list, or the results are wrong.
        let said = check("misled_wrong", &spec, &wrong, &problem).unwrap_err();
        assert!(said.contains("mismatches") || said.contains("kernel nucleus_"), "{said}");
    }
}
