# Arguments, their errors, and matrices.

# The exception of a call, or nothing.
function thrown(f)
    try
        f()
        nothing
    catch failure
        failure
    end
end

is_error(failure, status, argument, column = nothing) = failure isa NucleusError &&
    failure.status == status &&
    failure.argument == argument && failure.column == column && !isempty(failure.message)

const INVALID = Nucleus.NUC_INVALID_ARGUMENT

@testset "matrices" begin
    sampler = Sampler(; backend = :builtin, num_threads = 1)
    logits = 3 * randn(Float32, 60, 7)
    options = (top_k = 20, top_p = 0.9, seed = 1:7, offset = 5)
    wanted = sample(sampler, logits; options...)
    large = fill(Inf32, 100, 9)
    large[21:80, 2:8] = logits
    @test sample(sampler, view(large, 21:80, 2:8); options...) == wanted
    @test sample(sampler, view(large, 21:80, 2:2:8); top_k = 20, top_p = 0.9, seed = 1:2:7,
        offset = 5) == wanted[1:2:7]
    @test sample(sampler, reshape(collect(vec(logits)), 60, 7); options...) == wanted
    @test [only(sample(sampler, view(logits, :, j:j); options..., seed = j)) for j in 1:7] == wanted
    @test sample(sampler, view(logits, :, 1:0)) == Int32[]
    # The token of a greedy column is the index of its maximum, counted from 0.
    greedy = sample(sampler, logits; temperature = 0)
    @test greedy .+ 1 == [argmax(logits[:, j]) for j in 1:7]
    for bad in (permutedims(logits)', view(logits, :, [1, 3]), view(logits, 60:-1:1, :),
        view(logits, :, 7:-1:1), view(logits, 1:2:60, :), Float64.(logits))
        @test thrown(() -> sample(sampler, bad)) isa ArgumentError
    end
    @test is_error(thrown(() -> sample(sampler, zeros(Float32, 0, 2))), INVALID, "vocab")

    half = Float16.(logits)
    @test sample(sampler, half; temperature = 0) .+ 1 == [argmax(half[:, j]) for j in 1:7]
    rounded = Nucleus.BFloat16Bits.(logits)
    @test sample(sampler, rounded; temperature = 0) .+ 1 == [argmax(Float32.(rounded[:, j])) for j in 1:7]
    raw = [x.bits for x in rounded]
    @test sample(sampler, reinterpret(Nucleus.BFloat16Bits, raw); options...) ==
        sample(sampler, rounded; options...)
    @test sample(sampler, view(reinterpret(Nucleus.BFloat16Bits, raw), :, 3:4); temperature = 0) ==
        sample(sampler, rounded[:, 3:4]; temperature = 0)
    close(sampler)
end

# A type with the memory of bfloat16 works after one method, as the package BFloat16s does.
primitive type OtherBFloat16 <: AbstractFloat 16 end
Nucleus.dtype(::Type{OtherBFloat16}) = Nucleus.NUC_DTYPE_BF16

@testset "bfloat16" begin
    @test [Nucleus.BFloat16Bits(x).bits for x in (1.0f0, -2.0f0, 1.00390625f0, 1.01171875f0, Inf32, 0.0f0)] ==
        [0x3f80, 0xc000, 0x3f80, 0x3f82, 0x7f80, 0x0000]
    @test isnan(Float32(Nucleus.BFloat16Bits(NaN32))) &&
        isnan(Float32(Nucleus.BFloat16Bits(reinterpret(Float32, 0x7f800001))))
    @test Float32(Nucleus.BFloat16Bits(0x3fc0)) === 1.5f0
    Sampler(; backend = :builtin) do sampler
        bits = UInt16[0x3f80 0x4000; 0x4000 0x3f80]
        @test sample(sampler, reinterpret(OtherBFloat16, bits); temperature = 0) == [1, 0]
    end
end

@testset "errors of sample" begin
    sampler = Sampler(; backend = :builtin, num_threads = 1, max_k = 3)
    logits = zeros(Float32, 4, 2)
    for (options, argument, column) in (
        ((temperature = [1, -1],), "temperature", 2), ((temperature = NaN,), "temperature", 1),
        ((top_p = [NaN, 1],), "top_p", 1), ((min_p = [0, NaN],), "min_p", 2),
        ((random_words = zeros(UInt32, 4, 2), seed = 1), "random_words", nothing),
        ((top_k = [1, 0], path = :bounded), "top_k", 2), ((replace_val = NaN,), "replace_val", nothing))
        tokens = Int32[-7, -7]
        @test is_error(thrown(() -> sample!(tokens, sampler, logits; options...)), INVALID, argument, column)
        @test tokens == [-7, -7]
    end
    for options in ((top_k = [1],), (top_p = ones(3),), (min_p = Float32[],), (temperature = ones(1),),
        (random_words = zeros(UInt32, 2, 4),), (seed = [1],), (offset = 1:3,), (row_status = UInt32[0],),
        (debug = DebugArrays(; greedy_sampled = Int32[0]),), (debug = DebugArrays(; next_tokens = Int32[0]),),
        (debug = DebugArrays(; topk_logits_unsorted = zeros(Float32, 2, 4)),),
        (debug = DebugArrays(; topk_topp_unnorm_probs_i32_unsorted = zeros(Int32, 4, 1)),),
        (debug = DebugArrays(; random_unnorm_cdf_sampled_high = zeros(UInt32, 3)),),
        (debug = DebugArrays(; random_unnorm_cdf_sampled_low = zeros(UInt32, 3)),),
        (debug = DebugArrays(; topk_indices_k = zeros(Int32, 4, 2)), top_k = 1),
        (debug = DebugArrays(; topk_logits_k = zeros(Float32, 3, 1)), top_k = 1),
        (debug = DebugArrays(; topk_topp_unnorm_probs_i32_k = zeros(Int32, 2, 2)), top_k = 1))
        @test thrown(() -> sample(sampler, logits; options...)) isa DimensionMismatch
    end
    @test thrown(() -> sample!(Int32[0], sampler, logits)) isa DimensionMismatch
    for options in ((;), (replace_val = 0,))
        error = thrown(() -> sample(sampler, logits; path = :other, options...))
        @test error isa ArgumentError && occursin(":bounded or :reference", error.msg)
    end
    other_type = DebugArrays(; topk_logits_unsorted = zeros(Float16, 4, 2))
    @test thrown(() -> sample(sampler, logits; debug = other_type)) isa
        ArgumentError
    @test thrown(() -> sample(sampler, logits; seed = -1)) isa InexactError
    message = sprint(showerror, thrown(() -> sample(sampler, logits; temperature = -1)))
    @test occursin("temperature", message) && occursin("NUC_INVALID_ARGUMENT", message)
    # With row_status, an impossible parameter affects only its own column.
    row_status = Vector{UInt32}(undef, 2)
    @test sample(sampler, logits; temperature = [-1, 0], row_status = row_status) == [-1, 0]
    @test row_status == [Nucleus.NUC_ROW_BAD_PARAMETER, 0]
    close(sampler)
end

@testset "errors of Sampler" begin
    for (options, status, argument) in (
        ((max_k = 2000,), INVALID, "max_k"), ((row_buckets = [4, 2],), INVALID, "row_buckets"),
        ((plugin_path = "/nowhere/plugin.so",), Nucleus.NUC_PLUGIN_NOT_FOUND, ""))
        @test is_error(thrown(() -> Sampler(; options...)), status, argument)
    end
    @test occursin("/nowhere/plugin.so", sprint(showerror,
        thrown(() -> Sampler(; plugin_path = "/nowhere/plugin.so"))))
    @test thrown(() -> Sampler(; max_k = -1)) isa InexactError
    @test thrown(() -> Sampler(; plugin_path = "a\0b")) isa ArgumentError
    @test thrown(() -> Sampler(; backend = :gpu)) isa ArgumentError
    @test thrown(() -> Sampler(; client_options = ("a" => nothing,))) isa ArgumentError
    @test thrown(() -> Nucleus.load("/nowhere/libnucleus.so.1")) isa ErrorException
end

@testset "information" begin
    Sampler(; backend = :builtin, num_threads = 1, max_k = 5) do sampler
        info = Nucleus.info(sampler)
        @test info.platform_name == "builtin" && info.num_devices == 1 && info.max_k == 5 &&
            info.pjrt_client == C_NULL
        @test length(Nucleus.devices(sampler)) == 1 && !isempty(Nucleus.devices(sampler)[1].kind)
        sample(sampler, zeros(Float32, 3, 1))
        stats = Nucleus.stats(sampler)
        @test stats.total_count == 1 && stats.total_p50_ns > 0 && stats.compiles == 0
        @test string(sampler) == "Sampler(builtin)"
    end
    @test Nucleus.version() >= v"0.1" && Nucleus.version_number() >= 1000 && Nucleus.abi_version() == 1
    @test Nucleus.set_log(:off) === nothing
    @test thrown(() -> Nucleus.set_log(:loud)) isa ArgumentError
end

@testset "programs to embed" begin
    text = Nucleus.emit(; num_rows = 2, vocab = 100, max_k = 8, name = "choose",
        debug_arrays = (:topk_logits,))
    @test occursin("func.func private @choose(", text) && occursin("tensor<2x100xf32>", text) &&
        !endswith(text, "\0")
    options = (vocab = 100, max_k = 8)
    parameters = Nucleus.pack_parameters(; num_rows = 2, options..., top_k = [5, 0], temperature = [0.5, 1],
        seed = [1, 2])
    @test size(parameters) == (Nucleus.NUC_PARAMETER_COLUMNS, 2)
    alone = Nucleus.pack_parameters(; num_rows = 1, options..., top_k = 5, temperature = 0.5, seed = 1)
    @test parameters[:, 1] == alone[:, 1] != parameters[:, 2]
    @test is_error(thrown(() -> Nucleus.pack_parameters(; num_rows = 2, options..., temperature = [1, -1])),
        INVALID, "temperature", 2)
    @test thrown(() -> Nucleus.pack_parameters(; num_rows = 2, options..., top_k = [1])) isa DimensionMismatch
    @test thrown(() -> Nucleus.pack_parameters(; num_rows = 1 << 40, options...)) isa ArgumentError
    @test is_error(thrown(() -> Nucleus.emit(; num_rows = 2, vocab = 100, target = "no such target")),
        INVALID, "target")
end
