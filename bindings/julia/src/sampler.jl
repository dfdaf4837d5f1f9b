# Samplers.

"""
    Sampler(; options...)
    Sampler(f; options...)

A backend, its threads or its device, and the programs compiled for it. Any number of tasks and threads may use a
sampler at the same time. `close` frees it. The second form calls `f` with the sampler and closes it.

Options. Zero, `""` and empty collections select the default.

- `backend`: `:builtin`, `:pjrt`, or `:auto`: a plugin if `plugin_path` or the environment variable
  NUCLEUS_PJRT_PLUGIN names one, otherwise the built-in backend.
- `device_index`: the device among the client's devices, counted from 0, as in C.
- `plugin_path`: the path of a PJRT plugin.
- `client_options`: pairs of names and values (a string, an integer, a float or a Bool) for the plugin's client.
- `max_k`: the number of slots of the bounded path, 1 to 1024. Default: 128.
- `cache_capacity`: the largest number of compiled programs in memory. Default: 64.
- `num_threads`: the number of threads of the built-in backend. 1: only the calling thread. Default: one per core.
- `program_dir`, `write_programs`, `program_dir_capacity`: a directory of compiled programs, whether to write to it,
  and its largest size in bytes. Write access to this directory is equivalent to code execution in this process.
- `pjrt_api`, `pjrt_client`: pointers to a plugin's table and to a client of the caller.
- `row_buckets`: the numbers of rows that programs are compiled for, ascending.
"""
mutable struct Sampler <: Handle
    pointer::Ptr{Cvoid}
    users::Users
    max_k::Int

    function Sampler(; backend::Symbol = :auto, device_index::Integer = 0, plugin_path::AbstractString = "",
        client_options = (), max_k::Integer = 0, cache_capacity::Integer = 0, num_threads::Integer = 0,
        program_dir::AbstractString = "", write_programs::Bool = false, pjrt_api::Ptr = C_NULL,
        pjrt_client::Ptr = C_NULL, program_dir_capacity::Integer = 0, row_buckets = ())
        plugin_path, program_dir = text("plugin_path", plugin_path), text("program_dir", program_dir)
        structs, strings = Nucleus.client_options(client_options)
        buckets = collect(Csize_t, row_buckets)
        result = Ref{Ptr{Cvoid}}(C_NULL)
        GC.@preserve plugin_path program_dir structs strings buckets begin
            options = nuc_sampler_options(; backend = choice("backend", BACKENDS, backend),
                device_index = device_index, plugin_path = text_pointer(plugin_path),
                client_options = array_pointer(structs, nuc_client_option),
                num_client_options = length(structs), max_k = max_k, cache_capacity = cache_capacity,
                num_threads = num_threads, program_dir = text_pointer(program_dir),
                write_programs = write_programs, pjrt_api = pjrt_api, pjrt_client = pjrt_client,
                program_dir_capacity = program_dir_capacity, row_buckets = array_pointer(buckets, Csize_t),
                num_row_buckets = length(buckets))
            check() do e
                ccall(address(nuc_sampler_create), nuc_status,
                    (Ref{nuc_sampler_options}, Ref{Ptr{Cvoid}}, Ptr{nuc_error}), options, result, e)
            end
        end
        sampler = new(result[], Users(0), 0)
        finalizer(finalize_handle, sampler)
        sampler.max_k = info(sampler).max_k
        sampler
    end
end

function Sampler(f::Function; options...)
    sampler = Sampler(; options...)
    try
        return f(sampler)
    finally
        close(sampler)
    end
end

free(pointer, e, ::Type{Sampler}) =
    ccall(address(nuc_sampler_destroy), nuc_status, (Ptr{Cvoid}, Ptr{nuc_error}), pointer, e)

Base.show(io::IO, sampler::Sampler) =
    print(io, "Sampler(", isopen(sampler) ? info(sampler).platform_name : "closed", ")")
