# Information about samplers, and the log.

string_or_empty(pointer) = pointer == C_NULL ? "" : unsafe_string(pointer)

function filled(sampler::Sampler, function_, value::T) where {T}
    result = Ref(value)
    check() do e
        ccall(address(function_), nuc_status, (Ptr{Cvoid}, Ref{T}, Ptr{nuc_error}), sampler.pointer, result,
            e)
    end
    result[]
end

"""
    Nucleus.info(sampler)

A description of the sampler's platform: a named tuple with `platform_name`, `platform_version`, `pjrt_api_version`,
`num_devices`, `max_k`, and the pointers `pjrt_api` and `pjrt_client`, which are null on the built-in backend.
"""
function info(sampler::Sampler)
    use(sampler) do _
        # The strings are valid until the sampler is destroyed. So they are copied before the sampler is released.
        found = filled(sampler, nuc_sampler_get_info, nuc_sampler_info())
        (platform_name = string_or_empty(found.platform_name),
            platform_version = string_or_empty(found.platform_version),
            pjrt_api_version = VersionNumber(found.pjrt_api_major, found.pjrt_api_minor),
            num_devices = Int(found.num_devices), max_k = Int(found.max_k), pjrt_api = found.pjrt_api,
            pjrt_client = found.pjrt_client)
    end
end

"""
    Nucleus.devices(sampler)

The devices of the sampler's client: a vector of named tuples with `description`, `kind` and `id`. The element `i` has
the `device_index` `i - 1`.
"""
function devices(sampler::Sampler)
    use(sampler) do s
        map(0:(info(sampler).num_devices - 1)) do index
            found = Ref(nuc_device_info())
            check() do e
                ccall(address(nuc_sampler_get_device), nuc_status,
                    (Ptr{Cvoid}, Csize_t, Ref{nuc_device_info}, Ptr{nuc_error}), s, index, found, e)
            end
            (description = string_or_empty(found[].description), kind = string_or_empty(found[].kind),
                id = Int(found[].id))
        end
    end
end

"""
    Nucleus.stats(sampler)

The counters of a sampler since it was created, as a named tuple. The names are those of the fields of
`nuc_sampler_stats`: compiles, hits, evictions, and latencies in nanoseconds.
"""
function stats(sampler::Sampler)
    use(sampler) do _
        found = filled(sampler, nuc_sampler_get_stats, nuc_sampler_stats())
        names = filter(!=(:struct_size), fieldnames(nuc_sampler_stats))
        NamedTuple{names}(map(name -> Int(getfield(found, name)), names))
    end
end

const LOG_LEVELS = Dict(:off => NUC_LOG_OFF, :error => NUC_LOG_ERROR, :warning => NUC_LOG_WARNING,
    :info => NUC_LOG_INFO, :debug => NUC_LOG_DEBUG)

"""
    Nucleus.set_log(level)

Sends the library's log up to a level (`:off`, `:error`, `:warning`, `:info` or `:debug`) to standard error, for the
whole process. The default is the environment variable NUCLEUS_LOG.

A function of Julia cannot receive the log, because threads of a plugin log too. Before version 1.9, Julia code cannot
run on a thread that Julia did not create.
"""
function set_log(level::Symbol)
    check() do e
        ccall(address(nuc_set_log), nuc_status, (Ptr{Cvoid}, Ptr{Cvoid}, nuc_log_level, Ptr{nuc_error}),
            C_NULL, C_NULL, choice("level", LOG_LEVELS, level), e)
    end
end
