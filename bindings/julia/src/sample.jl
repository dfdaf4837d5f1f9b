# Sampling logits in host memory.

# An array of parameters with one element per column. `nothing` is the default of the library.
column_values(name, ::Type{T}, ::Nothing, batch) where {T} = nothing
column_values(name, ::Type{T}, value::Real, batch) where {T} = fill(convert(T, value), batch)
function column_values(name, ::Type{T}, values::AbstractVector{<:Real}, batch) where {T}
    check_size(name, values, (batch,))
    convert(Vector{T}, values)
end

random_words_of(::Nothing, batch) = nothing
function random_words_of(words::AbstractMatrix{<:Integer}, batch)
    check_size(:random_words, words, (4, batch))
    convert(Matrix{UInt32}, words)
end

"""
    sample!(tokens, sampler, logits; parameters...) -> tokens

Chooses the next token of every column of `logits` `(vocab, batch)`. `tokens::Vector{Int32}` `(batch,)` receives the
tokens, counted from 0; -1 if a column has none. The logits are not copied.

Parameters, each a number for all columns or a vector with one element per column; `nothing` is the default:

- `top_k`: exactly k entries survive; the lower token wins a tie. 0 or at least vocab: off. Default: off.
- `top_p`: entries survive in descending order of weight until their sum is at least p times the total weight of the
  entries that top-k kept. 1: off. Default: off.
- `min_p`: entries whose weight is at least min_p times the largest weight survive. 0: off. Default: off.
- `temperature`: finite and at least 0. Below 1e-5 the column is greedy. Default: 1.
- `seed`, `offset`: determine the column's random words (Philox4x32-10). Change the offset at every step. Give each
  request its own seed. Columns with equal seed and offset use the same random number. Default: 0.

Other options:

- `random_words`: `(4, batch)`, a 128-bit number per column, the most significant word first, instead of seed and
  offset.
- `row_status::Vector{UInt32}` `(batch,)`: receives the `Nucleus.NUC_ROW_*` bits of each column. Without it, an
  impossible parameter is an error of the call. With it, the parameter affects only its own column.
- `keep_ties`: top-k keeps every entry that ties with the threshold.
- `path`: `:auto`, `:arbitrary`, `:bounded`, or `:reference`, which sorts on the CPU and is slow.
- `debug::DebugArrays`, `replace_val`: intermediate arrays, and the value of logits that top-k removed (default -1e12).

Throws a [`NucleusError`](@ref) if the library rejects a value, a `DimensionMismatch` if an array has a wrong size.
"""
function sample!(tokens::Vector{Int32}, sampler::Sampler, logits::AbstractMatrix{T}; top_k = nothing,
    top_p = nothing, min_p = nothing, temperature = nothing, random_words = nothing, seed = nothing,
    offset = nothing, row_status::Union{Nothing, Vector{UInt32}} = nothing, keep_ties::Bool = false,
    path::Symbol = :auto, debug::Union{Nothing, DebugArrays} = nothing,
    replace_val::Union{Nothing, Real} = nothing) where {T}
    vocab, batch = size(logits)
    check_size(:tokens, tokens, (batch,))
    check_size(:row_status, row_status, (batch,))
    arrays = (
        column_values(:top_k, Int32, top_k, batch),
        column_values(:top_p, Float32, top_p, batch),
        column_values(:min_p, Float32, min_p, batch),
        column_values(:temperature, Float32, temperature, batch),
        random_words_of(random_words, batch),
        column_values(:seed, UInt64, seed, batch),
        column_values(:offset, UInt64, offset, batch),
    )
    if debug === nothing && replace_val === nothing && path !== :reference
        sample_flat(tokens, sampler, logits, dtype(T), row_stride(logits), arrays, row_status, keep_ties,
            choice("path", PATHS, path, SAMPLE_FUNCTIONS))
    else
        sample_debug(tokens, sampler, logits, dtype(T), row_stride(logits), arrays, row_status, keep_ties,
            path, debug === nothing ? DebugArrays() : debug, replace_val)
    end
    tokens
end

"""
    sample(sampler, logits; parameters...) -> tokens

Like [`sample!`](@ref), with a new vector for the tokens.
"""
sample(sampler::Sampler, logits::AbstractMatrix; parameters...) =
    sample!(Vector{Int32}(undef, size(logits, 2)), sampler, logits; parameters...)

# Each array is an argument of `ccall`, which preserves it.
function sample_flat(tokens, sampler, logits, dtype, stride, arrays, row_status, keep_ties, path)
    top_k, top_p, min_p, temperature, random_words, seed, offset = arrays
    or_null(array) = array === nothing ? C_NULL : array
    use(sampler) do s
        check() do e
            ccall(address(nuc_sample_flat), nuc_status,
                (Ptr{Cvoid}, nuc_path, Ptr{Cvoid}, nuc_dtype, Csize_t, Csize_t, Csize_t, Ptr{Int32},
                    Ptr{Cfloat}, Ptr{Cfloat}, Ptr{Cfloat}, Ptr{UInt32}, Ptr{UInt64}, Ptr{UInt64}, Int32,
                    Ptr{Int32}, Ptr{UInt32}, Ptr{nuc_error}),
                s, path, logits, dtype, size(logits, 2), size(logits, 1), stride, or_null(top_k),
                or_null(top_p), or_null(min_p), or_null(temperature), or_null(random_words), or_null(seed),
                or_null(offset), keep_ties, tokens, or_null(row_status), e)
        end
    end
end

const SAMPLE_FUNCTIONS = Dict(:auto => nuc_topk_topp_and_sample,
    :arbitrary => nuc_arbitrary_topk_topp_and_sample, :bounded => nuc_bounded_topk_topp_and_sample,
    :reference => nuc_reference_topk_topp_and_sample)

function sample_debug(tokens, sampler, logits::AbstractMatrix{T}, dtype, stride, arrays, row_status,
    keep_ties, path, debug, replace_val) where {T}
    function_ = choice("path", SAMPLE_FUNCTIONS, path)
    check_sizes(debug, T, size(logits)..., sampler.max_k)
    options = nuc_call_options(; keep_ties = keep_ties, use_replace_val = replace_val !== nothing,
        replace_val = replace_val === nothing ? 0 : replace_val)
    top_k, top_p, min_p, temperature, random_words, seed, offset = arrays
    debug_arrays = ntuple(i -> getfield(debug, i), fieldcount(DebugArrays))
    GC.@preserve logits arrays top_k top_p min_p temperature random_words seed offset debug debug_arrays begin
        batch = nuc_batch(; logits = Ptr{Cvoid}(Base.unsafe_convert(Ptr{T}, logits)), dtype = dtype,
            num_rows = size(logits, 2), vocab = size(logits, 1), row_stride = stride,
            top_k = array_pointer(top_k, Int32), top_p = array_pointer(top_p, Cfloat),
            min_p = array_pointer(min_p, Cfloat), temperature = array_pointer(temperature, Cfloat),
            random_words = array_pointer(random_words, UInt32), seed = array_pointer(seed, UInt64),
            offset = array_pointer(offset, UInt64))
        use(sampler) do s
            check() do e
                ccall(address(function_), nuc_status,
                    (Ptr{Cvoid}, Ref{nuc_batch}, Ref{nuc_call_options}, Ptr{Int32}, Ptr{UInt32},
                        Ref{nuc_debug_arrays}, Ptr{nuc_error}),
                    s, batch, options, tokens, row_status === nothing ? C_NULL : row_status,
                    pointers(debug), e)
            end
        end
    end
end
