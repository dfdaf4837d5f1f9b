# Errors of the library as exceptions.

"""
    NucleusError

The reason why a call failed. A call that fails writes no output.

- `status`: the kind of the failure, for example `Nucleus.NUC_INVALID_ARGUMENT` or `Nucleus.NUC_OUT_OF_MEMORY`.
- `argument`: the name of the argument or struct at fault, or `""` if there is no single one.
- `column`: the column at fault, counted from 1, or `nothing` if there is no single one. `message` counts it as a row
  from 0.
- `message`: the reason. It can have several lines.
"""
struct NucleusError <: Exception
    status::Int32
    argument::String
    column::Union{Int, Nothing}
    message::String
end

status_string(status) = unsafe_string(ccall(address(nuc_status_string), Ptr{UInt8}, (nuc_status,), status))

Base.showerror(io::IO, e::NucleusError) = print(io, "NucleusError: ", e.message, " (",
    status_string(e.status), ")")

function field_pointer(base::Ptr, ::Type{T}, name::Symbol) where {T}
    index = findfirst(==(name), fieldnames(T))
    Ptr{fieldtype(T, index)}(UInt(base) + fieldoffset(T, index))
end

# A nuc_error, and the buffer of its whole message. One call uses it at a time.
struct ErrorBuffer
    bytes::Vector{UInt8}
    full_message::Vector{UInt8}
end

function ErrorBuffer()
    # Zeros are valid inputs of the other fields.
    buffer = ErrorBuffer(zeros(UInt8, sizeof(nuc_error)), Vector{UInt8}(undef, 16384))
    GC.@preserve buffer begin
        base = pointer(buffer.bytes)
        unsafe_store!(field_pointer(base, nuc_error, :struct_size), Csize_t(sizeof(nuc_error)))
        unsafe_store!(field_pointer(base, nuc_error, :full_message), pointer(buffer.full_message))
        unsafe_store!(field_pointer(base, nuc_error, :full_message_size),
            Csize_t(length(buffer.full_message)))
    end
    buffer
end

# Buffers that no call uses. They are kept, because allocating one for each call would take longer than a small call.
const unused_buffers = ErrorBuffer[]
const unused_buffers_lock = Threads.SpinLock()

function take_error_buffer()
    lock(unused_buffers_lock)
    buffer = isempty(unused_buffers) ? nothing : pop!(unused_buffers)
    unlock(unused_buffers_lock)
    buffer === nothing ? ErrorBuffer() : buffer
end

function give_back(buffer::ErrorBuffer)
    lock(unused_buffers_lock)
    push!(unused_buffers, buffer)
    unlock(unused_buffers_lock)
end

@noinline function failure(status, buffer::ErrorBuffer)
    GC.@preserve buffer begin
        base = pointer(buffer.bytes)
        get(name) = unsafe_load(field_pointer(base, nuc_error, name))
        argument = get(:argument)
        row = get(:row)
        NucleusError(status, argument == C_NULL ? "" : unsafe_string(argument),
            row < 0 ? nothing : Int(row) + 1, unsafe_string(pointer(buffer.full_message)))
    end
end

# Runs a function that takes a Ptr{nuc_error} and returns a status. Throws if the status is not NUC_OK.
@inline function check(function_::F) where {F}
    buffer = take_error_buffer()
    status = GC.@preserve buffer function_(Ptr{nuc_error}(pointer(buffer.bytes)))
    # If `function_` threw an exception, the garbage collector frees the buffer.
    status == NUC_OK || throw_failure(status, buffer)
    give_back(buffer)
    nothing
end

@noinline function throw_failure(status, buffer)
    exception = failure(status, buffer)
    give_back(buffer)
    throw(exception)
end
