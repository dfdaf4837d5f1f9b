# The time of a call for one row with k = 50 and p = 0.9, from Julia and from C. One thread, and the row is in the
# cache. test.sh bench runs it.

using Nucleus

const HELPER = ENV["NUCLEUS_TEST_HELPER"]

function julia_time(sampler, logits, calls)
    tokens, top_k, top_p, offset = Int32[0], Int32[50], Float32[0.9], UInt64[0]
    start = time_ns()
    for i in 1:calls
        offset[1] = i
        sample!(tokens, sampler, logits; top_k = top_k, top_p = top_p, offset = offset)
    end
    (time_ns() - start) / calls
end

c_time(sampler, logits, calls) = ccall((:nucleus_test_call_time, HELPER), Cdouble,
    (Ptr{Cvoid}, Ptr{Cfloat}, Csize_t, Int32), sampler.pointer, logits, length(logits), calls)

Sampler(; backend = :builtin, num_threads = 1) do sampler
    for vocab in (1024, 128256)
        logits = Float32[3 * sin(i * i) for i in 1:vocab, _ in 1:1]
        calls = 2_000_000 ÷ (vocab + 1000)
        julia_time(sampler, logits, 100)
        # Alternates between the two and uses the smallest time of each, so that other processes have less effect.
        times = [(julia_time(sampler, logits, calls), c_time(sampler, logits, calls)) for _ in 1:300]
        allocated = @allocated julia_time(sampler, logits, 1000)
        from_julia, from_c = round(Int, minimum(first.(times))), round(Int, minimum(last.(times)))
        println("vocab $vocab: Julia $from_julia ns, C $from_c ns, $(allocated ÷ 1000) bytes allocated per call")
    end
end
