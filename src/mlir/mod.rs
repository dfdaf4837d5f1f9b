//! Builders of MLIR text: StableHLO programs and the Mosaic kernels inside them.

pub mod mosaic;
pub mod stablehlo;
