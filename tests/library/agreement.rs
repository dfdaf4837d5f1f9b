//! Every output array of every backend against the sorted reference, bit for bit.

use crate::common::*;
use nucleus::dtype::Dtype;
use nucleus::plan::Entry;
use nucleus::sampler::Sampler;
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use rand::prelude::*;

fn agrees_with_the_reference(sampler: &Sampler, seed: u64) {
    let reference = builtin(0);
    let mut rng = StdRng::seed_from_u64(seed);
    for shape in shapes() {
        let problem = shape.problem(&mut rng);
        let want = sample(&reference, Entry::Reference, &problem, shape.ask);
        let got = sample(sampler, shape.entry, &problem, shape.ask);
        assert_same(&problem, &got, &want, &format!("{shape:?}"));
    }
}

/// The product of every k, p, temperature and min-p with every class of row, on a short row; `every` thins it.
fn agrees_on_the_product(sampler: &Sampler, dtype: Dtype, every: usize) {
    const VOCAB: usize = 129;
    let reference = builtin(0);
    let mut rng = StdRng::seed_from_u64(3);
    let mut kinds = Vec::new();
    let mut rows = Vec::new();
    let mut count = 0;
    for kind in ROW_KINDS {
        for k in top_k_values(VOCAB) {
            for p in TOP_P {
                for temperature in TEMPERATURE {
                    for min_p in MIN_P {
                        count += 1;
                        if count % every == 0 {
                            let words = random_words(count as u64, rng.random());
                            kinds.push(kind);
                            rows.push(RowParams::new(k, p, min_p, temperature, words, VOCAB));
                        }
                    }
                }
            }
        }
    }
    for (kinds, rows) in kinds.chunks(128).zip(rows.chunks(128)) {
        let problem = Problem::new(dtype, VOCAB, kinds.to_vec(), rows.to_vec(), &mut rng);
        let want = sample(&reference, Entry::Reference, &problem, FULL_WIDTH);
        assert_same(&problem, &sample(sampler, Entry::Automatic, &problem, FULL_WIDTH), &want, "automatic");
        assert_same(&problem, &sample(sampler, Entry::Arbitrary, &problem, FULL_WIDTH), &want, "arbitrary");
    }
}

/// A row's answers do not depend on the batch it rides in, nor on its place there.
fn is_batch_invariant(sampler: &Sampler) {
    let mut rng = StdRng::seed_from_u64(11);
    let many = Problem::random(Dtype::F32, 128, 1000, None, &mut rng);
    let together = sample(sampler, Entry::Automatic, &many, FULL_WIDTH);
    for row in [0, 1, 63, 64, 100, 127] {
        let bits = many.bits[row * 1000..(row + 1) * 1000].to_vec();
        let mut alone = many.clone();
        (alone.rows, alone.kinds) = (vec![many.rows[row]], vec![many.kinds[row]]);
        alone.set_bits(bits.clone());
        let answers = sample(sampler, Entry::Automatic, &alone, FULL_WIDTH);
        assert_eq!(answers.tokens[0], together.tokens[row]);
        assert_eq!(answers.topk_logits, together.topk_logits[row * 1000..(row + 1) * 1000]);
        assert_eq!(answers.weights, together.weights[row * 1000..(row + 1) * 1000]);
        assert_eq!(answers.random_low[0], together.random_low[row]);

        let place = rng.random_range(0..128);
        let mut moved = many.clone();
        let mut all = many.bits.clone();
        all[place * 1000..(place + 1) * 1000].copy_from_slice(&bits);
        moved.rows[place] = many.rows[row];
        moved.set_bits(all);
        let answers = sample(sampler, Entry::Automatic, &moved, FULL_WIDTH);
        assert_eq!(answers.tokens[place], together.tokens[row]);
        assert_eq!(
            answers.weights[place * 1000..(place + 1) * 1000],
            together.weights[row * 1000..(row + 1) * 1000]
        );
    }
}

/// Rows further apart than they are long, with NaN between them, give what dense rows give.
fn ignores_what_lies_between_rows(sampler: &Sampler) {
    let mut rng = StdRng::seed_from_u64(12);
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let dense = Problem::random(dtype, 5, 129, None, &mut rng);
        let want = sample(sampler, Entry::Automatic, &dense, FULL_WIDTH);
        let mut strided = dense.clone();
        strided.row_stride = 150;
        let mut bits = vec![dtype.round(f32::NAN); 4 * 150 + 129];
        for row in 0..5 {
            bits[row * 150..][..129].copy_from_slice(&dense.bits[row * 129..][..129]);
        }
        strided.set_bits(bits);
        assert_same(&dense, &sample(sampler, Entry::Automatic, &strided, FULL_WIDTH), &want, "strided");
    }
}

/// Threads that use one sampler at once, on the same and on different shapes.
fn survives_many_threads(sampler: &Sampler) {
    let mut rng = StdRng::seed_from_u64(13);
    let problems: Vec<Problem> = [(3, 129), (8, 1000), (1, 2), (17, 129)]
        .map(|(b, v)| Problem::random(Dtype::Bf16, b, v, None, &mut rng))
        .into();
    let want: Vec<Answers> =
        problems.iter().map(|p| sample(&builtin(1), Entry::Reference, p, FULL_WIDTH)).collect();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (problems, want) = (&problems, &want);
            scope.spawn(move || {
                for round in 0..12 {
                    let i = (thread + round) % problems.len();
                    let got = sample(sampler, Entry::Automatic, &problems[i], FULL_WIDTH);
                    assert_same(&problems[i], &got, &want[i], "threads");
                }
            });
        }
    });
}

#[test]
fn builtin_agrees() {
    for threads in [1, 2] {
        agrees_with_the_reference(&builtin(threads), 100 + threads as u64);
    }
}

#[test]
fn builtin_agrees_on_the_product() {
    agrees_on_the_product(&builtin(1), Dtype::F32, 1);
    agrees_on_the_product(&builtin(1), Dtype::Bf16, 3);
    agrees_on_the_product(&builtin(1), Dtype::F16, 3);
}

#[test]
fn builtin_is_indifferent() {
    let sampler = builtin(2);
    is_batch_invariant(&sampler);
    ignores_what_lies_between_rows(&sampler);
    survives_many_threads(&sampler);
}

macro_rules! plugin_tests {
    ($($module:ident: $plugin:expr, $seed:expr;)*) => {$(
        mod $module {
            use super::*;

            #[test]
            fn agrees() {
                agrees_with_the_reference(&with_plugin($plugin), $seed);
            }

            #[test]
            fn agrees_on_the_product_and_is_indifferent() {
                let sampler = with_plugin($plugin);
                agrees_on_the_product(&sampler, Dtype::F32, 23);
                is_batch_invariant(&sampler);
                ignores_what_lies_between_rows(&sampler);
                survives_many_threads(&sampler);
            }
        }
    )*};
}

plugin_tests! {
    plugin_api_115: PLUGINS[0], 1;
    plugin_api_106: PLUGINS[1], 2;
    plugin_api_81: PLUGINS[2], 3;
}

/// Every class of row at the largest vocabularies, and the fewest and the most slots.
#[test]
fn plugin_agrees_on_every_class_of_long_rows_and_any_number_of_slots() {
    let reference = builtin(0);
    let mut rng = StdRng::seed_from_u64(21);
    for (vocab, max_k) in [(262_144, 128), (1 << 20, 128), (1000, 1), (5000, 1024), (300, 1024)] {
        let sampler = with_slots(PLUGINS[0], max_k);
        let builtin_reference = if max_k == 128 { &reference } else { &sampler };
        for (entry, ask) in [(Entry::Bounded, EVERYTHING), (Entry::Arbitrary, PLAIN)] {
            let largest_k = (entry == Entry::Bounded).then_some(max_k as i32);
            let problem = Problem::random(Dtype::Bf16, ROW_KINDS.len(), vocab, largest_k, &mut rng);
            let want = sample(builtin_reference, Entry::Reference, &problem, ask);
            assert_same(
                &problem,
                &sample(&sampler, entry, &problem, ask),
                &want,
                &format!("{entry:?} {max_k}"),
            );
        }
    }
}

/// A prewarm that cannot hold what it compiles says so, and compiles nothing that no call can reach.
#[test]
fn prewarm_knows_what_calls_need() {
    use nucleus::kernels::Wanted;
    use nucleus::plan::CallShape;
    let sampler = with_plugin(PLUGINS[0]);
    let spec = |vocab, batch| CallShape {
        entry: Entry::Automatic,
        batch,
        vocab,
        dtype: Dtype::F32,
        stable: true,
        wanted: Wanted::default(),
    };
    sampler.prewarm(&spec(100, 2)).unwrap();
    assert_eq!(sampler.stats().compiles, 2); // short rows all fit the bounded path
    let error = sampler.prewarm(&spec(1000, 128)).unwrap_err().to_string();
    assert!(error.contains("cache_capacity is 8") && error.contains("16 programs"), "{error}");
    assert_eq!(sampler.stats().compiles, 2);
}

/// k, p, temperature, seeds and the replace value are inputs: changing them compiles nothing.
#[test]
fn only_shapes_compile() {
    let sampler = with_plugin(PLUGINS[0]);
    let mut rng = StdRng::seed_from_u64(5);
    let mut problem = Problem::random(Dtype::F32, 8, 1000, None, &mut rng);
    sample(&sampler, Entry::Arbitrary, &problem, PLAIN);
    assert_eq!(sampler.stats().compiles, 1);
    for round in 1..20u64 {
        let fresh = Problem::random(Dtype::F32, 5 + round as usize % 4, 1000, None, &mut rng);
        problem = Problem { options: problem.options, ..fresh };
        problem.options.replace_val = -(round as f32);
        sample(&sampler, Entry::Arbitrary, &problem, PLAIN);
        assert_eq!((sampler.stats().compiles, sampler.stats().hits), (1, round));
    }
    // The stable flag and the wanted arrays are part of a program.
    problem.options.stable = false;
    sample(&sampler, Entry::Arbitrary, &problem, PLAIN);
    assert_eq!(sampler.stats().compiles, 2);
    sample(&sampler, Entry::Arbitrary, &problem, FULL_WIDTH);
    assert_eq!(sampler.stats().compiles, 3);
}

/// A mixed batch runs its small-k rows in the bounded program and the others in the arbitrary one, each in a bucket
/// of their number.
#[test]
fn mixed_batches_are_split() {
    use nucleus::kernels::Wanted;
    use nucleus::plan::CallShape;
    let sampler = with_plugin(PLUGINS[0]);
    let spec = |entry, batch| CallShape {
        entry,
        batch,
        vocab: 1000,
        dtype: Dtype::F32,
        stable: true,
        wanted: Wanted::default(),
    };
    sampler.prewarm(&spec(Entry::Bounded, 4)).unwrap();
    sampler.prewarm(&spec(Entry::Arbitrary, 2)).unwrap();
    assert_eq!(sampler.stats().compiles, 5); // buckets 1, 2, 4 and 1, 2
    let mut rng = StdRng::seed_from_u64(6);
    let rows = [5, 0, 64, 500, 1, 128]
        .map(|k| RowParams::new(k, 0.9, 0.0, 1.0, random_words(k as u64, 0), 1000))
        .to_vec();
    let problem = Problem::new(Dtype::F32, 1000, vec![RowKind::Normal; 6], rows, &mut rng);
    let got = sample(&sampler, Entry::Automatic, &problem, PLAIN);
    assert_eq!((sampler.stats().compiles, sampler.stats().hits), (5, 2));
    assert_same(&problem, &got, &sample(&builtin(1), Entry::Reference, &problem, PLAIN), "mixed");
}
