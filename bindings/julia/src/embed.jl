# Programs to embed.

function emit_options(function_; num_rows::Integer, vocab::Integer, max_k::Integer = 0,
    target::AbstractString = "", name::AbstractString = "", type::Type = Float32, path::Symbol = :auto,
    keep_ties::Bool = false, debug_arrays = ())
    target, name = text("target", target), text("name", name)
    GC.@preserve target name begin
        function_(nuc_emit_options(; num_rows = num_rows, vocab = vocab, max_k = max_k,
            target = text_pointer(target), name = text_pointer(name), dtype = dtype(type),
            path = choice("path", PATHS, path), keep_ties = keep_ties,
            debug_arrays = debug_bits(debug_arrays)))
    end
end

"""
    Nucleus.emit(; num_rows, vocab, options...) -> String

The sampler as a StableHLO function in MLIR's text form, for a program of the caller. Options: `max_k`, `target`
(`"portable"`, a TPU generation or a GPU model), `name`, `type` (the element type of the logits), `path`, `keep_ties`,
`debug_arrays`.
"""
function emit(; options...)
    emit_options(; options...) do c
        emit_to(text, size, length) = check() do e
            ccall(address(nuc_emit), nuc_status,
                (Ref{nuc_emit_options}, Ptr{UInt8}, Csize_t, Ref{Csize_t}, Ptr{nuc_error}), c, text, size,
                length, e)
        end
        length = Ref{Csize_t}(0)
        emit_to(C_NULL, 0, length)
        text = Vector{UInt8}(undef, length[] + 1)
        emit_to(text, sizeof(text), length)
        String(resize!(text, length[]))
    end
end

"""
    Nucleus.pack_parameters(; num_rows, vocab, options..., top_k, top_p, min_p, temperature, seed, offset) -> Matrix{Int32}

The array of parameters that an embedded function takes, `(Nucleus.NUC_PARAMETER_COLUMNS, num_rows)`. The options are
those of [`Nucleus.emit`](@ref). The parameters are those of [`sample!`](@ref).
"""
function pack_parameters(; num_rows::Integer, top_k = nothing, top_p = nothing, min_p = nothing,
    temperature = nothing, seed = nothing, offset = nothing, options...)
    # The library checks the limit too. It is checked here so that a wrong number does not cause a large allocation.
    0 <= num_rows <= 65536 || throw(ArgumentError("num_rows is $num_rows; it must be from 1 to 65536"))
    ks, ps = column_values(:top_k, Int32, top_k, num_rows), column_values(:top_p, Float32, top_p, num_rows)
    mins = column_values(:min_p, Float32, min_p, num_rows)
    temperatures = column_values(:temperature, Float32, temperature, num_rows)
    seeds, offsets = column_values(:seed, UInt64, seed, num_rows),
        column_values(:offset, UInt64, offset, num_rows)
    parameters = Matrix{Int32}(undef, Int(NUC_PARAMETER_COLUMNS), num_rows)
    emit_options(; num_rows = num_rows, options...) do c
        GC.@preserve ks ps mins temperatures seeds offsets begin
            batch = nuc_batch(; dtype = c.dtype, num_rows = num_rows, vocab = c.vocab,
                top_k = array_pointer(ks, Int32), top_p = array_pointer(ps, Cfloat),
                min_p = array_pointer(mins, Cfloat), temperature = array_pointer(temperatures, Cfloat),
                seed = array_pointer(seeds, UInt64), offset = array_pointer(offsets, UInt64))
            check() do e
                ccall(address(nuc_pack_parameters), nuc_status,
                    (Ref{nuc_emit_options}, Ref{nuc_batch}, Ref{nuc_call_options}, Ptr{Int32},
                    Ptr{nuc_error}), c, batch, nuc_call_options(; keep_ties = c.keep_ties), parameters, e)
            end
        end
    end
    parameters
end
