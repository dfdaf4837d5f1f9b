# Programs and device calls of a plugin. The helper library (bindings/testing) creates PJRT buffers.

upload(info, logits::Matrix{Float32}) = ccall((:nucleus_test_upload, HELPER), Ptr{Cvoid},
    (Ptr{Cvoid}, Ptr{Cvoid}, Ptr{Cvoid}, Int32, Int64, Int64), info.pjrt_api, info.pjrt_client, logits,
    Nucleus.dtype(Float32), size(logits, 2), size(logits, 1))

function download(info, buffer, length)
    values = Vector{Int32}(undef, length)
    @test ccall((:nucleus_test_download, HELPER), Int32, (Ptr{Cvoid}, Ptr{Cvoid}, Ptr{Cvoid}, Csize_t),
        info.pjrt_api, buffer, values, sizeof(values)) == 1
    values
end

destroy_buffer(info, buffer) =
    @test ccall((:nucleus_test_destroy, HELPER), Int32, (Ptr{Cvoid}, Ptr{Cvoid}), info.pjrt_api, buffer) == 1

@testset "prewarm, plugin" begin
    sampler = Sampler(; backend = :pjrt, plugin_path = PLUGIN, max_k = 8)
    @test Nucleus.info(sampler).platform_name == "cpu" && Nucleus.info(sampler).pjrt_api_version > v"0.1"
    # One thread compiles three programs, so that the prewarm has not ended when Julia has compiled the call of `wait`.
    prewarming = Nucleus.start_prewarm(sampler; vocab = 300, batch = 4, path = :bounded, num_threads = 1)
    @test is_error(thrown(() -> wait(prewarming; timeout = 0.001)), Nucleus.NUC_TIMEOUT, "")
    # Another task of this thread runs during the wait.
    other = @async 1 + 1
    wait(prewarming)
    @test istaskdone(other)
    progress = Nucleus.progress(prewarming)
    @test progress.has_ended && progress.done == progress.total > 0
    close(prewarming)
    compiles = Nucleus.stats(sampler).compiles
    sample(sampler, zeros(Float32, 300, 1); top_k = 5, path = :bounded)
    @test Nucleus.stats(sampler).compiles == compiles > 0
    # After a cancel, the remaining programs are not compiled. There are many programs, so that some remain even if the
    # cancel comes late.
    prewarming = Nucleus.start_prewarm(sampler; vocab = 301, batch = 16, num_threads = 1)
    Nucleus.cancel(prewarming)
    @test is_error(thrown(() -> wait(prewarming)), Nucleus.NUC_CANCELLED, "")
    close(prewarming)
    close(sampler)
end

@testset "compiling ahead" begin
    mktempdir() do directory
        options = (plugin_path = PLUGIN, output_dir = directory, vocab = 50, max_k = 8, path = :bounded)
        @test Nucleus.compile_ahead(; options..., row_counts = [1]) > 0
        Sampler(; backend = :pjrt, plugin_path = PLUGIN, max_k = 8, program_dir = directory) do sampler
            sample(sampler, zeros(Float32, 50, 1); top_k = 5, path = :bounded)
            stats = Nucleus.stats(sampler)
            @test stats.compiles == 0 && stats.loaded > 0
        end
        @test is_error(thrown(() -> Nucleus.compile_ahead(; options..., row_counts = Int[])), INVALID,
            "num_row_counts")
    end
end

@testset "logits on a device" begin
    vocab, batch = 50, 3
    sampler = Sampler(; backend = :pjrt, plugin_path = PLUGIN, max_k = 8)
    builtin = Sampler(; backend = :builtin)
    info = Nucleus.info(sampler)
    logits = Float32[3 * sin(i * i * j) for i in 1:vocab, j in 1:batch]
    buffer = upload(info, logits)
    @test buffer != C_NULL
    options = (top_k = [3, 0, 40], top_p = [0.9, 0.5, 1], min_p = [0, 0.1, 0.01], temperature = [1, 0, 2],
        seed = [1, 2, typemax(UInt64)])
    parameters = Nucleus.Parameters(sampler; vocab = vocab, batch = batch)
    set(column; changes...) =
        Nucleus.set_column!(parameters, column; map(values -> values[column], options)..., offset = 7,
            changes...)
    foreach(set, 1:batch)
    calls = [Nucleus.start(sampler, buffer, parameters, step; host_numbers = :all) for step in 0:3]
    for (index, call) in enumerate(calls)
        step = index - 1
        debug = DebugArrays(builtin, logits)
        wanted = sample(builtin, logits; options..., offset = 7 + step, debug = debug)
        wait(call; timeout = 60)
        wait(call)
        @test Nucleus.isdone(call)
        row_status = ones(UInt32, batch)
        @test Nucleus.tokens(call; row_status = row_status) == wanted && row_status == zeros(UInt32, batch)
        numbers = Nucleus.numbers(call)
        for name in (:greedy_sampled, :random_unnorm_cdf_sampled_high, :random_unnorm_cdf_sampled_low,
            :next_tokens)
            @test getfield(numbers, name) == getfield(debug, name)
        end
        taken = Nucleus.take_buffer(call, :tokens)
        @test is_error(thrown(() -> Nucleus.take_buffer(call, :tokens)), INVALID, "which")
        close(call)
        @test download(info, taken, batch) == wanted
        destroy_buffer(info, taken)
        @test Nucleus.sample_on_device(sampler, buffer, parameters, step) == wanted
    end

    # Many tasks wait for the callback of their own call.
    steps = 0:40
    wanted = [sample(builtin, logits; options..., offset = 7 + step) for step in steps]
    function tokens_of(step)
        own = Nucleus.start(sampler, buffer, parameters, step)
        wait(own)
        Nucleus.tokens(own) # The finalizer frees the call.
    end
    @test map(fetch, [@async(tokens_of(step)) for step in steps]) == wanted
    GC.gc()
    @test isempty(Nucleus.conditions)

    # Errors.
    call = Nucleus.start(sampler, buffer, parameters, 0)
    @test is_error(thrown(() -> Nucleus.tokens(call; row_status = zeros(UInt32, batch))), INVALID,
        "row_status")
    @test thrown(() -> Nucleus.tokens(call; row_status = UInt32[0])) isa DimensionMismatch
    @test is_error(thrown(() -> Nucleus.numbers(call)), INVALID, "call")
    @test is_error(thrown(() -> Nucleus.take_buffer(call, :topk_logits)), INVALID, "which")
    @test thrown(() -> Nucleus.take_buffer(call, :other)) isa ArgumentError
    close(call)
    @test is_error(thrown(() -> wait(call)), INVALID, "call")
    @test thrown(() -> set(batch + 1)) isa Union{ArgumentError, BoundsError}
    @test thrown(() -> Nucleus.set_column!(parameters, 0)) isa ArgumentError
    set(2; temperature = -1)
    @test is_error(thrown(() -> Nucleus.start(sampler, buffer, parameters, 0)), INVALID, "temperature", 2)
    row_status = zeros(UInt32, batch)
    tokens = Nucleus.sample_on_device(sampler, buffer, parameters, 0; row_status = row_status)
    @test tokens[2] == -1 && row_status == [0, Nucleus.NUC_ROW_BAD_PARAMETER, 0]
    wide = Nucleus.Parameters(sampler; vocab = vocab + 1, batch = batch)
    @test is_error(thrown(() -> Nucleus.start(sampler, buffer, wide, 0)), INVALID, "logits")
    destroy_buffer(info, buffer)
    foreach(close, (wide, parameters, sampler, builtin))
end
