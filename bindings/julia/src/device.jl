# Logits on a device.

"""
    Nucleus.Parameters(sampler; vocab, batch, type = Float32, keep_ties = false, replace_val = nothing)

The parameters of the columns of a batch on the device. Every column has the defaults: plain sampling at temperature 1
with seed 0. `close` frees them. The sampler must have a plugin.
"""
mutable struct Parameters <: Handle
    pointer::Ptr{Cvoid}
    users::Users
    batch::Int

    function Parameters(sampler::Sampler; vocab::Integer, batch::Integer, type::Type = Float32,
        keep_ties::Bool = false, replace_val::Union{Nothing, Real} = nothing)
        options = nuc_parameters_options(; num_rows = batch, vocab = vocab, dtype = dtype(type),
            keep_ties = keep_ties, use_replace_val = replace_val !== nothing,
            replace_val = replace_val === nothing ? 0 : replace_val)
        result = Ref{Ptr{Cvoid}}(C_NULL)
        use(sampler) do s
            check() do e
                ccall(address(nuc_parameters_create), nuc_status,
                    (Ptr{Cvoid}, Ref{nuc_parameters_options}, Ref{Ptr{Cvoid}}, Ptr{nuc_error}), s, options,
                    result, e)
            end
        end
        parameters = new(result[], Users(0), batch)
        finalizer(finalize_handle, parameters)
        parameters
    end
end

free(pointer, e, ::Type{Parameters}) =
    ccall(address(nuc_parameters_destroy), nuc_status, (Ptr{Cvoid}, Ptr{nuc_error}), pointer, e)

"""
    Nucleus.set_column!(parameters, column; top_k, top_p, min_p, temperature, seed, offset)

Sets the parameters of a column, counted from 1, for calls that start later. A parameter that is not named has its
default. `offset` is the offset of the column's random words at step 0. Give each request its own seed. Columns with
equal seed and offset use the same random number.
"""
function set_column!(parameters::Parameters, column::Integer; top_k::Integer = 0,
    top_p::Union{Nothing, Real} = nothing, min_p::Real = 0, temperature::Union{Nothing, Real} = nothing,
    seed::Integer = 0, offset::Integer = 0)
    1 <= column <= parameters.batch ||
        throw(ArgumentError("column is $column; it must be from 1 to $(parameters.batch)"))
    values = nuc_row_parameters(; seed = seed, offset = offset, top_k = top_k, min_p = min_p,
        use_top_p = top_p !== nothing, top_p = top_p === nothing ? 0 : top_p,
        use_temperature = temperature !== nothing, temperature = temperature === nothing ? 0 : temperature)
    use(parameters) do p
        check() do e
            ccall(address(nuc_parameters_set), nuc_status,
                (Ptr{Cvoid}, Csize_t, Ref{nuc_row_parameters}, Ptr{nuc_error}), p, column - 1, values, e)
        end
    end
    parameters
end

"""
    Call

A call that was started on the device: see [`Nucleus.start`](@ref).

- `Nucleus.isdone(call)`: whether the call has ended.
- `wait(call)`: lets other tasks run until the call has ended, and throws its error.
- `Nucleus.tokens(call)`: waits and returns the tokens, counted from 0.
- `Nucleus.numbers(call)`: waits and returns every number of the columns.
- `Nucleus.take_buffer(call, which)`: a result on the device.
- `close(call)`: waits until the device has finished the call, and frees it.
"""
mutable struct Call <: Handle
    pointer::Ptr{Cvoid}
    users::Users
    batch::Int
end

free(pointer, e, ::Type{Call}) =
    ccall(address(nuc_call_destroy), nuc_status, (Ptr{Cvoid}, Ptr{nuc_error}), pointer, e)

"""
    Nucleus.start(sampler, logits, parameters, step; path, host_numbers, debug_arrays, donate_logits) -> Call

Starts to sample logits on the device. `logits` is a pointer to a `PJRT_Buffer` of the sampler's client with the
dimensions `[batch, vocab]` or `[batch, 1, vocab]`. `step` is added to the offset of every column. The function
compiles missing programs, and does not wait for other calls. The package cannot check that the pointer is a live
buffer of the client.

- `path`: `:auto`, `:arbitrary` or `:bounded`.
- `host_numbers`: what is copied to the host: `:tokens`, `:all` or `:none`. An impossible parameter affects only its
  own column with `:all`; otherwise `start` throws.
- `debug_arrays`: a tuple of `:topk_logits`, `:topk_topp_probs` and `:k_slices`: arrays that stay on the device as
  buffers.
- `donate_logits`: delete the contents of the buffer.
"""
function start(sampler::Sampler, logits::Ptr, parameters::Parameters, step::Integer; path::Symbol = :auto,
    host_numbers::Symbol = :tokens, debug_arrays = (), donate_logits::Bool = false)
    options = nuc_start_options(; host_numbers = choice("host_numbers", HOST_NUMBERS, host_numbers),
        debug_arrays = debug_bits(debug_arrays), donate_logits = donate_logits)
    result = Ref{Ptr{Cvoid}}(C_NULL)
    use(sampler) do s
        use(parameters) do p
            check() do e
                ccall(address(nuc_sample_start), nuc_status,
                    (Ptr{Cvoid}, nuc_path, Ptr{Cvoid}, Ptr{Cvoid}, UInt64, Ref{nuc_start_options},
                        Ref{Ptr{Cvoid}}, Ptr{nuc_error}),
                    s, choice("path", PATHS, path), logits, p, step, options, result, e)
            end
        end
    end
    call = Call(result[], Users(0), parameters.batch)
    finalizer(finalize_handle, call)
    call
end

"""
    Nucleus.sample_on_device(sampler, logits, parameters, step; path = :auto, row_status = nothing) -> tokens

Samples logits on the device and waits for the tokens. The other tasks of this thread do not run;
[`Nucleus.start`](@ref) and `wait` let them run.
"""
function sample_on_device(sampler::Sampler, logits::Ptr, parameters::Parameters,
    step::Integer; path::Symbol = :auto, row_status::Union{Nothing, Vector{UInt32}} = nothing)
    check_size(:row_status, row_status, (parameters.batch,))
    tokens = Vector{Int32}(undef, parameters.batch)
    use(sampler) do s
        use(parameters) do p
            check() do e
                ccall(address(nuc_sample_on_device), nuc_status,
                    (Ptr{Cvoid}, nuc_path, Ptr{Cvoid}, Ptr{Cvoid}, UInt64, Ptr{Int32}, Ptr{UInt32},
                        Ptr{nuc_error}),
                    s, choice("path", PATHS, path), logits, p, step, tokens,
                    row_status === nothing ? C_NULL : row_status, e)
            end
        end
    end
    tokens
end

"Whether a call on the device has ended. A call that failed has also ended. It does not wait."
function isdone(call::Call)
    done = Ref{Int32}(0)
    use(call) do c
        check(e -> ccall(address(nuc_call_is_done), nuc_status, (Ptr{Cvoid}, Ref{Int32}, Ptr{nuc_error}), c,
            done, e))
    end
    done[] != 0
end

# The conditions that threads of a plugin will notify. The set keeps them reachable, so that they are not freed before.
const conditions = Set{Base.AsyncCondition}()
const conditions_lock = ReentrantLock()

function Base.wait(call::Call; timeout::Real = Inf)
    if !isdone(call)
        isfinite(timeout) ? poll(() -> isdone(call), timeout, 0.001) : wait_for_callback(call)
    end
    use(call) do c
        check(e -> ccall(address(nuc_call_wait), nuc_status, (Ptr{Cvoid}, UInt64, Ptr{nuc_error}), c, 0, e))
    end
end

# The callback is uv_async_send of libuv. It is the only function of Julia's runtime that may run on a thread that
# Julia did not create, in every version of Julia.
function wait_for_callback(call::Call)
    ended = Base.Event()
    condition = Base.AsyncCondition() do condition
        lock(() -> delete!(conditions, condition), conditions_lock)
        close(condition)
        notify(ended)
    end
    lock(() -> push!(conditions, condition), conditions_lock)
    try
        use(call) do c
            check() do e
                ccall(address(nuc_call_on_done), nuc_status,
                    (Ptr{Cvoid}, Ptr{Cvoid}, Ptr{Cvoid}, Ptr{nuc_error}), c, cglobal(:uv_async_send),
                    condition.handle, e)
            end
        end
    catch
        # After an error, the callback does not run.
        lock(() -> delete!(conditions, condition), conditions_lock)
        close(condition)
        rethrow()
    end
    wait(ended)
end

"""
    Nucleus.tokens(call; row_status = nothing)

Waits until the call has ended and returns the tokens of its columns, counted from 0; -1 if a column has none.
`row_status` receives the bits of each column. It needs `host_numbers = :all`.
"""
function tokens(call::Call; row_status::Union{Nothing, Vector{UInt32}} = nothing)
    check_size(:row_status, row_status, (call.batch,))
    found = Vector{Int32}(undef, call.batch)
    wait(call)
    use(call) do c
        check() do e
            ccall(address(nuc_call_get_tokens), nuc_status,
                (Ptr{Cvoid}, Ptr{Int32}, Ptr{UInt32}, Ptr{nuc_error}), c, found,
                row_status === nothing ? C_NULL : row_status, e)
        end
    end
    found
end

"""
    Nucleus.numbers(call)

Waits until the call has ended and returns a [`DebugArrays`](@ref) with `greedy_sampled`, the two halves of r, and
`next_tokens`. The call needs `host_numbers = :all`.
"""
function numbers(call::Call)
    vector(::Type{T}) where {T} = Vector{T}(undef, call.batch)
    debug = DebugArrays(; greedy_sampled = vector(Int32), random_unnorm_cdf_sampled_high = vector(UInt32),
        random_unnorm_cdf_sampled_low = vector(UInt32), next_tokens = vector(Int32))
    wait(call)
    arrays = ntuple(i -> getfield(debug, i), fieldcount(DebugArrays))
    GC.@preserve debug arrays use(call) do c
        check() do e
            ccall(address(nuc_call_get_numbers), nuc_status,
                (Ptr{Cvoid}, Ref{nuc_debug_arrays}, Ptr{nuc_error}), c, pointers(debug), e)
        end
    end
    debug
end

const BUFFERS = Dict(:tokens => NUC_BUFFER_TOKENS, :topk_logits => NUC_BUFFER_TOPK_LOGITS,
    :topk_topp_probs => NUC_BUFFER_TOPK_TOPP_PROBS, :topk_indices_k => NUC_BUFFER_TOPK_INDICES_K,
    :topk_logits_k => NUC_BUFFER_TOPK_LOGITS_K, :topk_topp_probs_k => NUC_BUFFER_TOPK_TOPP_PROBS_K)

"""
    Nucleus.take_buffer(call, which) -> Ptr{Cvoid}

Gives a result of the call to the caller, as a pointer to a `PJRT_Buffer`. The caller destroys it with
PJRT_Buffer_Destroy. Each buffer can be taken once. `which` is `:tokens`, `:topk_logits`, `:topk_topp_probs`,
`:topk_indices_k`, `:topk_logits_k` or `:topk_topp_probs_k`. The function does not wait for the device.
"""
function take_buffer(call::Call, which::Symbol)
    buffer = Ref{Ptr{Cvoid}}(C_NULL)
    use(call) do c
        check() do e
            ccall(address(nuc_call_take_buffer), nuc_status,
                (Ptr{Cvoid}, nuc_buffer, Ref{Ptr{Cvoid}}, Ptr{nuc_error}), c, choice("which", BUFFERS, which),
                buffer, e)
        end
    end
    buffer[]
end
