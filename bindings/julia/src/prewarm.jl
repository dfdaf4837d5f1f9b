# Compiling the programs of a plugin before the first call needs them, and ahead of time.

"""
    Nucleus.Prewarming

A prewarm that runs in the background: see [`Nucleus.start_prewarm`](@ref).

- `wait(prewarming)`: lets other tasks run until the prewarm has ended, and throws its error.
- `Nucleus.progress(prewarming)`: a named tuple with the programs `done`, the `total`, and `has_ended`.
- `Nucleus.cancel(prewarming)`: starts no further compilations. It does not wait.
- `close(prewarming)`: cancels, waits for the compilations that are running, and frees the prewarm. Close every
  prewarm before the process ends.
"""
mutable struct Prewarming <: Handle
    pointer::Ptr{Cvoid}
    users::Users
end

free(pointer, e, ::Type{Prewarming}) =
    ccall(address(nuc_prewarming_destroy), nuc_status, (Ptr{Cvoid}, Ptr{nuc_error}), pointer, e)

"""
    Nucleus.start_prewarm(sampler; vocab, batch, options...) -> Prewarming

Starts to compile every program that later calls can need. Calls can run at the same time. The built-in backend
compiles nothing.

- `vocab`, `batch`: the size of the logits. With logits in host memory, `batch` is the largest number of columns.
- `type`: the element type of the logits. Default: `Float32`.
- `path`, `keep_ties`: as in [`sample!`](@ref).
- `debug_arrays`: a tuple of `:topk_logits`, `:topk_topp_probs` and `:k_slices`: the arrays that calls will request.
- `logits`: `:host` or `:device`.
- `has_middle_dimension`, `host_numbers`: properties of calls on a device: see nuc_prewarm_spec in nucleus.h.
- `num_threads`: the largest number of programs that are compiled at the same time. Default: one per core.
"""
function start_prewarm(sampler::Sampler; vocab::Integer, batch::Integer, type::Type = Float32,
    path::Symbol = :auto, keep_ties::Bool = false, debug_arrays = (), logits::Symbol = :host,
    has_middle_dimension::Bool = false, host_numbers::Symbol = :tokens, num_threads::Integer = 0)
    spec = nuc_prewarm_spec(; path = choice("path", PATHS, path), dtype = dtype(type), num_rows = batch,
        vocab = vocab, keep_ties = keep_ties, debug_arrays = debug_bits(debug_arrays),
        logits = choice("logits", PLACES, logits), has_middle_dimension = has_middle_dimension,
        host_numbers = choice("host_numbers", HOST_NUMBERS, host_numbers), num_threads = num_threads)
    result = Ref{Ptr{Cvoid}}(C_NULL)
    use(sampler) do s
        check() do e
            ccall(address(nuc_prewarm_start), nuc_status,
                (Ptr{Cvoid}, Ref{nuc_prewarm_spec}, Ref{Ptr{Cvoid}}, Ptr{nuc_error}), s, spec, result, e)
        end
    end
    prewarming = Prewarming(result[], Users(0))
    finalizer(finalize_handle, prewarming)
    prewarming
end

"""
    prewarm(sampler; vocab, batch, options...)

[`Nucleus.start_prewarm`](@ref) and `wait`. Other tasks can run during the wait.
"""
function prewarm(sampler::Sampler; options...)
    prewarming = start_prewarm(sampler; options...)
    try
        wait(prewarming)
    finally
        close(prewarming)
    end
end

progress(prewarming::Prewarming) = use(progress, prewarming)

function progress(pointer::Ptr{Cvoid})
    found = Ref(nuc_prewarm_progress())
    check() do e
        ccall(address(nuc_prewarming_get_progress), nuc_status,
            (Ptr{Cvoid}, Ref{nuc_prewarm_progress}, Ptr{nuc_error}), pointer, found, e)
    end
    (done = Int(found[].done), total = Int(found[].total), has_ended = found[].has_ended != 0)
end

cancel(prewarming::Prewarming) = use(cancel, prewarming)

cancel(pointer::Ptr{Cvoid}) =
    check(e -> ccall(address(nuc_prewarming_cancel), nuc_status, (Ptr{Cvoid}, Ptr{nuc_error}), pointer, e))

# nuc_prewarming_destroy waits for compilations. This function waits in Julia instead.
function destroy(prewarming::Prewarming)
    cancel(prewarming.pointer)
    poll(() -> progress(prewarming.pointer).has_ended, Inf, 0.01)
    check(e -> free(prewarming.pointer, e, Prewarming))
end

"""
    wait(prewarming; timeout = Inf)
    wait(call; timeout = Inf)

Waits until a prewarm or a call on a device has ended, for at most `timeout` seconds, and throws its error. After the
time it throws a [`NucleusError`](@ref) with the status `Nucleus.NUC_TIMEOUT`; the prewarm or the call continues.
Other tasks can run during the wait.
"""
function Base.wait(prewarming::Prewarming; timeout::Real = Inf)
    # The library has no callback for the end of a prewarm. A compilation takes seconds, so 10 ms do not matter.
    poll(() -> progress(prewarming).has_ended, timeout, 0.01)
    use(prewarming) do p
        check(e -> ccall(address(nuc_prewarming_wait), nuc_status, (Ptr{Cvoid}, UInt64, Ptr{nuc_error}), p, 0,
            e))
    end
end

# Waits in Julia, because a thread that waits in C would stop the garbage collector.
function poll(has_ended, timeout, interval)
    deadline = time() + timeout
    while !has_ended() && time() < deadline
        sleep(max(min(interval, deadline - time()), 0.001))
    end
end

"""
    Nucleus.compile_ahead(; output_dir, row_counts, vocab, options...)

Compiles the programs that calls will need and writes each one to a file in `output_dir`. A sampler whose
`program_dir` is that directory loads them. Returns the number of files. It can take minutes; other tasks of this
thread do not run.

The options are those of nuc_compile_ahead_options in nucleus.h: `plugin_path`, `topology`, `plugin_options` (pairs),
`max_k`, `type` (the element type), `path`, `keep_ties`, `debug_arrays`, `smaller_row_counts`, `output_dir_capacity`,
`row_buckets`, `logits` (`:host` or `:device`), `has_middle_dimension`.
"""
function compile_ahead(; output_dir::AbstractString, row_counts, vocab::Integer,
    plugin_path::AbstractString = "", topology::AbstractString = "", plugin_options = (), max_k::Integer = 0,
    type::Type = Float32, path::Symbol = :auto, keep_ties::Bool = false, debug_arrays = (),
    smaller_row_counts::Bool = false, output_dir_capacity::Integer = 0, row_buckets = (),
    logits::Symbol = :host, has_middle_dimension::Bool = false)
    output_dir, plugin_path = text("output_dir", output_dir), text("plugin_path", plugin_path)
    topology = text("topology", topology)
    structs, strings = client_options(plugin_options)
    rows, buckets = collect(Csize_t, row_counts), collect(Csize_t, row_buckets)
    written = Ref{Csize_t}(0)
    GC.@preserve output_dir plugin_path topology structs strings rows buckets begin
        options = nuc_compile_ahead_options(; plugin_path = text_pointer(plugin_path),
            topology = text_pointer(topology), plugin_options = array_pointer(structs, nuc_client_option),
            num_plugin_options = length(structs), output_dir = text_pointer(output_dir),
            row_counts = array_pointer(rows, Csize_t), num_row_counts = length(rows), vocab = vocab,
            max_k = max_k, dtype = dtype(type), path = choice("path", PATHS, path), keep_ties = keep_ties,
            debug_arrays = debug_bits(debug_arrays), smaller_row_counts = smaller_row_counts,
            output_dir_capacity = output_dir_capacity, row_buckets = array_pointer(buckets, Csize_t),
            num_row_buckets = length(buckets), logits = choice("logits", PLACES, logits),
            has_middle_dimension = has_middle_dimension)
        check() do e
            ccall(address(nuc_compile_ahead), nuc_status,
                (Ref{nuc_compile_ahead_options}, Ref{Csize_t}, Ptr{nuc_error}), options, written, e)
        end
    end
    Int(written[])
end
