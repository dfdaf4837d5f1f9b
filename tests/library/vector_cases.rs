//! The inputs of the shared test vectors. Every number is computed with exact arithmetic, so that each machine makes
//! the same files.

use nucleus::dtype::Dtype;
use nucleus::plan::Entry;
use nucleus::semantics::philox::random_words;

use crate::common::vectors::{dtype_word, Case};
use crate::common::Answers;

/// A file of tests/vectors.
pub(crate) struct Group {
    pub(crate) file: &'static str,
    pub(crate) comment: &'static str,
    pub(crate) cases: Vec<Case>,
}

/// All files. The results of the cases are empty.
pub(crate) fn groups() -> Vec<Group> {
    const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];
    let group = |file, comment, make: fn(Dtype) -> Vec<Case>| {
        let mut cases: Vec<Case> = DTYPES.into_iter().flat_map(make).collect();
        cases.iter_mut().for_each(|case| {
            let name = format!("{}_{}_{}", file, case.name, dtype_word(case.dtype));
            case.name = name;
        });
        Group { file, comment, cases }
    };
    vec![
        group("greedy", "Temperatures below 1e-5, and ties at the maximum.", greedy),
        group("top_k", "Top-k: every k, ties at the threshold, fewer than k candidates.", top_k),
        group("top_p", "Top-p: shares that are powers of two, limits, ties at the threshold.", top_p),
        group("min_p", "Min-p, alone and with top-k and top-p.", min_p),
        group("temperature", "Temperatures from the smallest to the largest.", temperature),
        group(
            "special_values",
            "NaN, infinities, -0, subnormals, and rows without a candidate.",
            special_values,
        ),
        group("bad_parameters", "Rows with impossible parameters between other rows.", bad_parameters),
        group("random", "Seeds, offsets and explicit random words.", random),
        group("bounded", "The bounded path, with k-slices.", bounded),
        group("mixed", "Batches of 1 to 8 rows whose rows need different paths, and defaults.", mixed),
    ]
}

/// A sequence of random numbers that is the same on every machine.
struct Numbers {
    seed: u64,
    count: u64,
}

impl Numbers {
    fn new(seed: u64) -> Numbers {
        Numbers { seed, count: 0 }
    }

    fn next(&mut self) -> u32 {
        self.count += 1;
        random_words(self.seed, self.count)[0]
    }

    fn below(&mut self, limit: usize) -> usize {
        ((u64::from(self.next()) * limit as u64) >> 32) as usize
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// Logits between -8 and 8, in steps of 1/256.
fn spread(vocab: usize, seed: u64) -> Vec<f32> {
    let mut numbers = Numbers::new(seed);
    (0..vocab).map(|_| numbers.below(4096) as f32 / 256.0 - 8.0).collect()
}

/// Logits with four different values.
fn tied(vocab: usize, seed: u64) -> Vec<f32> {
    let mut numbers = Numbers::new(seed);
    (0..vocab).map(|_| numbers.below(4) as f32 - 1.0).collect()
}

/// Logits in a random order. At the temperature log2(e), their probabilities are exactly 1/2, 1/4, 1/8, and so on. The
/// last probability occurs twice.
fn halves(vocab: usize, seed: u64) -> Vec<f32> {
    let mut numbers = Numbers::new(seed);
    let mut row: Vec<f32> = (0..vocab).map(|i| -(i.min(vocab - 2) as f32)).collect();
    (1..vocab).rev().for_each(|i| row.swap(i, numbers.below(i + 1)));
    row
}

fn rows(count: usize, vocab: usize, first_seed: u64, make: fn(usize, u64) -> Vec<f32>) -> Vec<Vec<f32>> {
    (0..count as u64).map(|row| make(vocab, first_seed + row)).collect()
}

/// A case in which every argument has its default and the rows have different seeds.
fn case(name: &str, dtype: Dtype, rows: &[Vec<f32>]) -> Case {
    let bits: Vec<Vec<u32>> = rows.iter().map(|row| row.iter().map(|&x| dtype.round(x)).collect()).collect();
    case_of_bits(name, dtype, &bits)
}

fn case_of_bits(name: &str, dtype: Dtype, rows: &[Vec<u32>]) -> Case {
    Case {
        name: name.to_owned(),
        dtype,
        path: Entry::Automatic,
        num_rows: rows.len(),
        vocab: rows[0].len(),
        max_k: 8,
        keep_ties: false,
        replace_val: (-1e12f32).to_bits(),
        logits: rows.concat(),
        top_k: None,
        top_p: None,
        min_p: None,
        temperature: None,
        seed: Some(
            (0..rows.len() as u64).map(|row| 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(row + 1)).collect(),
        ),
        offset: None,
        random_words: None,
        expected: Answers::default(),
    }
}

fn bits(floats: &[f32]) -> Option<Vec<u32>> {
    Some(floats.iter().map(|float| float.to_bits()).collect())
}

/// The lowest temperature at which a row is sampled. At a lower temperature, a row is greedy.
const LEAST: f32 = 1e-5;
/// At this temperature, a logit that is smaller by 1 has half the weight.
const OCTAVE: f32 = std::f32::consts::LOG2_E;

fn greedy(dtype: Dtype) -> Vec<Case> {
    let mut logits = rows(8, 16, 100, spread);
    logits[1] = tied(16, 101);
    logits[2] = vec![3.0; 16];
    logits[3][15] = 100.0;
    logits[4][0] = 100.0;
    let temperature = bits(&[0.0, 0.0, 0.0, -0.0, 1e-30, LEAST.next_down(), f32::from_bits(1), 0.0]);
    let plain = Case { temperature: temperature.clone(), ..case("plain", dtype, &logits) };
    let filtered = Case {
        temperature,
        top_k: Some(vec![0, 1, 3, 16, 5, 0, 15, -1]),
        top_p: bits(&[0.5, 0.0, 1.0, 0.9, 1e-30, 0.3, 2.0, 0.99]),
        min_p: bits(&[0.0, 0.1, 1.0, 0.0, 0.5, 2.0, 0.0, 0.01]),
        ..case("filtered", dtype, &logits)
    };
    vec![plain, filtered]
}

fn top_k(dtype: Dtype) -> Vec<Case> {
    let mut cases = Vec::new();
    for (keep_ties, suffix) in [(false, ""), (true, "_keep_ties")] {
        let with = |name: &str, rows: &[Vec<f32>], top_k: [i32; 8]| Case {
            top_k: Some(top_k.to_vec()),
            keep_ties,
            ..case(&format!("{name}{suffix}"), dtype, rows)
        };
        cases.push(with("small", &rows(8, 16, 200, tied), [1, 2, 3, 4, 5, 7, 8, 6]));
        let large = [9, 15, 16, 17, 0, -1, i32::MIN, i32::MAX];
        cases.push(with("large_or_off", &rows(8, 16, 210, tied), large));
        // Rows with few finite entries: top-k also keeps entries of -inf.
        let mut masked = rows(8, 16, 220, spread);
        for (row, logits) in masked.iter_mut().enumerate() {
            (0..16).filter(|i| (i + row) % 5 != 0).for_each(|i| logits[i] = f32::NEG_INFINITY);
        }
        cases.push(with("masked", &masked, [1, 2, 3, 4, 5, 8, 12, 0]));
    }
    cases.push(Case {
        path: Entry::Arbitrary,
        top_k: Some(vec![1, 8, 40, 63, 64, 2, 9, 33]),
        ..case("arbitrary", dtype, &rows(8, 64, 230, spread))
    });
    cases
}

fn top_p(dtype: Dtype) -> Vec<Case> {
    let around = |p: f32| [p.next_down(), p, p.next_up()];
    let [below_half, half, above_half] = around(0.5);
    let [below_quarters, quarters, above_quarters] = around(0.75);
    let shares = Case {
        top_p: bits(&[below_half, half, above_half, below_quarters, quarters, above_quarters, 0.875, 0.25]),
        temperature: bits(&[OCTAVE; 8]),
        ..case("shares", dtype, &rows(8, 16, 300, halves))
    };
    // With top-k, p is a fraction of the weight that top-k kept.
    let shares_of_top_k = Case {
        name: "shares_of_top_k".to_owned(),
        top_k: Some(vec![1, 2, 3, 2, 4, 2, 3, 5]),
        ..shares.clone()
    };
    let limits = Case {
        top_p: bits(&[0.0, -0.0, -1.0, f32::from_bits(1), 1.0f32.next_down(), 1.0, 2.0, 1e-30]),
        ..case("limits", dtype, &rows(8, 16, 310, spread))
    };
    let infinite = Case {
        top_p: bits(&[f32::INFINITY, f32::NEG_INFINITY]),
        ..case("infinite", dtype, &rows(2, 16, 320, spread))
    };
    let ties = Case {
        top_p: bits(&[0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.0, 1e-9]),
        ..case("ties", dtype, &rows(8, 16, 330, tied))
    };
    let long = Case {
        top_p: bits(&[0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 0.999]),
        temperature: bits(&[0.5, 1.0, 2.0, 4.0, 0.5, 1.0, 2.0, 4.0]),
        ..case("long", dtype, &rows(8, 64, 340, spread))
    };
    vec![shares, shares_of_top_k, limits, infinite, ties, long]
}

fn min_p(dtype: Dtype) -> Vec<Case> {
    let shares = Case {
        min_p: bits(&[
            0.5,
            0.5f32.next_up(),
            0.5f32.next_down(),
            0.25,
            1.0,
            1.0f32.next_down(),
            2.0,
            f32::INFINITY,
        ]),
        temperature: bits(&[OCTAVE; 8]),
        ..case("shares", dtype, &rows(8, 16, 400, halves))
    };
    let limits = Case {
        min_p: bits(&[0.0, -0.0, -1.0, f32::from_bits(1), 1e-9, 3.7e-9, 0.05, f32::NEG_INFINITY]),
        ..case("limits", dtype, &rows(8, 16, 410, spread))
    };
    let combined = Case {
        min_p: bits(&[0.1, 0.01, 0.001, 0.2, 0.5, 0.1, 0.05, 0.9]),
        top_k: Some(vec![0, 4, 8, 12, 3, 0, 5, 16]),
        top_p: bits(&[0.9, 0.95, 1.0, 0.5, 0.99, 0.7, 0.8, 0.9]),
        temperature: bits(&[1.0, 2.0, 3.0, 4.0, 1.5, 2.5, 3.5, 8.0]),
        ..case("combined", dtype, &rows(8, 16, 420, spread))
    };
    vec![shares, limits, combined]
}

fn temperature(dtype: Dtype) -> Vec<Case> {
    let rows = rows(8, 16, 500, spread);
    let usual = Case {
        temperature: bits(&[0.1, 0.3, 0.7, 1.0, 1.3, 2.0, 10.0, 100.0]),
        ..case("usual", dtype, &rows)
    };
    let limits = [LEAST, LEAST.next_down(), LEAST.next_up(), 1e-4, 1e6, 1e30, 1e37, f32::MAX];
    let limits = Case { temperature: bits(&limits), ..case("limits", dtype, &rows) };
    // A logit that is about 29 octaves below the maximum has the weight 0.
    let mut octaves: Vec<Vec<f32>> = vec![(0..16).map(|i| -20.0 - i as f32).collect(); 2];
    octaves.iter_mut().for_each(|row| row[8] = 0.0);
    octaves[1].iter_mut().for_each(|x| *x *= 2.0);
    let octaves = Case { temperature: bits(&[OCTAVE, 2.0 * OCTAVE]), ..case("octaves", dtype, &octaves) };
    vec![usual, limits, octaves]
}

/// Rows of special values, as bits of the type.
fn special_rows(dtype: Dtype, vocab: usize) -> Vec<Vec<u32>> {
    let (sign, infinity, quiet): (u32, u32, u32) = match dtype {
        Dtype::F32 => (0x8000_0000, 0x7f80_0000, 0x0040_0000),
        Dtype::Bf16 => (0x8000, 0x7f80, 0x0040),
        Dtype::F16 => (0x8000, 0x7c00, 0x0200),
    };
    let (negative, quiet_nan, signalling_nan, largest) =
        (sign | infinity, infinity | quiet, infinity | 1, infinity - 1);
    let base = |seed: u64| -> Vec<u32> { spread(vocab, seed).into_iter().map(|x| dtype.round(x)).collect() };
    let put = |seed: u64, special: &[u32]| -> Vec<u32> {
        let (mut row, mut numbers) = (base(seed), Numbers::new(seed + 50));
        special.iter().for_each(|&value| row[numbers.below(vocab)] = value);
        row
    };
    let cycle = |values: &[u32]| -> Vec<u32> { (0..vocab).map(|i| values[i % values.len()]).collect() };
    vec![
        put(600, &[quiet_nan, signalling_nan, sign | quiet_nan, sign | signalling_nan]),
        put(601, &[infinity, infinity, largest, negative]),
        put(602, &[infinity, quiet_nan, negative]),
        put(603, &[negative; 7]),
        vec![negative; vocab],
        vec![quiet_nan; vocab],
        cycle(&[negative, sign | signalling_nan, negative]),
        vec![infinity; vocab],
        cycle(&[sign, 0, sign, dtype.round(-1.0)]),
        // Subnormals, and the smallest normal number. The subnormals of f16 are normal in f32.
        cycle(&[1, sign | 1, quiet, sign | quiet, 2 * quiet - 1, 2 * quiet, sign | (2 * quiet), 0]),
        cycle(&[largest, largest - 1, sign | largest]),
        vec![sign | largest; vocab],
        (0..vocab).map(|i| if i == vocab - 2 { sign | largest } else { negative }).collect(),
        vec![dtype.round(1.5); vocab],
        (0..vocab).map(|i| dtype.round(i as f32 / 4.0)).collect(),
        (0..vocab).map(|i| dtype.round(-(i as f32) / 4.0)).collect(),
    ]
}

fn special_values(dtype: Dtype) -> Vec<Case> {
    let all = special_rows(dtype, 16);
    let mut cases = Vec::new();
    for (half, rows) in all.chunks(8).enumerate() {
        let plain = case_of_bits(&format!("plain_{half}"), dtype, rows);
        cases.push(Case {
            name: format!("greedy_{half}"),
            temperature: bits(&[0.0; 8]),
            replace_val: f32::INFINITY.to_bits(),
            ..plain.clone()
        });
        cases.push(Case {
            name: format!("filtered_{half}"),
            top_k: Some(vec![5, 3, 12, 8, 4, 9, 15, 2]),
            top_p: bits(&[0.9, 0.5, 0.99, 0.8, 0.9, 0.0, 0.7, 0.3]),
            min_p: bits(&[0.01, 0.0, 0.1, 0.0, 0.5, 0.0, 0.2, 0.0]),
            temperature: bits(&[1.0, 2.0, 0.5, 30.0, 1.0, 0.1, 1.0, 1e20]),
            replace_val: f32::NEG_INFINITY.to_bits(),
            ..plain.clone()
        });
        cases.push(plain);
    }
    cases
}

fn bad_parameters(dtype: Dtype) -> Vec<Case> {
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    let temperature = Case {
        temperature: bits(&[
            1.0,
            nan,
            -1.0,
            infinity,
            -infinity,
            -f32::from_bits(1),
            0.0,
            f32::from_bits(0xffc0_0001),
        ]),
        ..case("temperature", dtype, &rows(8, 16, 700, spread))
    };
    let mut logits = rows(8, 16, 710, spread);
    // No other bit is set in the status of such a row.
    logits[1][3] = nan;
    logits[4] = vec![f32::NEG_INFINITY; 16];
    let shares = Case {
        top_k: Some(vec![3, 3, 0, 20, 1, 9, 5, 2]),
        top_p: bits(&[0.5, nan, 0.9, 1.0, nan, 0.9, 0.0, 1.0]),
        min_p: bits(&[0.1, 0.0, nan, 0.0, nan, 2.0, 0.0, f32::from_bits(0xff80_0001)]),
        replace_val: 7.25f32.to_bits(),
        ..case("top_p_and_min_p", dtype, &logits)
    };
    let bounded = Case {
        path: Entry::Bounded,
        top_k: Some(vec![8, 9, 0, -1, 16, 1, i32::MAX, 3]),
        temperature: bits(&[1.0, 1.0, 0.0, 1.0, 0.0, nan, nan, 1.0]),
        replace_val: 0.0f32.to_bits(),
        ..case("bounded", dtype, &rows(8, 16, 720, spread))
    };
    let every_row =
        Case { temperature: bits(&[-2.0, nan]), ..case("every_row", dtype, &rows(2, 16, 730, spread)) };
    vec![temperature, shares, bounded, every_row]
}

fn random(dtype: Dtype) -> Vec<Case> {
    let logits = rows(8, 16, 800, spread);
    let large = 0xfedc_ba98_7654_3210u64;
    let seeds = Case {
        seed: Some(vec![0, 1, u64::MAX, 1 << 63, 1 << 32, large, u64::from(u32::MAX), 2]),
        offset: Some(vec![0, 0, u64::MAX, 1 << 32, 1 << 63, large, 7, u64::MAX - 1]),
        ..case("seed_and_offset", dtype, &logits)
    };
    let only_seed = case("only_seed", dtype, &logits[..2]);
    let only_offset =
        Case { seed: None, offset: Some(vec![3, u64::MAX]), ..case("only_offset", dtype, &logits[..2]) };
    let neither = Case { seed: None, ..case("neither", dtype, &logits[..2]) };
    let words = Case {
        seed: None,
        random_words: Some(
            [
                [0; 4],
                [u32::MAX; 4],
                [0, 0, 0, 1],
                [1, 0, 0, 0],
                [0x8000_0000, 0, 0, 0],
                [0, 0, 0, u32::MAX],
                [0, 0, u32::MAX, 0],
                [0x0123_4567, 0x89ab_cdef, 0xfedc_ba98, 0x7654_3210],
            ]
            .concat(),
        ),
        ..case("words", dtype, &logits)
    };
    // Each of the 16 weights is 2^28, so the total is 2^32 and r is the last word.
    let flat = Case {
        seed: None,
        random_words: Some(
            [
                [0, 0, 0, 0],
                [0, 0, 0, 0x0fff_ffff],
                [0, 0, 0, 0x1000_0000],
                [0, 0, 0, 0xefff_ffff],
                [0, 0, 0, 0xf000_0000],
                [0, 0, 0, 0xffff_ffff],
                [0, 0, 1, 0],
                [5, 6, 7, 0x7fff_ffff],
            ]
            .concat(),
        ),
        ..case("flat", dtype, &vec![vec![0.5; 16]; 8])
    };
    vec![seeds, only_seed, only_offset, neither, words, flat]
}

fn bounded(dtype: Dtype) -> Vec<Case> {
    let each = |keep_ties, name: &str| Case {
        path: Entry::Bounded,
        keep_ties,
        top_k: Some(vec![1, 2, 3, 4, 5, 6, 7, 8]),
        top_p: bits(&[1.0, 0.5, 0.9, 0.99, 0.3, 1.0, 0.0, 0.95]),
        temperature: bits(&[1.0, 1.0, 0.7, 2.0, 0.0, 10.0, 1.0, 1.3]),
        ..case(name, dtype, &rows(8, 16, 900, tied))
    };
    let long = Case {
        path: Entry::Bounded,
        top_k: Some(vec![8, 1, 5, 3]),
        min_p: bits(&[0.0, 0.0, 0.2, 0.01]),
        temperature: bits(&[1.0, 1.0, 3.0, 0.5]),
        ..case("long", dtype, &rows(4, 300, 910, spread))
    };
    let special = Case {
        path: Entry::Bounded,
        top_k: Some(vec![3, 8, 1, 8, 5, 2, 8, 4]),
        replace_val: (-2.5f32).to_bits(),
        ..case_of_bits("special_values", dtype, &special_rows(dtype, 16)[..8])
    };
    // Every k is allowed if the row fits into the slots.
    let short = Case {
        path: Entry::Bounded,
        top_k: Some(vec![0, 1, 3, 5, 6, -1, 100, 4]),
        ..case("short", dtype, &rows(8, 5, 920, spread))
    };
    let default_slots = Case {
        path: Entry::Bounded,
        max_k: 128,
        top_k: Some(vec![0, 50]),
        top_p: bits(&[0.9, 1.0]),
        ..case("default_max_k", dtype, &rows(2, 64, 930, spread))
    };
    vec![each(false, "each_k"), each(true, "each_k_keep_ties"), long, special, short, default_slots]
}

fn mixed(dtype: Dtype) -> Vec<Case> {
    let mut cases = Vec::new();
    let shapes = [(1, 64), (2, 33), (3, 33), (4, 300), (5, 33), (6, 33), (7, 33), (8, 64)];
    let replace = [-1e12f32, f32::NEG_INFINITY, 0.0, -0.0, 1e-40, 3.402_823e38, 1.000_123_4, -65520.0];
    for (number, (count, vocab)) in shapes.into_iter().enumerate() {
        let mut numbers = Numbers::new(1000 + number as u64);
        let mut pick = |list: &[f32]| -> Option<Vec<u32>> {
            Some((0..count).map(|_| numbers.pick(list).to_bits()).collect())
        };
        let case = Case {
            top_p: pick(&[1.0, 0.9, 0.95, 0.5, 0.1]),
            min_p: pick(&[0.0, 0.0, 0.0, 0.05, 0.3]),
            temperature: pick(&[0.0, 0.5, 1.0, 1.0, 1.7]),
            top_k: Some(
                (0..count).map(|row| [1, 0, 5, 40, 8, 9, vocab as i32 - 1, 2][(row + number) % 8]).collect(),
            ),
            offset: Some((0..count as u64).map(|row| row * 1000 + number as u64).collect()),
            replace_val: replace[number % replace.len()].to_bits(),
            keep_ties: number == 4,
            ..case(&format!("{count}x{vocab}"), dtype, &rows(count, vocab, 1100 + 10 * number as u64, spread))
        };
        cases.push(case);
    }
    cases.push(Case { seed: None, ..case("defaults", dtype, &rows(2, 16, 1300, spread)) });
    cases.push(Case {
        top_k: Some(vec![0, 1, 2]),
        top_p: bits(&[0.0, 1.0, 0.5]),
        ..case("vocab_1", dtype, &[vec![2.0], vec![f32::NEG_INFINITY], vec![f32::NAN]])
    });
    cases.push(Case { top_k: Some(vec![1, 2, 0]), ..case("vocab_2", dtype, &rows(3, 2, 1310, tied)) });
    cases.push(Case {
        path: Entry::Arbitrary,
        top_k: Some(vec![100, 0]),
        top_p: bits(&[0.9, 0.5]),
        ..case("arbitrary_2x300", dtype, &rows(2, 300, 1320, spread))
    });
    cases
}
