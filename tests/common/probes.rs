//! Programs whose kernel contains one operation. Hardware may compute these operations differently from the
//! interpreter.

use base64::prelude::{Engine, BASE64_STANDARD};

pub const PROBE_ROWS: usize = 64;
/// The number of elements of an operand.
pub const PROBE: usize = PROBE_ROWS * 128;

/// A kernel that computes `%r`, whose element type is `result`, from `%a` and `%b`.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    body: &'static str,
    result: &'static str,
}

const fn floats(body: &'static str) -> Probe {
    Probe { body, result: "f32" }
}

pub const QUOTIENT: Probe = floats("%r = arith.divf %a, %b : FLOATS");
pub const PRODUCT: Probe = floats("%r = arith.mulf %a, %b : FLOATS");
pub const DIFFERENCE: Probe = floats("%r = arith.subf %a, %b : FLOATS");
pub const DIFFERENCE_TIMES: Probe =
    floats("%d = arith.subf %a, %b : FLOATS\n%r = arith.mulf %d, %b : FLOATS");
pub const PRODUCT_PLUS: Probe = floats("%p = arith.mulf %a, %b : FLOATS\n%r = arith.addf %p, %b : FLOATS");
pub const SUM: Probe = floats("%r = arith.addf %a, %b : FLOATS");
pub const MAXIMUM: Probe = floats("%r = arith.maximumf %a, %b : FLOATS");
/// The truncation that the kernels use, for floats that are not negative.
pub const FLOOR: Probe = Probe {
    body: "%f = math.floor %a : FLOATS\n\
           %r = tpu.fptosi %f {rounding_mode = #tpu.rounding_mode<to_nearest_even>} : FLOATS -> RESULTS",
    result: "i32",
};
pub const PROBES: [Probe; 8] =
    [QUOTIENT, PRODUCT, DIFFERENCE, DIFFERENCE_TIMES, PRODUCT_PLUS, SUM, MAXIMUM, FLOOR];

impl Probe {
    /// Returns the text of the program.
    pub fn text(&self) -> String {
        let Probe { body, result } = *self;
        let memory = |elem| format!("memref<{PROBE_ROWS}x128x{elem}, #tpu.memory_space<vmem>>");
        let (vector, input, output) =
            (format!("vector<{PROBE_ROWS}x128xf32>"), memory("f32"), memory(result));
        let body =
            body.replace("FLOATS", &vector).replace("RESULTS", &format!("vector<{PROBE_ROWS}x128x{result}>"));
        let kernel = format!(
        "module {{ func.func @probe(%x: {input}, %y: {input}, %z: {output}) attributes {{dimension_semantics = [], \
         scalar_prefetch = 0 : i64, scratch_operands = 0 : i64, tpu.core_type = #tpu.core_type<tc>}} {{\n\
         %o = arith.constant 0 : index\n\
         %a = vector.load %x[%o, %o] : {input}, {vector}\n\
         %b = vector.load %y[%o, %o] : {input}, {vector}\n\
         {body}\n\
         vector.store %r, %z[%o, %o] : {output}, vector<{PROBE_ROWS}x128x{result}>\n\
         return\n}} }}"
    );
        let config = serde_json::json!({"custom_call_config": {
            "body": BASE64_STANDARD.encode(kernel), "needs_layout_passes": true,
        }});
        let tensor = |elem| format!("tensor<{PROBE_ROWS}x128x{elem}>");
        let layout = "dense<[1, 0]> : tensor<2xindex>";
        format!(
        "module @probe {{ func.func @main(%x: {0}, %y: {0}) -> {1} {{\n\
         %z = \"stablehlo.custom_call\"(%x, %y) {{call_target_name = \"tpu_custom_call\", backend_config = {2:?}, \
         operand_layouts = [{layout}, {layout}], result_layouts = [{layout}]}} : ({0}, {0}) -> {1}\n\
         return %z : {1}\n}} }}\n",
        tensor("f32"),
        tensor(result),
        config.to_string()
    )
    }
}
