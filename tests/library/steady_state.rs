//! The steady state of a server: after a prewarm, calls compile nothing, for any contents of their batches. Also tests
//! prewarming in the background and the latencies of calls.

use std::time::Duration;

use nucleus::backend::pjrt::device_call::{DeviceWants, HostNumbers};
use nucleus::backend::pjrt::device_parameters::DeviceParameters;
use nucleus::backend::pjrt::prewarming::Prewarming;
use nucleus::batch::{Batch, CallOptions, RandomSource, RowArguments, RowSettings};
use nucleus::dtype::{Dtype, Logits};
use nucleus::error::Error;
use nucleus::kernels::Wanted;
use nucleus::outputs::{Outputs, ROW_BAD_PARAMETER};
use nucleus::pjrt::{Buffer, ElementType};
use nucleus::plan::{CallShape, Entry, LogitsPlace};
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};
use rand::prelude::*;

use crate::common::*;

const VOCAB: usize = 64;
const MAX_K: usize = 8;
const STEPS: u64 = 10_000;
/// Every step whose number is a multiple of this number is compared with the built-in backend.
const COMPARED: u64 = 10;

fn sampler(row_buckets: &[usize]) -> Sampler {
    let options = SamplerOptions {
        backend: BackendChoice::Pjrt,
        plugin: Some(plugin(PLUGINS[0])),
        max_k: MAX_K,
        row_buckets: row_buckets.to_vec(),
        ..SamplerOptions::default()
    };
    Sampler::new(&options).unwrap()
}

fn calls(batch: usize, logits: LogitsPlace) -> CallShape {
    let (dtype, wanted) = (Dtype::F32, Wanted::default());
    CallShape { entry: Entry::Automatic, batch, vocab: VOCAB, dtype, stable: true, wanted, logits }
}

fn random_logits(rows: usize, rng: &mut StdRng) -> Vec<f32> {
    (0..rows).flat_map(|row| make_row(ROW_KINDS[row % ROW_KINDS.len()], VOCAB, rng)).collect()
}

/// Returns a generator whose seed changes daily. If a test fails, its output contains the seed.
fn seeded() -> StdRng {
    let seed = daily_seed();
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

/// Returns random settings. Some need the arbitrary path.
fn random_row(rng: &mut StdRng) -> RowSettings {
    RowSettings {
        top_k: [0, 1, 3, MAX_K as i32, MAX_K as i32 + 1, VOCAB as i32 - 1][rng.random_range(0..6)],
        top_p: [0.3, 0.95, 1.0][rng.random_range(0..3)],
        min_p: [0.0, 0.05][rng.random_range(0..2)],
        temperature: [0.0, 0.7, 1.0, 1.5][rng.random_range(0..4)],
        seed: rng.random(),
        offset: rng.random_range(0..1000),
    }
}

/// Samples host logits. Returns the tokens and the statuses.
fn on_host(sampler: &Sampler, logits: &[f32], rows: &[RowSettings], step: u64) -> (Vec<i32>, Vec<u32>) {
    let column = |value: fn(&RowSettings) -> f32| rows.iter().map(value).collect::<Vec<f32>>();
    let (p, min_p) = (column(|row| row.top_p), column(|row| row.min_p));
    let temperature = column(|row| row.temperature);
    let k: Vec<i32> = rows.iter().map(|row| row.top_k).collect();
    let seed: Vec<u64> = rows.iter().map(|row| row.seed).collect();
    let offset: Vec<u64> = rows.iter().map(|row| row.offset.wrapping_add(step)).collect();
    let arguments = RowArguments {
        k: Some(&k),
        p: Some(&p),
        min_p: Some(&min_p),
        temperature: Some(&temperature),
        random: RandomSource::Seeds { seed: Some(&seed), offset: Some(&offset) },
    };
    let options = CallOptions::default();
    let batch = Batch::new(Logits::F32(logits), rows.len(), VOCAB, 0, &arguments, options).unwrap();
    let (mut tokens, mut status) = (vec![-7; rows.len()], vec![77; rows.len()]);
    let mut outputs =
        Outputs { tokens: Some(&mut tokens), row_status: Some(&mut status), ..Outputs::default() };
    sampler.sample(Entry::Automatic, &batch, &mut outputs).unwrap();
    (tokens, status)
}

/// Changes a number of rows by at most 3. The result is at least 1 and at most `largest`.
fn wander(rows: usize, largest: usize, rng: &mut StdRng) -> usize {
    (rows + rng.random_range(0..7)).saturating_sub(3).clamp(1, largest)
}

#[test]
fn wandering_batches_on_the_host_compile_nothing() {
    const LARGEST: usize = 20;
    // Batches of more than 16 rows run in pieces.
    let (sampler, builtin) = (sampler(&[1, 4, 16]), builtin(1));
    sampler.prewarm(&calls(LARGEST, LogitsPlace::Host)).unwrap();
    let before = sampler.stats();
    assert_eq!((before.compiles, before.pinned), (6, 6));
    let mut rng = seeded();
    let logits = random_logits(LARGEST, &mut rng);
    let mut rows: Vec<RowSettings> = (0..LARGEST).map(|_| random_row(&mut rng)).collect();
    let mut batch = 5;
    for step in 0..STEPS {
        batch = wander(batch, LARGEST, &mut rng);
        rows[rng.random_range(0..LARGEST)] = random_row(&mut rng);
        let from = rng.random_range(0..=LARGEST - batch);
        let logits = &logits[from * VOCAB..][..batch * VOCAB];
        let got = on_host(&sampler, logits, &rows[..batch], step);
        if step.is_multiple_of(COMPARED) {
            assert_eq!(got, on_host(&builtin, logits, &rows[..batch], step), "step {step}");
        }
    }
    let after = sampler.stats();
    assert_eq!((after.compiles, after.loaded, after.evictions), (before.compiles, 0, 0));
    assert!(after.hits >= before.hits + STEPS);
}

fn wants(host: HostNumbers, wide: Wanted) -> DeviceWants {
    let mut wants = DeviceWants { host, ..DeviceWants::default() };
    wants.wide = wide;
    wants
}

/// A buffer of logits, and the parameters of its rows.
struct Slots {
    logits: Vec<f32>,
    buffer: Buffer,
    parameters: DeviceParameters,
    rows: Vec<RowSettings>,
}

impl Slots {
    fn new(sampler: &Sampler, rows: usize, singleton: bool, rng: &mut StdRng) -> Slots {
        let logits = random_logits(rows, rng);
        let (batch, vocab) = (rows as i64, VOCAB as i64);
        let dims = if singleton { vec![batch, 1, vocab] } else { vec![batch, vocab] };
        let client = sampler.client().unwrap();
        let buffer =
            client.buffer_from_host(bytemuck::cast_slice(&logits), ElementType::F32, &dims, 0).unwrap();
        let parameters = sampler.device_parameters(rows, VOCAB, Dtype::F32, CallOptions::default()).unwrap();
        Slots { logits, buffer, parameters, rows: vec![RowSettings::default(); rows] }
    }

    /// Changes some rows. On average, one of 40 changed rows gets impossible parameters.
    fn change(&mut self, rng: &mut StdRng) {
        for _ in 0..rng.random_range(0..4) {
            let row = rng.random_range(0..self.rows.len());
            let mut settings = random_row(rng);
            if rng.random_range(0..40) == 0 {
                settings.temperature = f32::NAN;
            }
            self.set(row, settings);
        }
    }

    fn set(&mut self, row: usize, settings: RowSettings) {
        self.parameters.set(row, &settings).unwrap();
        self.rows[row] = settings;
    }

    fn check(&self, sampler: &Sampler, builtin: Option<&Sampler>, step: u64) {
        let has_bad_row = self.rows.iter().any(|row| row.temperature.is_nan());
        let host = if has_bad_row || step.is_multiple_of(2) { HostNumbers::All } else { HostNumbers::Tokens };
        let wants = wants(host, Wanted::default());
        let call = sampler.start(Entry::Automatic, &self.buffer, &self.parameters, step, wants).unwrap();
        let tokens = call.tokens().unwrap();
        let Some(builtin) = builtin else { return };
        let (want, status) = on_host(builtin, &self.logits, &self.rows, step);
        assert_eq!(tokens, want, "step {step}, {:?}", self.rows);
        if host == HostNumbers::All {
            let got: Vec<u32> = call.outcomes().unwrap().iter().map(|outcome| outcome.status).collect();
            assert_eq!(got, status, "step {step}, {:?}", self.rows);
        }
    }
}

#[test]
fn wandering_batches_on_the_device_compile_nothing() {
    const BUFFERS: [(usize, bool); 3] = [(1, false), (3, true), (16, false)];
    let (sampler, builtin) = (sampler(&[1, 4, 16]), builtin(1));
    for (rows, singleton) in BUFFERS {
        sampler.prewarm(&calls(rows, LogitsPlace::Device { singleton, bad_rows: true })).unwrap();
    }
    let before = sampler.stats();
    // For each buffer: the programs of whole batches, the programs of groups, and the programs that join groups.
    assert_eq!(before.compiles, (2 + 2) + (2 + 4 + 2 + 2) + (2 + 6 + 5 + 2));
    assert_eq!((before.pinned, before.programs), (before.compiles, before.compiles));
    let mut rng = seeded();
    let mut slots = BUFFERS.map(|(rows, singleton)| Slots::new(&sampler, rows, singleton, &mut rng));
    for step in 0..STEPS {
        let slots = &mut slots[[0, 1, 2, 2][rng.random_range(0..4)]];
        slots.change(&mut rng);
        slots.check(&sampler, step.is_multiple_of(COMPARED).then_some(&builtin), step);
    }
    let after = sampler.stats();
    assert_eq!((after.compiles, after.evictions, after.not_kept), (before.compiles, 0, 0));
}

/// Some groups are larger than the last bucket. Some batches have no valid row. In some batches, all valid rows take
/// the same path, and other rows are impossible.
#[test]
fn rare_groupings_are_prewarmed_too() {
    let (sampler, builtin) = (sampler(&[2]), builtin(1));
    let mut rng = StdRng::seed_from_u64(3);
    sampler.prewarm(&calls(5, LogitsPlace::Device { singleton: false, bad_rows: true })).unwrap();
    let compiles = sampler.stats().compiles;
    let mut slots = Slots::new(&sampler, 5, false, &mut rng);
    let small = RowSettings { top_k: 3, seed: 4, ..RowSettings::default() };
    let large = RowSettings { top_k: 20, seed: 5, ..RowSettings::default() };
    let bad = RowSettings { temperature: f32::NAN, ..RowSettings::default() };
    let kinds = [small, large, bad];
    for number in 0..3_usize.pow(5) {
        (0..5).for_each(|row| slots.set(row, kinds[number / 3_usize.pow(row as u32) % 3]));
        slots.check(&sampler, Some(&builtin), 2 * number as u64);
    }
    assert_eq!(sampler.stats().compiles, compiles);
    (0..5).for_each(|row| slots.set(row, bad));
    let wants = wants(HostNumbers::All, Wanted::default());
    let call = sampler.start(Entry::Automatic, &slots.buffer, &slots.parameters, 0, wants).unwrap();
    assert!(call.outcomes().unwrap().iter().all(|row| row.status == ROW_BAD_PARAMETER));
}

/// Calls that request wide arrays or have rows of only one path need only the programs of a prewarm for their shape.
#[test]
fn every_kind_of_device_call_can_be_prewarmed() {
    let sampler = sampler(&[4]);
    let mut rng = StdRng::seed_from_u64(4);
    for (entry, wide) in [
        (Entry::Arbitrary, Wanted { weights: true, ..Wanted::default() }),
        (Entry::Bounded, Wanted { topk_logits: true, slices: true, ..Wanted::default() }),
        (Entry::Automatic, Wanted { slices: true, ..Wanted::default() }),
    ] {
        let logits = LogitsPlace::Device { singleton: false, bad_rows: false };
        sampler.prewarm(&CallShape { entry, wanted: wide, ..calls(3, logits) }).unwrap();
        let compiles = sampler.stats().compiles;
        let mut slots = Slots::new(&sampler, 3, false, &mut rng);
        for row in 0..3 {
            slots.set(row, RowSettings { top_k: 1 + row as i32, ..random_row(&mut rng) });
        }
        let wants = wants(HostNumbers::None, wide);
        let call = sampler.start(entry, &slots.buffer, &slots.parameters, 0, wants).unwrap();
        assert!(call.wait(None).unwrap());
        assert_eq!(sampler.stats().compiles, compiles, "{entry:?} {wide:?}");
    }
}

/// On a GPU, a prewarm runs each program that samples. Here, the same runs happen on the CPU plugin.
#[test]
fn a_prewarm_can_run_each_program_once() {
    let sampler = sampler(&[4]);
    sampler.enable_first_runs();
    let host = calls(4, LogitsPlace::Host);
    let device = |singleton| calls(3, LogitsPlace::Device { singleton, bad_rows: false });
    // On the device, one program per path samples all rows, and one program per path samples a group of up to 3 rows.
    // Programs that join groups do not run.
    for (shape, programs) in [(host, 2), (device(false), 4), (device(true), 4)] {
        let before = sampler.first_runs();
        sampler.prewarm(&shape).unwrap();
        assert_eq!(sampler.first_runs() - before, programs, "{shape:?}");
    }
    let (stats, latencies) = (sampler.stats(), sampler.latencies());
    assert!(stats.compiles > 10 && latencies.total.count == 0, "{stats:?} {latencies:?}");
}

/// Sampling continues while programs are compiled in the background.
#[test]
fn a_prewarm_runs_in_the_background() {
    let (sampler, builtin) = (sampler(&[1, 8]), builtin(1));
    let mut rng = StdRng::seed_from_u64(5);
    let (logits, row) = (random_logits(1, &mut rng), [random_row(&mut rng)]);
    on_host(&sampler, &logits, &row, 0);
    let compiled = sampler.stats().compiles;
    let prewarming = sampler.start_prewarm(&calls(8, LogitsPlace::Host), 1).unwrap();
    assert_eq!(prewarming.total(), 4);
    let (mut done, mut steps) = (0, 0);
    while !prewarming.has_ended() {
        let now = prewarming.done();
        assert!((done..=4).contains(&now));
        done = now;
        steps += 1;
        assert_eq!(on_host(&sampler, &logits, &row, steps), on_host(&builtin, &logits, &row, steps));
        // The pause lets the compiler use the processor.
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(prewarming.wait(None).unwrap() && steps > 1, "{steps} steps");
    assert_eq!(prewarming.done(), 4);
    let stats = sampler.stats();
    assert_eq!((stats.compiles, stats.pinned), (4, 4), "{compiled} of them before the prewarm");
    let rows: Vec<RowSettings> = (0..8).map(|_| random_row(&mut rng)).collect();
    on_host(&sampler, &random_logits(8, &mut rng), &rows, 0);
    assert_eq!(sampler.stats().compiles, 4);
    // All programs are in the cache.
    assert!(sampler.start_prewarm(&calls(8, LogitsPlace::Host), 0).unwrap().wait(None).unwrap());
    assert_eq!(sampler.stats().compiles, 4);
}

/// After a cancel, the sampler still works. The places in the cache that the prewarm had reserved are free.
#[test]
fn a_prewarm_can_be_cancelled() {
    let options = SamplerOptions {
        backend: BackendChoice::Pjrt,
        plugin: Some(plugin(PLUGINS[0])),
        max_k: MAX_K,
        cache_capacity: 16,
        ..SamplerOptions::default()
    };
    let sampler = Sampler::new(&options).unwrap();
    let prewarming = sampler.start_prewarm(&calls(128, LogitsPlace::Host), 1).unwrap();
    while prewarming.done() < 2 {
        assert!(!prewarming.wait(Some(Duration::from_millis(1))).unwrap());
    }
    prewarming.cancel();
    let error = prewarming.wait(Some(Duration::from_secs(600))).unwrap_err();
    let done = prewarming.done();
    assert!(matches!(&error, Error::Cancelled(text) if text.contains(&format!("{done} of 16"))), "{error}");
    assert!((2..16).contains(&done));
    let stats = sampler.stats();
    assert_eq!((stats.compiles, stats.pinned), (done as u64, done as u64));
    // The other places are free for other programs.
    let vocab = 2 * VOCAB;
    let other = CallShape { vocab, entry: Entry::Arbitrary, ..calls(1, LogitsPlace::Host) };
    sampler.prewarm(&other).unwrap();
    assert_eq!(sampler.stats().compiles, done as u64 + 1);
}

/// Waits until a prewarm has made a program.
fn wait_for_first_program(prewarming: &Prewarming) {
    while prewarming.done() == 0 {
        assert!(!prewarming.wait(Some(Duration::from_millis(1))).unwrap());
    }
}

/// The programs of a prewarm need places in the cache. If there are too few places, the prewarm does not start.
#[test]
fn a_prewarm_that_does_not_fit_the_cache_fails_at_once() {
    let sampler = with_slots(PLUGINS[0], MAX_K);
    let logits = LogitsPlace::Device { singleton: false, bad_rows: false };
    let error = sampler.start_prewarm(&calls(16, logits), 0).err().expect("an error").to_string();
    assert!(error.contains("cache_capacity is 8") && error.contains("21 programs"), "{error}");
    assert_eq!(sampler.stats().compiles, 0);
}

/// A drop waits for the program that is being made. The prewarm makes no further programs.
#[test]
fn a_dropped_prewarm_ends_early() {
    let sampler = sampler(&[]);
    let prewarming = sampler.start_prewarm(&calls(128, LogitsPlace::Host), 1).unwrap();
    wait_for_first_program(&prewarming);
    let total = prewarming.total() as u64;
    drop(prewarming);
    let compiles = sampler.stats().compiles;
    assert!((1..total).contains(&compiles), "{compiles} of {total}");
}

/// A prewarm keeps the backend alive.
#[test]
fn a_sampler_can_be_dropped_during_a_prewarm() {
    let sampler = sampler(&[]);
    let prewarming = sampler.start_prewarm(&calls(128, LogitsPlace::Host), 1).unwrap();
    drop(sampler);
    wait_for_first_program(&prewarming);
    drop(prewarming);
    assert!(builtin(1).start_prewarm(&calls(128, LogitsPlace::Host), 1).unwrap().wait(None).unwrap());
}

#[test]
fn latencies_are_counted_per_call() {
    let mut rng = StdRng::seed_from_u64(6);
    let (logits, row) = (random_logits(1, &mut rng), [random_row(&mut rng)]);
    let builtin = builtin(1);
    (0..100).for_each(|step| drop(on_host(&builtin, &logits, &row, step)));
    let stats = builtin.latencies();
    assert_eq!((stats.enqueue.count, stats.execute.count, stats.total.count), (0, 0, 100));
    assert!(0 < stats.total.p50_ns && stats.total.p50_ns <= stats.total.p99_ns);

    let sampler = sampler(&[1]);
    (0..10).for_each(|step| drop(on_host(&sampler, &logits, &row, step)));
    let host = sampler.latencies();
    assert_eq!((host.enqueue.count, host.execute.count, host.total.count), (10, 10, 10));
    // The first call compiles, which takes milliseconds. It is the slowest of ten calls.
    assert!(host.enqueue.p99_ns > 1_000_000 && host.enqueue.p50_ns < host.enqueue.p99_ns, "{host:?}");
    assert!(host.total.p50_ns >= host.enqueue.p50_ns.max(host.execute.p50_ns), "{host:?}");

    let mut slots = Slots::new(&sampler, 2, false, &mut rng);
    (0..5).for_each(|step| slots.check(&sampler, None, step));
    let device = sampler.latencies();
    assert_eq!((device.enqueue.count, device.execute.count, device.total.count), (15, 15, 15));
    // A call that does not start is not counted.
    slots.set(0, RowSettings { temperature: f32::NAN, ..RowSettings::default() });
    let wants = DeviceWants::default();
    assert!(sampler.start(Entry::Automatic, &slots.buffer, &slots.parameters, 0, wants).is_err());
    assert_eq!(sampler.latencies(), device);
}
