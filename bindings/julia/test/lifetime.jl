# Closing objects, finalizers, tasks and threads.

@testset "layout" begin
    for (T, size, offsets) in Nucleus.LAYOUT
        @test sizeof(T) == size
        @test [field => fieldoffset(T, i) for (i, field) in enumerate(fieldnames(T))] == offsets
    end
    # Every function of the header is called.
    sources = join(read(joinpath(dirname(pathof(Nucleus)), file), String)
        for file in readdir(dirname(pathof(Nucleus))) if file != "layout.jl")
    for function_ in keys(Nucleus.FUNCTIONS)
        # nuc_prewarm is nuc_prewarm_start and a wait, and load looks up nuc_abi_version by name.
        function_ === :nuc_prewarm || @test occursin(Regex("\\b$function_\\b"), sources)
    end
end

@testset "close" begin
    sampler = Sampler(; backend = :builtin)
    @test isopen(sampler)
    @test close(sampler) === nothing && close(sampler) === nothing && !isopen(sampler)
    @test string(sampler) == "Sampler(closed)"
    for call in (() -> sample(sampler, zeros(Float32, 2, 1)), () -> Nucleus.stats(sampler),
        () -> Nucleus.start_prewarm(sampler; vocab = 2, batch = 1))
        @test is_error(thrown(call), INVALID, "sampler")
    end
    @test_throws ErrorException Sampler(s -> (sampler = s; error("leaves the block")); backend = :builtin)
    @test !isopen(sampler)
end

@testset "copies" begin
    sampler = Sampler(; backend = :builtin)
    prewarming = Nucleus.start_prewarm(sampler; vocab = 2, batch = 1)
    for object in (sampler, prewarming), holder in (object, [object], (a = object,), Dict(1 => object))
        failure = thrown(() -> deepcopy(holder))
        @test failure isa ArgumentError && occursin("cannot be copied", failure.msg)
    end
    @test_throws MethodError copy(sampler)
    # The other types are not created without a plugin.
    for T in subtypes(Nucleus.Handle)
        @test which(Base.deepcopy_internal, (T, IdDict)).module === Nucleus
    end
    close(prewarming)
    # Serialization does not write the pointer.
    stream = IOBuffer()
    serialize(stream, sampler)
    seekstart(stream)
    @test is_error(thrown(() -> sample(deserialize(stream), zeros(Float32, 2, 1))), INVALID, "sampler")
    @test sample(sampler, reshape(Float32[0, 1], 2, 1); temperature = 0) == [1]
    close(sampler)
end

threads_of_process() = length(readdir("/proc/self/task"))

@testset "finalizers" begin
    create() = (for _ in 1:10; Sampler(; backend = :builtin, num_threads = 16); end)
    GC.gc()
    before = threads_of_process()
    create()
    GC.gc()
    deadline = time() + 20
    while threads_of_process() >= before + 16 && time() < deadline
        GC.gc()
        sleep(0.01)
    end
    @test threads_of_process() < before + 16
    # A finalizer that runs during a call does not free the object.
    sampler = Sampler(; backend = :builtin)
    survives = Nucleus.use(_ -> (finalize(sampler); isopen(sampler)), sampler)
    @test survives
    if survives
        @test length(sample(sampler, zeros(Float32, 2, 1))) == 1
        close(sampler)
        finalize(sampler)
        @test !isopen(sampler)
    end
    # An array that only a call refers to is not collected during the call.
    sampler = Sampler(; backend = :builtin, num_threads = 1)
    collector = Threads.@spawn for _ in 1:50
        GC.gc(false)
        yield()
    end
    for i in 1:200
        @test sample(sampler, [Float32(j == i) for j in 1:500, _ in 1:2]; temperature = [0, 0]) ==
            [i - 1, i - 1]
    end
    wait(collector)
    close(sampler)
end

@testset "tasks and threads" begin
    @test Threads.nthreads() >= 2
    sampler = Sampler(; backend = :builtin, num_threads = 2)
    logits = 3 * randn(Float32, 500, 1)
    run(seed) = [only(sample(sampler, logits; seed = seed, offset = step)) for step in 1:50]
    wanted = [run(seed) for seed in 1:8]
    found = [fetch(task) for task in [Threads.@spawn(run(seed)) for _ in 1:5 for seed in 1:8]]
    @test found == repeat(wanted, 5)
    # Calls during and after a close work or throw.
    tasks = [Threads.@spawn begin
        calls = 0
        failure = nothing
        while failure === nothing
            failure = thrown(() -> sample(sampler, logits))
            calls += 1
            yield() # Otherwise the tasks occupy all threads, and the test does not continue.
        end
        calls, failure
    end for _ in 1:8]
    sleep(0.05)
    close(sampler)
    for task in tasks
        calls, failure = fetch(task)
        @test calls >= 1 && is_error(failure, INVALID, "sampler")
    end
end

@testset "prewarm, built-in backend" begin
    sampler = Sampler(; backend = :builtin)
    @test prewarm(sampler; vocab = 100, batch = 8) === nothing
    @test is_error(thrown(() -> prewarm(sampler; vocab = 100, batch = 0)), INVALID, "num_rows")
    prewarming = Nucleus.start_prewarm(sampler; vocab = 100, batch = 8, type = Float16,
        debug_arrays = (:k_slices,))
    close(sampler)
    wait(prewarming; timeout = 5)
    @test Nucleus.progress(prewarming) == (done = 0, total = 0, has_ended = true)
    Nucleus.cancel(prewarming)
    close(prewarming)
    @test is_error(thrown(() -> Nucleus.cancel(prewarming)), INVALID, "prewarming")
    Sampler(; backend = :builtin) do sampler
        @test is_error(thrown(() -> Nucleus.Parameters(sampler; vocab = 8, batch = 1)), INVALID, "sampler")
    end
end
