# The element types and the memory of logits.

"""
    Nucleus.BFloat16Bits(bits::UInt16)

The bits of a bfloat16 number, for programs without a bfloat16 type. `reinterpret` makes a matrix of it without a copy:

    bits = rand(UInt16, vocab, batch)                              # from a model
    sample(sampler, reinterpret(Nucleus.BFloat16Bits, bits))

`Float32(x)` converts exactly. `BFloat16Bits(x::Float32)` rounds to nearest, ties to even.

Other types: `Core.BFloat16` of Julia 1.11 and newer, which newer versions of the package BFloat16s also use, works as
it is. For an older version of BFloat16s, define once

    Nucleus.dtype(::Type{BFloat16s.BFloat16}) = Nucleus.NUC_DTYPE_BF16
"""
struct BFloat16Bits
    bits::UInt16
end

function BFloat16Bits(x::Float32)
    bits = reinterpret(UInt32, x)
    isnan(x) && return BFloat16Bits((bits >> 16 | 0x0040) % UInt16)
    BFloat16Bits(((bits + 0x7fff + (bits >> 16 & 0x1)) >> 16) % UInt16)
end

Base.Float32(x::BFloat16Bits) = reinterpret(Float32, UInt32(x.bits) << 16)

"""
    Nucleus.dtype(T)

The `nuc_dtype` of an element type. Add a method for a type of your own with the memory of a bfloat16 number.
"""
dtype(::Type{Float32}) = NUC_DTYPE_F32
dtype(::Type{Float16}) = NUC_DTYPE_F16
dtype(::Type{BFloat16Bits}) = NUC_DTYPE_BF16
@static if isdefined(Core, :BFloat16)
    dtype(::Type{Core.BFloat16}) = NUC_DTYPE_BF16
end
dtype(::Type{T}) where {T} =
    throw(ArgumentError("logits of type $T are not supported; use Float32, Float16 or bfloat16"))

# The distance between two columns in elements. Throws if the matrix has no memory that C can read.
function row_stride(logits::AbstractMatrix)
    first, second = try
        strides(logits)
    catch
        throw(ArgumentError("logits of type $(typeof(logits)) have no strides; convert them to a Matrix"))
    end
    size(logits, 1) <= 1 || first == 1 ||
        throw(ArgumentError("the columns of logits are not contiguous; the first dimension must be the vocabulary"))
    size(logits, 2) <= 1 && return size(logits, 1)
    second >= size(logits, 1) || throw(ArgumentError("the columns of logits overlap"))
    second
end
