using Nucleus
using InteractiveUtils: subtypes
using Serialization
using Test

const PLUGIN = let path = normpath(joinpath(@__DIR__, "..", "..", "..", ".cache", "plugins",
    "lammps-jax-pjrt-cpu.so"))
    isfile(path) ? path : nothing
end
# The library of bindings/testing, which test.sh compiles.
const HELPER = get(ENV, "NUCLEUS_TEST_HELPER", "")

include("arguments.jl")
include("lifetime.jl")
include("vectors.jl")
PLUGIN === nothing && println("skipped: vectors on the plugin: no plugin; scripts/fetch-plugins.sh downloads it")
if PLUGIN === nothing || isempty(HELPER)
    println("skipped: programs and device calls: they need the plugin, and NUCLEUS_TEST_HELPER; test.sh sets it")
else
    include("plugin.jl")
end
