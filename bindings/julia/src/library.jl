# Finding and loading the library.

const loaded_library = Ref("")
const load_failure = Ref("")

"""
    Nucleus.load(path)

Loads the library from a file, and returns the path. A program needs this function only if the package does not find
the library. When the package is loaded, it tries, in this order: the file that the environment variable
`NUCLEUS_LIBRARY` names, `libnucleus.so.1` in the directories of the dynamic loader, and the directory that
`pkg-config` returns.

A process uses one library. After an object was created, do not load another one.
"""
function load(path::AbstractString)
    handle = Libdl.dlopen(path)
    abi = ccall(Libdl.dlsym(handle, :nuc_abi_version), UInt32, ())
    abi == NUC_ABI_VERSION ||
        error("$path has version $abi of the binary interface; this package needs version $NUC_ABI_VERSION")
    # Looks up all functions before it changes an address, so that a failure changes nothing.
    addresses = Dict(name => Libdl.dlsym(handle, name) for name in keys(FUNCTIONS))
    for (name, address) in addresses
        FUNCTIONS[name][] = address
    end
    load_failure[] = ""
    loaded_library[] = Libdl.dlpath(handle)
end

soname() = "libnucleus.so.$(Int(NUC_ABI_VERSION))"

# The path in the directory of pkg-config, or nothing.
function pkg_config_path()
    try
        # Julia's own libraries can be in LD_LIBRARY_PATH. Programs of the system must not use them.
        command = setenv(`pkg-config --variable=libdir nucleus`,
            ["$k=$v" for (k, v) in ENV if k != "LD_LIBRARY_PATH"])
        directory = strip(read(pipeline(command; stderr = devnull), String))
        return isempty(directory) ? nothing : joinpath(directory, soname())
    catch
        return nothing # There is no pkg-config, or no nucleus.pc.
    end
end

# Loading the package must not fail, so that a program can call `load`. Other functions report the failure.
function load_quietly()
    named = get(ENV, "NUCLEUS_LIBRARY", "")
    if !isempty(named)
        return attempt(named)
    end
    attempt(soname()) && return true
    path = pkg_config_path()
    path === nothing ? false : attempt(path)
end

function attempt(path)
    try
        load(path)
        return true
    catch failure
        isempty(load_failure[]) || (load_failure[] *= "; ")
        load_failure[] *= sprint(showerror, failure)
        return false
    end
end

# The address of a function of the library.
@inline function address(reference::Ref{Ptr{Cvoid}})
    pointer = reference[]
    pointer == C_NULL && not_loaded()
    pointer
end

@noinline not_loaded() = error(
    "the library nucleus is not loaded; install it, set NUCLEUS_LIBRARY to its path, or call Nucleus.load. ",
    load_failure[])

"Returns the version of the loaded library."
version() = VersionNumber(unsafe_string(ccall(address(nuc_version), Ptr{UInt8}, ())))

"Returns the version of the loaded library as a number: major * 1000000 + minor * 1000 + patch."
version_number() = ccall(address(nuc_version_number), UInt32, ())

"Returns the version of the binary interface of the loaded library."
abi_version() = ccall(address(nuc_abi_version), UInt32, ())
