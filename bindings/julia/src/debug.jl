# Debug arrays.

"""
    DebugArrays(sampler, logits; k_slices = false)
    DebugArrays(; arrays...)

The intermediate arrays of a call, for validation. They are bit-identical on every backend. The first form allocates all
arrays. The second form uses arrays of the caller; an array that is `nothing` is not computed.

With V the vocabulary, B the number of columns, K the sampler's `max_k`, and T the type of the logits:

- `greedy_sampled::Vector{Int32}` `(B,)`: the lowest token with the column's maximum; -1 if there is no candidate.
- `topk_logits_unsorted::Matrix{T}` `(V, B)`: the cleaned logit if top-k kept the entry, else `replace_val`.
- `topk_topp_unnorm_probs_i32_unsorted::Matrix{Int32}` `(V, B)`: the integer weight if all filters kept the entry,
  else 0.
- `random_unnorm_cdf_sampled_high`, `random_unnorm_cdf_sampled_low::Vector{UInt32}` `(B,)`: the two halves of r, the
  random number modulo the total of the kept weights.
- `next_tokens::Vector{Int32}` `(B,)`: the lowest token whose inclusive prefix sum of kept weights exceeds r; -1 if
  none.
- `topk_indices_k::Matrix{Int32}` `(K, B)`: the tokens that top-k kept, ascending; -1 in unused slots.
- `topk_logits_k::Matrix{T}` `(K, B)`, `topk_topp_unnorm_probs_i32_k::Matrix{Int32}` `(K, B)`: the logits and weights
  of these.

The last three are the k-slices. They belong to the bounded path: with one of them, every column needs `1 <= top_k <=
max_k`, or a vocabulary of at most `max_k`. Tokens count from 0.
"""
Base.@kwdef struct DebugArrays{L <: Union{Nothing, Matrix}, S <: Union{Nothing, Matrix}}
    greedy_sampled::Union{Nothing, Vector{Int32}} = nothing
    topk_logits_unsorted::L = nothing
    topk_topp_unnorm_probs_i32_unsorted::Union{Nothing, Matrix{Int32}} = nothing
    random_unnorm_cdf_sampled_high::Union{Nothing, Vector{UInt32}} = nothing
    random_unnorm_cdf_sampled_low::Union{Nothing, Vector{UInt32}} = nothing
    next_tokens::Union{Nothing, Vector{Int32}} = nothing
    topk_indices_k::Union{Nothing, Matrix{Int32}} = nothing
    topk_logits_k::S = nothing
    topk_topp_unnorm_probs_i32_k::Union{Nothing, Matrix{Int32}} = nothing
end

function DebugArrays(sampler::Sampler, logits::AbstractMatrix{T}; k_slices::Bool = false) where {T}
    vocab, batch = size(logits)
    slots(::Type{S}) where {S} = k_slices ? Matrix{S}(undef, sampler.max_k, batch) : nothing
    DebugArrays(; greedy_sampled = Vector{Int32}(undef, batch),
        topk_logits_unsorted = Matrix{T}(undef, vocab, batch),
        topk_topp_unnorm_probs_i32_unsorted = Matrix{Int32}(undef, vocab, batch),
        random_unnorm_cdf_sampled_high = Vector{UInt32}(undef, batch),
        random_unnorm_cdf_sampled_low = Vector{UInt32}(undef, batch),
        next_tokens = Vector{Int32}(undef, batch), topk_indices_k = slots(Int32), topk_logits_k = slots(T),
        topk_topp_unnorm_probs_i32_k = slots(Int32))
end

check_size(name, ::Nothing, wanted) = nothing
function check_size(name, array, wanted)
    size(array) == wanted ||
        throw(DimensionMismatch("$name has the size $(size(array)); it must have the size $wanted"))
    nothing
end

check_eltype(name, ::Nothing, T) = nothing
check_eltype(name, array, T) =
    eltype(array) === T || throw(ArgumentError("$name has elements of type $(eltype(array)); it must have $T"))

function check_sizes(debug::DebugArrays, ::Type{T}, vocab, batch, max_k) where {T}
    for name in (:greedy_sampled, :random_unnorm_cdf_sampled_high, :random_unnorm_cdf_sampled_low,
        :next_tokens)
        check_size(name, getfield(debug, name), (batch,))
    end
    for name in (:topk_logits_unsorted, :topk_topp_unnorm_probs_i32_unsorted)
        check_size(name, getfield(debug, name), (vocab, batch))
    end
    for name in (:topk_indices_k, :topk_logits_k, :topk_topp_unnorm_probs_i32_k)
        check_size(name, getfield(debug, name), (max_k, batch))
    end
    check_eltype(:topk_logits_unsorted, debug.topk_logits_unsorted, T)
    check_eltype(:topk_logits_k, debug.topk_logits_k, T)
end

# The arrays must be preserved while the struct is used.
function pointers(debug::DebugArrays)
    nuc_debug_arrays(; greedy_sampled = array_pointer(debug.greedy_sampled, Int32),
        topk_logits_unsorted = array_pointer(debug.topk_logits_unsorted, Cvoid),
        topk_topp_unnorm_probs_i32_unsorted = array_pointer(debug.topk_topp_unnorm_probs_i32_unsorted, Int32),
        random_unnorm_cdf_sampled_high = array_pointer(debug.random_unnorm_cdf_sampled_high, UInt32),
        random_unnorm_cdf_sampled_low = array_pointer(debug.random_unnorm_cdf_sampled_low, UInt32),
        next_tokens = array_pointer(debug.next_tokens, Int32),
        topk_indices_k = array_pointer(debug.topk_indices_k, Int32),
        topk_logits_k = array_pointer(debug.topk_logits_k, Cvoid),
        topk_topp_unnorm_probs_i32_k = array_pointer(debug.topk_topp_unnorm_probs_i32_k, Int32))
end
