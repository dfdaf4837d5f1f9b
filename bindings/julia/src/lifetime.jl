# Objects of the library that `close` or a finalizer frees.

# The number of calls that use the object, or a negative number after `close` has begun.
const Users = Threads.Atomic{Int}
const closed = typemin(Int)

abstract type Handle end

# Each subtype has the fields `pointer::Ptr{Cvoid}` and `users::Users`, and a method of `free`.

function acquire(object::Handle)
    while true
        users = object.users[]
        users < 0 && throw(closed_error(lowercase(string(nameof(typeof(object))))))
        Threads.atomic_cas!(object.users, users, users + 1) == users && return
    end
end

@noinline closed_error(name) = NucleusError(NUC_INVALID_ARGUMENT, name, nothing, "the $name is closed")

release(object::Handle) = (Threads.atomic_sub!(object.users, 1); nothing)

# Calls `function_` with the pointer of an object that is not closed. The object is not freed before it
# returns.
@inline function use(function_::F, object::Handle) where {F}
    acquire(object)
    try
        # The garbage collector must not free the object during the call.
        return GC.@preserve object function_(object.pointer)
    finally
        release(object)
    end
end

"""
    close(object)

Frees a sampler, parameters, a call or a prewarm. It waits for the calls that use the object. Closing an object twice
has no effect. The calls, parameters and prewarms of a sampler stay valid after the sampler is closed.
"""
function Base.close(object::Handle)
    while true
        users = object.users[]
        users < 0 && return nothing
        Threads.atomic_cas!(object.users, users, users + closed) == users && break
    end
    while object.users[] != closed
        yield()
    end
    destroy(object)
end

Base.isopen(object::Handle) = object.users[] >= 0

# Each object has one owner, which frees it. `deepcopy` of a structure that contains an object also calls this method.
# Serialization needs no method: it writes a pointer as null, and the library reports the null pointer as an error.
Base.deepcopy_internal(object::Handle, ::IdDict) =
    throw(ArgumentError("a $(nameof(typeof(object))) cannot be copied; tasks and threads can share it"))

# An object that a call uses is not freed: the finalizers of all objects also run when the process exits, and
# `finalize(object)` runs this one at any time. After `finalize(object)` during a call, only `close` frees the object. A
# finalizer must not switch tasks, so it does not wait and does not use `check`, which takes a lock.
function finalize_handle(object::Handle)
    Threads.atomic_cas!(object.users, 0, closed) == 0 || return nothing
    free(object.pointer, C_NULL, typeof(object))
    nothing
end

destroy(object::Handle) = check(e -> free(object.pointer, e, typeof(object)))
