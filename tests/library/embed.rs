//! The sampling function inside a decode loop of the caller. The loop runs many steps on the device and must choose the
//! same tokens as separate calls.

use crate::common::*;
use nucleus::dtype::Dtype;
use nucleus::kernels::{embed, pack_seeds, Path, Source, Spec, Target, Wanted, COLUMNS};
use nucleus::pjrt::{Client, CompileOptions, ElementType, Plugin};
use nucleus::plan::Entry;
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use rand::prelude::*;
use rand_distr::Normal;

const ROWS: usize = 4;
const VOCAB: usize = 300;
const STEPS: usize = 100;
const FIRST_TOKEN: i32 = 7;
/// An offset whose sum with the step carries into the upper 32 bits.
const OFFSET: u64 = 0xffff_fff0;

/// The sampling parameters of a row: k, p, temperature, seed.
type Row = (i32, f32, f32, u64);
const ROWS_ANY_K: [Row; ROWS] =
    [(0, 0.95, 1.0, 1), (200, 1.0, 1.3, u64::MAX), (5, 0.9, 0.7, 3), (0, 1.0, 0.0, 4)];
const ROWS_SMALL_K: [Row; ROWS] =
    [(8, 0.95, 1.0, 1), (64, 1.0, 1.3, u64::MAX), (5, 0.9, 0.7, 3), (1, 1.0, 0.0, 4)];

/// A program with a decode loop. The previous token selects a row of a table as the logits of a step. The program
/// returns the tokens of all steps.
fn decode_loop(function: &str) -> String {
    format!(
        r#"module @decode {{
  {function}
  func.func public @main(%table: tensor<{VOCAB}x{VOCAB}xf32>, %parameters: tensor<{ROWS}x{COLUMNS}xi32>) -> tensor<{STEPS}x{ROWS}xi32> {{
    %first = stablehlo.constant dense<{FIRST_TOKEN}> : tensor<{ROWS}xi32>
    %all = stablehlo.constant dense<-9> : tensor<{STEPS}x{ROWS}xi32>
    %zero = stablehlo.constant dense<0> : tensor<ui64>
    %result:3 = stablehlo.while(%step = %zero, %tokens = %first, %out = %all) : tensor<ui64>, tensor<{ROWS}xi32>, tensor<{STEPS}x{ROWS}xi32>
    cond {{
      %steps = stablehlo.constant dense<{STEPS}> : tensor<ui64>
      %go = stablehlo.compare LT, %step, %steps, UNSIGNED : (tensor<ui64>, tensor<ui64>) -> tensor<i1>
      stablehlo.return %go : tensor<i1>
    }} do {{
      %index = stablehlo.reshape %tokens : (tensor<{ROWS}xi32>) -> tensor<{ROWS}x1xi32>
      %logits = "stablehlo.gather"(%table, %index) <{{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, indices_are_sorted = false, slice_sizes = array<i64: 1, {VOCAB}>}}> : (tensor<{VOCAB}x{VOCAB}xf32>, tensor<{ROWS}x1xi32>) -> tensor<{ROWS}x{VOCAB}xf32>
      %next, %numbers = func.call @sample_here(%logits, %parameters, %step) : (tensor<{ROWS}x{VOCAB}xf32>, tensor<{ROWS}x{COLUMNS}xi32>, tensor<ui64>) -> (tensor<{ROWS}xi32>, tensor<5x{ROWS}xi32>)
      %row = stablehlo.reshape %next : (tensor<{ROWS}xi32>) -> tensor<1x{ROWS}xi32>
      %at = stablehlo.convert %step : (tensor<ui64>) -> tensor<i32>
      %left = stablehlo.constant dense<0> : tensor<i32>
      %new = stablehlo.dynamic_update_slice %out, %row, %at, %left : (tensor<{STEPS}x{ROWS}xi32>, tensor<1x{ROWS}xi32>, tensor<i32>, tensor<i32>) -> tensor<{STEPS}x{ROWS}xi32>
      %one = stablehlo.constant dense<1> : tensor<ui64>
      %following = stablehlo.add %step, %one : tensor<ui64>
      stablehlo.return %following, %next, %new : tensor<ui64>, tensor<{ROWS}xi32>, tensor<{STEPS}x{ROWS}xi32>
    }}
    return %result#2 : tensor<{STEPS}x{ROWS}xi32>
  }}
}}
"#
    )
}

/// The tokens of all steps, computed by separate calls on the built-in backend.
fn separate_calls(table: &[f32], rows: &[Row; ROWS]) -> Vec<i32> {
    let sampler = builtin(1);
    let mut rng = StdRng::seed_from_u64(0);
    let mut tokens = vec![FIRST_TOKEN; ROWS];
    let mut all = Vec::new();
    for step in 0..STEPS as u64 {
        let params = rows.map(|(k, p, temperature, seed)| {
            RowParams::new(k, p, 0.0, temperature, random_words(seed, OFFSET.wrapping_add(step)), VOCAB)
        });
        let kinds = vec![RowKind::Constant; ROWS];
        let mut problem = Problem::new(Dtype::F32, VOCAB, kinds, params.to_vec(), &mut rng);
        let logits = tokens.iter().flat_map(|&token| &table[token as usize * VOCAB..][..VOCAB]);
        problem.set_bits(logits.map(|x| x.to_bits()).collect());
        tokens = sample(&sampler, Entry::Automatic, &problem, PLAIN).tokens;
        all.extend(&tokens);
    }
    all
}

fn embedded_equals_separate(plugin_name: &str, path: Path, rows: &[Row; ROWS]) {
    let normal = Normal::new(0.0_f32, 2.0).unwrap();
    let mut rng = StdRng::seed_from_u64(5);
    let table: Vec<f32> = (0..VOCAB * VOCAB).map(|_| normal.sample(&mut rng)).collect();
    let spec = Spec {
        path,
        batch: ROWS,
        vocab: VOCAB,
        dtype: Dtype::F32,
        stable: true,
        wanted: Wanted::default(),
        source: Source::Batch,
    };
    let program = decode_loop(&embed::emit(&spec, &Target::Portable, "sample_here"));

    let client = Client::create(Plugin::load(&plugin(plugin_name)).unwrap(), &[]).unwrap();
    let options = CompileOptions::for_device(client.devices()[0].id());
    let program = client.compile(&program, &options).unwrap();
    let parameters: Vec<i32> = rows
        .iter()
        .flat_map(|&(k, p, temperature, seed)| {
            let params = RowParams::new(k, p, 0.0, temperature, [0; 4], VOCAB);
            pack_seeds(&params, seed, OFFSET, Default::default(), Dtype::F32)
        })
        .collect();
    let upload = |bytes, element, dims: [usize; 2]| {
        client.buffer_from_host(bytes, element, &dims.map(|dim| dim as i64), 0).unwrap()
    };
    let table_on_device = upload(bytemuck::cast_slice(&table), ElementType::F32, [VOCAB, VOCAB]);
    let parameters = upload(bytemuck::cast_slice(&parameters), ElementType::S32, [ROWS, COLUMNS]);
    let outputs = program.execute(&[&table_on_device, &parameters]).unwrap();
    let tokens: Vec<i32> = outputs[0].to_host().unwrap();
    assert_eq!(tokens, separate_calls(&table, rows), "{plugin_name}, {path:?}");
}

#[test]
fn a_decode_loop_chooses_the_tokens_of_separate_calls() {
    for name in PLUGINS {
        embedded_equals_separate(name, Path::Arbitrary, &ROWS_ANY_K);
        embedded_equals_separate(name, Path::Bounded(64), &ROWS_SMALL_K);
    }
}
