//! A continuous batch: requests with their own parameters join and leave, and every step samples all of them at once.
//!
//! The model is a table of how often each byte of this file follows another. It stands for the model of a server.
//!
//! `cargo run --no-default-features --example decode_loop`

use nucleus::{Backend, Batch, Error, Outputs, RowStatus, Sampler};

/// The text that the model imitates.
const TEXT: &str = include_str!("decode_loop.rs");
/// A token is a byte of ASCII.
const VOCAB: usize = 128;
/// The largest number of requests in a batch.
const SLOTS: usize = 3;

/// The logits that follow each byte: the logarithms of the counts.
struct Model(Vec<f32>);

impl Model {
    fn new() -> Model {
        let mut counts = vec![0.0_f32; VOCAB * VOCAB];
        for pair in TEXT.as_bytes().windows(2) {
            counts[usize::from(pair[0]) * VOCAB + usize::from(pair[1])] += 1.0;
        }
        // ln(0) is -inf, and a token with this logit is never drawn.
        Model(counts.into_iter().map(f32::ln).collect())
    }

    fn row(&self, last: u8) -> &[f32] {
        &self.0[usize::from(last) * VOCAB..][..VOCAB]
    }
}

/// A request, and its answer so far.
#[derive(Clone)]
struct Request {
    name: &'static str,
    top_k: i32,
    top_p: f32,
    temperature: f32,
    seed: u64,
    answer: Vec<u8>,
}

const LONGEST_ANSWER: usize = 60;

fn requests() -> Vec<Request> {
    let request = |name, top_k, top_p, temperature, seed| Request {
        name,
        top_k,
        top_p,
        temperature,
        seed,
        answer: b"fn ".to_vec(),
    };
    vec![
        request("greedy", 0, 1.0, 0.0, 0),
        request("top-k", 5, 1.0, 1.0, 11),
        request("top-p", 0, 0.9, 1.0, 12),
        request("hot", 0, 1.0, 1.5, 13),
        request("both", 20, 0.8, 0.8, 14),
    ]
}

/// Serves the requests, at most `slots` at the same time, and returns them with their answers.
fn serve(sampler: &Sampler, model: &Model, slots: usize) -> Result<Vec<Request>, Error> {
    let mut waiting = requests().into_iter();
    let (mut running, mut done): (Vec<Request>, Vec<Request>) = (Vec::new(), Vec::new());
    // These arrays are used in every step.
    let mut logits = Vec::with_capacity(slots * VOCAB);
    let (mut tokens, mut row_status) = (vec![0; slots], vec![0; slots]);
    loop {
        running.extend(waiting.by_ref().take(slots - running.len()));
        if running.is_empty() {
            return Ok(done);
        }
        logits.clear();
        for request in &running {
            logits.extend_from_slice(model.row(request.answer[request.answer.len() - 1]));
        }
        let top_k: Vec<i32> = running.iter().map(|request| request.top_k).collect();
        let top_p: Vec<f32> = running.iter().map(|request| request.top_p).collect();
        let temperature: Vec<f32> = running.iter().map(|request| request.temperature).collect();
        let seed: Vec<u64> = running.iter().map(|request| request.seed).collect();
        // The offset is the number of the request's own tokens, so its answer does not depend on when it joined.
        let offset: Vec<u64> = running.iter().map(|request| request.answer.len() as u64).collect();

        let batch = Batch::new(&logits, VOCAB)?
            .top_k(&top_k)
            .top_p(&top_p)
            .temperature(&temperature)
            .seed(&seed)
            .offset(&offset);
        let rows = running.len();
        let outputs = Outputs::new().tokens(&mut tokens[..rows]).row_status(&mut row_status[..rows]);
        sampler.sample_into(&batch, outputs)?;

        let mut row = 0;
        running.retain_mut(|request| {
            let (token, status) = (tokens[row], RowStatus::from_bits(row_status[row]));
            row += 1;
            match u8::try_from(token) {
                Ok(token) => request.answer.push(token),
                // One bad request does not stop the others.
                Err(_) => eprintln!("{}: no token, {status:?}", request.name),
            }
            let ended = token < 0 || token == i32::from(b'\n') || request.answer.len() == LONGEST_ANSWER;
            if ended {
                done.push(request.clone());
            }
            !ended
        });
    }
}

fn main() -> Result<(), Error> {
    let sampler = Sampler::builder().backend(Backend::Builtin).num_threads(1).build()?;
    let model = Model::new();
    let mut together = serve(&sampler, &model, SLOTS)?;
    for request in &together {
        println!("{:>6}: {}", request.name, String::from_utf8_lossy(&request.answer).trim_end());
    }

    // A row's token does not depend on the other rows of its batch.
    let mut alone = serve(&sampler, &model, 1)?;
    for list in [&mut together, &mut alone] {
        list.sort_by_key(|request| request.name);
    }
    assert!(together.iter().zip(&alone).all(|(one, other)| one.answer == other.answer));
    println!("in a shared batch and alone: identical");
    Ok(())
}
