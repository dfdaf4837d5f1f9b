//! Chooses the next token of two requests on the built-in backend.
//!
//! `cargo run --no-default-features --example quickstart`

use nucleus::{Backend, Batch, Error, Sampler};

fn main() -> Result<(), Error> {
    // Create a sampler once. Any number of threads can use it.
    let sampler = Sampler::builder().backend(Backend::Builtin).build()?;

    // Two rows of five logits. The first row is sampled, the second is greedy.
    let logits = [
        0.1_f32, 2.0, -1.0, 1.9, 0.0, //
        5.0, 0.0, 0.0, 0.0, 4.0,
    ];
    let batch = Batch::new(&logits, 5)?
        .top_k(&[3, 2])
        .top_p(&[0.95, 1.0])
        .temperature(&[0.7, 0.0])
        .seed(&[1, 2])
        .offset(&[0, 0]); // The number of the step. Increase it at every step.

    let sampled = sampler.sample_with_status(&batch)?;
    for (row, (token, status)) in sampled.tokens.iter().zip(&sampled.row_status).enumerate() {
        println!("row {row}: token {token}, {status:?}");
    }
    Ok(())
}
