//! Samplers and results can move between threads.

use nucleus::{Backend, Batch, Error, Sampler};

fn is_thread_safe<T: Send + Sync + 'static>() {}

#[test]
fn types_are_thread_safe() {
    is_thread_safe::<Sampler>();
    is_thread_safe::<Batch<'static>>();
    is_thread_safe::<Error>();
    #[cfg(feature = "pjrt")]
    {
        is_thread_safe::<nucleus::device::Buffer>();
        is_thread_safe::<nucleus::device::Call>();
        is_thread_safe::<nucleus::device::Parameters>();
        is_thread_safe::<nucleus::programs::Prewarming>();
    }
}

#[test]
fn threads_share_a_sampler() {
    let sampler = Sampler::builder().backend(Backend::Builtin).num_threads(2).build().unwrap();
    let logits: Vec<f32> = (0..4 * 20_000).map(|i| ((i * 7919) % 10_007) as f32 * 1e-3).collect();
    let sample = |sampler: &Sampler| {
        let batch = Batch::new(&logits, 20_000).unwrap().top_p(&[0.9; 4]).seed(&[1, 2, 3, 4]);
        sampler.sample(&batch).unwrap()
    };
    let expected = sample(&sampler);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let sampler = sampler.clone();
            let (sample, expected) = (&sample, &expected);
            scope.spawn(move || (0..10).for_each(|_| assert_eq!(&sample(&sampler), expected)));
        }
    });
    assert_eq!(sampler.latencies().total.count, 31);
}
