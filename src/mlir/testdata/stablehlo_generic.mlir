"builtin.module"() ({
  "func.func"() ({
  ^bb0(%0: tensor<2x6xi32>, %1: tensor<2xi32>):
    %2 = "stablehlo.broadcast_in_dim"(%1) {broadcast_dimensions = array<i64: 0>} : (tensor<2xi32>) -> tensor<2x6xi32>
    %3 = "stablehlo.add"(%0, %2) : (tensor<2x6xi32>, tensor<2x6xi32>) -> tensor<2x6xi32>
    %4 = "stablehlo.constant"() {value = dense<-1> : tensor<2x6xi32>} : () -> tensor<2x6xi32>
    %5 = "stablehlo.compare"(%0, %4) {comparison_direction = #stablehlo<comparison_direction LT>, compare_type = #stablehlo<comparison_type SIGNED>} : (tensor<2x6xi32>, tensor<2x6xi32>) -> tensor<2x6xi1>
    %6 = "stablehlo.constant"() {value = dense<7> : tensor<2x6xi32>} : () -> tensor<2x6xi32>
    %7 = "stablehlo.select"(%5, %3, %6) : (tensor<2x6xi1>, tensor<2x6xi32>, tensor<2x6xi32>) -> tensor<2x6xi32>
    %8 = "stablehlo.not"(%5) : (tensor<2x6xi1>) -> tensor<2x6xi1>
    %9 = "stablehlo.slice"(%0) {start_indices = array<i64: 0, 1>, limit_indices = array<i64: 2, 4>, strides = array<i64: 1, 1>} : (tensor<2x6xi32>) -> tensor<2x3xi32>
    %10 = "stablehlo.reshape"(%9) : (tensor<2x3xi32>) -> tensor<6xi32>
    %11 = "stablehlo.constant"() {value = dense<-2147483648> : tensor<i32>} : () -> tensor<i32>
    %12 = "stablehlo.pad"(%0, %11) {edge_padding_low = array<i64: 0, 1>, edge_padding_high = array<i64: 0, 2>, interior_padding = array<i64: 0, 0>} : (tensor<2x6xi32>, tensor<i32>) -> tensor<2x9xi32>
    %13 = "stablehlo.transpose"(%0) {permutation = array<i64: 1, 0>} : (tensor<2x6xi32>) -> tensor<6x2xi32>
    %14 = "stablehlo.iota"() {iota_dimension = 1 : i64} : () -> tensor<2x6xi32>
    %15 = "stablehlo.convert"(%0) : (tensor<2x6xi32>) -> tensor<2x6xui16>
    %16 = "stablehlo.bitcast_convert"(%15) : (tensor<2x6xui16>) -> tensor<2x6xbf16>
    %20 = "stablehlo.constant"() {value = dense<2147483647> : tensor<i32>} : () -> tensor<i32>
    %21 = "stablehlo.reduce"(%0, %20) ({
    ^bb0(%17: tensor<i32>, %18: tensor<i32>):
      %19 = "stablehlo.minimum"(%17, %18) : (tensor<i32>, tensor<i32>) -> tensor<i32>
      "stablehlo.return"(%19) : (tensor<i32>) -> ()
    }) {dimensions = array<i64: 1>} : (tensor<2x6xi32>, tensor<i32>) -> tensor<2xi32>
    %22 = "stablehlo.reshape"(%21) : (tensor<2xi32>) -> tensor<2x1xi32>
    %23 = "stablehlo.gather"(%0, %22) {dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, indices_are_sorted = false, slice_sizes = array<i64: 1, 6>} : (tensor<2x6xi32>, tensor<2x1xi32>) -> tensor<2x6xi32>
    %24 = "stablehlo.reshape"(%0) : (tensor<2x6xi32>) -> tensor<1x2x6xi32>
    %25 = "stablehlo.reshape"(%0) : (tensor<2x6xi32>) -> tensor<1x2x6xi32>
    %26 = "stablehlo.concatenate"(%24, %25) {dimension = 0 : i64} : (tensor<1x2x6xi32>, tensor<1x2x6xi32>) -> tensor<2x2x6xi32>
    %27 = "stablehlo.custom_call"(%0) {call_target_name = "callee", backend_config = "{\"a\":1}", operand_layouts = [dense<[1, 0]> : tensor<2xindex>], result_layouts = [dense<[1, 0]> : tensor<2xindex>]} : (tensor<2x6xi32>) -> tensor<1x2xui64>
    %28 = "stablehlo.constant"() {value = dense<0> : tensor<2xi32>} : () -> tensor<2xi32>
    %29 = "stablehlo.constant"() {value = dense<false> : tensor<i1>} : () -> tensor<i1>
    %34, %35 = "stablehlo.while"(%28, %29) ({
    ^bb0(%30: tensor<2xi32>, %31: tensor<i1>):
      "stablehlo.return"(%31) : (tensor<i1>) -> ()
    }, {
    ^bb0(%30: tensor<2xi32>, %31: tensor<i1>):
      %32 = "stablehlo.constant"() {value = dense<1> : tensor<2xi32>} : () -> tensor<2xi32>
      %33 = "stablehlo.add"(%30, %32) : (tensor<2xi32>, tensor<2xi32>) -> tensor<2xi32>
      "stablehlo.return"(%33, %31) : (tensor<2xi32>, tensor<i1>) -> ()
    }) : (tensor<2xi32>, tensor<i1>) -> (tensor<2xi32>, tensor<i1>)
    "func.return"(%34) : (tensor<2xi32>) -> ()
  }) {function_type = (tensor<2x6xi32>, tensor<2xi32>) -> tensor<2xi32>, sym_name = "main", sym_visibility = "public"} : () -> ()
}) {sym_name = "name"} : () -> ()
