"""
Chooses the next token of a language model. The package calls the C library nucleus.

A [`Sampler`](@ref) applies top-k, top-p, min-p and temperature to each column of a matrix of logits, and draws one
token per column. The same column, parameters and random numbers give the same token, bit for bit: on the built-in CPU
backend, on every device with a PJRT plugin, alone or in a batch.

    sampler = Sampler()
    logits = randn(Float32, 128256, 8)                       # (vocab, batch)
    tokens = sample(sampler, logits; top_k = 50, top_p = 0.9, seed = 1:8, offset = step)

# Arrays

A `(vocab, batch)` matrix of Julia is the row-major `[batch, vocab]` array of C. So no call copies the logits. The
matrix can be an `Array` or a view whose columns are contiguous, for example `view(a, 1:n, :)`. The element type is
`Float32`, `Float16`, or a bfloat16 type: see [`Nucleus.BFloat16Bits`](@ref).

# Counting from 0 and from 1

Tokens are data, not indices of Julia: a tokenizer, a model file and the other languages count them from 0, and -1
means that there is no token. So tokens, and the indices of tokens in debug arrays, count from 0. The logit of the
token `t` in column `j` is `logits[t + 1, j]`. Columns are indices of Julia and count from 1. Messages of the library
count rows from 0.

# Tasks and threads

Any number of tasks and threads may use the same object. `close` waits for the calls that use the object; later calls
throw. No task may write an array while a call uses it. During a call of C the garbage collector waits, because Julia
before version 1.12 cannot collect while a thread is in a `ccall`. Functions that wait for a device or a compiler let
other tasks run.

# Memory

`close` frees an object, and `Sampler(f; ...)` closes the sampler when `f` returns. A finalizer frees objects that are
not closed. Errors of the library are [`NucleusError`](@ref)s.
"""
module Nucleus

# Common words such as `start` are not exported.
export Sampler, NucleusError, DebugArrays, sample, sample!, prewarm

using Libdl

include("layout.jl")
include("library.jl")
include("errors.jl")
include("lifetime.jl")
include("logits.jl")
include("options.jl")
include("sampler.jl")
include("debug.jl")
include("sample.jl")
include("prewarm.jl")
include("device.jl")
include("embed.jl")
include("info.jl")

__init__() = load_quietly()

end
