# Errors of the library as exceptions.

"""
    NucleusError

The reason why a call failed. A call that fails writes no output.

- `status`: the kind of the failure, for example `Nucleus.NUC_INVALID_ARGUMENT` or `Nucleus.NUC_OUT_OF_MEMORY`.
- `argument`: the name of the argument or struct at fault, or `""` if there is no single one.
- `column`: the column at fault, counted from 1, or `nothing` if there is no single one. `message` counts it as a row from 0.
- `message`: the reason. It can have several lines.
"""
struct NucleusError <: Exception
    status::Int32
    argument::String
    column::Union{Int, Nothing}
    message::String
end

status_string(status) = unsafe_string(ccall(address(nuc_status_string), Ptr{UInt8}, (nuc_status,), status))

Base.showerror(io::IO, e::NucleusError) = print(io, "NucleusError: ", e.message, " (", status_string(e.status), ")")

function field_pointer(base::Ptr, ::Type{T}, name::Symbol) where {T}
    index = Base.fieldindex(T, name)
    Ptr{fieldtype(T, index)}(UInt(base) + fieldoffset(T, index))
end

# A nuc_error that belongs to one call, and the buffer of its whole message.
mutable struct ErrorBuffer
    # Memory of a nuc_error. Only its inputs are initialized.
    bytes::Vector{UInt8}
    full_message::Vector{UInt8}
end

const no_message = UInt8[]

function ErrorBuffer(full_message_size::Int)
    ErrorBuffer(Vector{UInt8}(undef, sizeof(nuc_error)), full_message_size == 0 ? no_message :
        Vector{UInt8}(undef, full_message_size))
end

# The buffer must be preserved while the pointer is used.
function Base.pointer(buffer::ErrorBuffer)
    base = pointer(buffer.bytes)
    size = length(buffer.full_message)
    unsafe_store!(field_pointer(base, nuc_error, :struct_size), Csize_t(sizeof(nuc_error)))
    unsafe_store!(field_pointer(base, nuc_error, :reserved), Int32(0))
    unsafe_store!(field_pointer(base, nuc_error, :full_message), size == 0 ? Ptr{UInt8}(C_NULL) :
        pointer(buffer.full_message))
    unsafe_store!(field_pointer(base, nuc_error, :full_message_size), Csize_t(size))
    Ptr{nuc_error}(base)
end

@noinline function failure(status, buffer::ErrorBuffer)
    GC.@preserve buffer begin
        base = pointer(buffer.bytes)
        get(name) = unsafe_load(field_pointer(base, nuc_error, name))
        argument = get(:argument)
        row = get(:row)
        message = isempty(buffer.full_message) ? field_pointer(base, nuc_error, :message) : get(:full_message)
        NucleusError(status, argument == C_NULL ? "" : unsafe_string(argument), row < 0 ? nothing : Int(row) + 1,
            unsafe_string(Ptr{UInt8}(message)))
    end
end

# Runs a function that takes a Ptr{nuc_error} and returns a status. Throws if the status is not NUC_OK.
@inline function check(function_::F, full_message_size::Int = 16384) where {F}
    buffer = ErrorBuffer(full_message_size)
    status = GC.@preserve buffer function_(pointer(buffer))
    status == NUC_OK || throw(failure(status, buffer))
    nothing
end
