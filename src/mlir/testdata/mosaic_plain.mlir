module {
  func.func @name(%0: i32, %1: memref<16x256xbf16, #tpu.memory_space<any>>, %2: memref<8x128xi32, #tpu.memory_space<vmem>>, %3: memref<8x256xbf16, #tpu.memory_space<vmem>>) attributes {dimension_semantics = [#tpu.dimension_semantics<arbitrary>], iteration_bounds = array<i64: 2>, scalar_prefetch = 0 : i64, scratch_operands = 1 : i64, tpu.core_type = #tpu.core_type<tc>, window_params = [{}, {transform_indices = @rows_of_step, window_bounds = array<i64: 8, 128>}]} {
    %4 = arith.constant 0 : index
    %5 = arith.constant 128 : index
    %15 = arith.constant 0 : i32
    %16 = arith.constant 3 : i32
    %17 = arith.constant 1 : i32
    %18 = arith.constant dense<1> : vector<8x128xi32>
    %24 = arith.constant dense<0x3F800000> : vector<8x128xf32>
    %25 = arith.constant dense<0x00000000> : vector<8x128xf32>
    %28 = arith.constant dense<0xFF800000> : vector<1xf32>
    %31 = arith.constant 0x00000000 : f32
    %41 = arith.constant 8 : i32
    // a comment
    %6 = vector.load %3[%4, %5] : memref<8x256xbf16, #tpu.memory_space<vmem>>, vector<8x128xbf16>
    %7 = arith.extf %6 : vector<8x128xbf16> to vector<8x128xf32>
    %8 = math.floor %7 : vector<8x128xf32>
    %9 = "tpu.fptosi"(%8) {rounding_mode = #tpu.rounding_mode<to_nearest_even>} : (vector<8x128xf32>) -> vector<8x128xi32>
    // a loop
    %19, %20 = scf.for %10 = %15 to %16 step %17 iter_args(%11 = %9, %12 = %18) -> (vector<8x128xi32>, vector<8x128xi32>) : i32 {
      %13 = vector.broadcast %10 : i32 to vector<8x128xi32>
      %14 = arith.addi %11, %13 : vector<8x128xi32>
      scf.yield %14, %12 : vector<8x128xi32>, vector<8x128xi32>
    }
    // a search
    %38, %39 = "scf.while"(%19, %20) ({
    ^bb0(%21: vector<8x128xi32>, %22: vector<8x128xi32>):
      %23 = arith.cmpi slt, %21, %22 : vector<8x128xi32>
      %26 = arith.select %23, %24, %25 : vector<8x128xi1>, vector<8x128xf32>
      %27 = vector.shape_cast %26 : vector<8x128xf32> to vector<1x8x128xf32>
      %29 = "vector.multi_reduction"(%27, %28) {kind = #vector.kind<maximumf>, reduction_dims = array<i64: 1, 2>} : (vector<1x8x128xf32>, vector<1xf32>) -> vector<1xf32>
      %30 = "vector.extract"(%29) {static_position = array<i64: 0>} : (vector<1xf32>) -> f32
      %32 = arith.cmpf ogt, %30, %31 : f32
      scf.condition(%32) %21, %22 : vector<8x128xi32>, vector<8x128xi32>
    }, {
    ^bb0(%33: vector<8x128xi32>, %34: vector<8x128xi32>):
      %35 = arith.maxsi %33, %34 : vector<8x128xi32>
      %36 = arith.cmpi sge, %34, %33 : vector<8x128xi32>
      %37 = arith.select %36, %33, %34 : vector<8x128xi1>, vector<8x128xi32>
      scf.yield %35, %37 : vector<8x128xi32>, vector<8x128xi32>
    }) : (vector<8x128xi32>, vector<8x128xi32>) -> (vector<8x128xi32>, vector<8x128xi32>) loc("a search")
    %40 = arith.cmpi eq, %0, %15 : i32
    // a branch
    scf.if %40 {
      "tpu.vector_store"(%38, %2, %4, %4) {add = false, operandSegmentSizes = array<i32: 1, 1, 2, 0>, strides = array<i32>} : (vector<8x128xi32>, memref<8x128xi32, #tpu.memory_space<vmem>>, index, index) -> ()
    }
    %42 = arith.muli %0, %41 : i32
    %43 = "tpu.memref_slice"(%1, %42, %15) {operandSegmentSizes = array<i32: 1, 2, 0>} : (memref<16x256xbf16, #tpu.memory_space<any>>, i32, i32) -> memref<8x128xbf16, #tpu.memory_space<any>>
    return
  }
  func.func @rows_of_step(%0: i32) -> (i32, i32) {
    %1 = arith.constant 0 : i32
    return %0, %1 : i32, i32
  }
}
