//! Shows that the comparison with the reference detects a compiler that contracts a product and a sum into one fused
//! operation.

use std::collections::HashMap;

use crate::common::*;
use nucleus::dtype::Dtype;
use nucleus::kernels::{pack_params, stablehlo, Path, Source, Spec, Wanted, COLUMNS, RESULTS};
use nucleus::mlir::stablehlo::PRODUCT_BARRIER;
use nucleus::pjrt::{Client, CompileOptions, ElementType, Plugin};
use nucleus::plan::Entry;
use nucleus::semantics::params::RowParams;
use rand::prelude::*;

const VOCAB: usize = 1000;

/// Removes the minimum between each product and sum from a program. Returns the new text and the number of removed
/// operations.
fn without_barriers(text: &str) -> (String, usize) {
    let barrier = format!("dense<0x{:08X}>", PRODUCT_BARRIER.to_bits());
    let is_barrier = |name: &str| {
        let definition = text.lines().find(|line| line.trim_start().starts_with(&format!("{name} = ")));
        definition.is_some_and(|line| line.contains("stablehlo.constant") && line.contains(&barrier))
    };
    let mut renamed: HashMap<String, String> = HashMap::new();
    let mut kept = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.trim_start().split([' ', ',']).filter(|word| !word.is_empty()).collect();
        if let [result, "=", "stablehlo.minimum", product, limit, ..] = words[..] {
            if is_barrier(limit) {
                renamed.insert(result.to_owned(), product.to_owned());
                continue;
            }
        }
        let mut line = line.to_owned();
        for (from, to) in &renamed {
            line = line.replace(&format!("{from},"), &format!("{to},"));
            line = line.replace(&format!("{from} "), &format!("{to} "));
        }
        kept.push_str(&line);
        kept.push('\n');
    }
    (kept, renamed.len())
}

/// Runs a program on a problem of one row. Returns the weights.
fn weights_of(program: &str, problem: &Problem) -> Vec<i32> {
    let client = Client::create(Plugin::load(&plugin(PLUGINS[0])).unwrap(), &[]).unwrap();
    let program = client.compile(program, &CompileOptions::for_device(client.devices()[0].id())).unwrap();
    let logits = bytemuck::cast_slice(&problem.f32s);
    let logits = client.buffer_from_host(logits, ElementType::F32, &[1, VOCAB as i64], 0).unwrap();
    let params = pack_params(&problem.rows[0], problem.options, Dtype::F32);
    let params = bytemuck::cast_slice(&params);
    let params = client.buffer_from_host(params, ElementType::S32, &[1, COLUMNS as i64], 0).unwrap();
    let outputs = program.execute(&[&logits, &params]).unwrap();
    assert_eq!(outputs.len(), 2, "the results ({RESULTS} numbers) and the weights");
    outputs[1].to_host().unwrap()
}

#[test]
fn a_program_without_barriers_is_detected() {
    let wanted = Wanted { weights: true, ..Wanted::default() };
    let spec = Spec {
        path: Path::Arbitrary,
        batch: 1,
        vocab: VOCAB,
        dtype: Dtype::F32,
        stable: true,
        wanted,
        source: Source::Batch,
    };
    let mut rng = StdRng::seed_from_u64(1);
    let rows = vec![RowParams::new(0, 1.0, 0.0, 1.0, [0; 4], VOCAB)];
    let problem = Problem::new(Dtype::F32, VOCAB, vec![RowKind::Normal], rows, &mut rng);
    let ask = Ask { weights: true, ..PLAIN };
    let right = sample(&builtin(1), Entry::Reference, &problem, ask).weights;

    let program = stablehlo::emit(&spec);
    assert_eq!(weights_of(&program, &problem), right);
    let (without, removed) = without_barriers(&program);
    assert_eq!(removed, 4, "the polynomial has four products");
    let different = weights_of(&without, &problem).iter().zip(&right).filter(|(a, b)| a != b).count();
    println!("without barriers, {different} of {VOCAB} weights differ");
    assert!(different > 0, "this compiler does not contract products and sums, so the barriers are untested");
}
