# The cases of tests/vectors, with every output.

const VECTORS = normpath(joinpath(@__DIR__, "..", "..", "..", "tests", "vectors"))
const TYPES = Dict("f32" => Float32, "f16" => Float16, "bf16" => Nucleus.BFloat16Bits)
const BITS = Dict("f32" => UInt32, "f16" => UInt16, "bf16" => UInt16)

# Each case is a Dict from the name of a line to its words.
function read_vectors()
    cases = Dict{String, Vector{String}}[]
    for file in sort(filter(name -> endswith(name, ".txt"), readdir(VECTORS; join = true)))
        lines = eachline(file)
        first(lines) == "nucleus-vectors 1" || error("$file: the first line is not that of version 1")
        for line in lines
            words = split(line)
            (isempty(words) || startswith(words[1], "#") || words[1] == "end") && continue
            words[1] == "case" && push!(cases, Dict{String, Vector{String}}())
            cases[end][words[1]] = words[2:end]
        end
    end
    isempty(cases) && error("there are no cases in $VECTORS")
    cases
end

decimal(case, key) = haskey(case, key) ? parse.(Int32, case[key]) : nothing
# Vectors of a type whose bits are the words.
function hexadecimal(case, key, ::Type{T}, ::Type{U}) where {T, U}
    haskey(case, key) ? collect(reinterpret(T, parse.(U, case[key]; base = 16))) : nothing
end
number(case, key) = Int(decimal(case, key)[1])
columns(values::Vector, batch) = reshape(values, :, batch)

bits(array, U) = vec(collect(reinterpret(U, array)))

function arguments(case)
    batch = number(case, "num_rows")
    T, U = TYPES[case["dtype"][1]], BITS[case["dtype"][1]]
    words = hexadecimal(case, "random_words", UInt32, UInt32)
    logits = columns(hexadecimal(case, "logits", T, U), batch)
    options = (top_k = decimal(case, "top_k"), top_p = hexadecimal(case, "top_p", Float32, UInt32),
        min_p = hexadecimal(case, "min_p", Float32, UInt32),
        temperature = hexadecimal(case, "temperature", Float32, UInt32),
        seed = hexadecimal(case, "seed", UInt64, UInt64),
        offset = hexadecimal(case, "offset", UInt64, UInt64),
        random_words = words === nothing ? nothing : columns(words, batch),
        keep_ties = case["keep_ties"][1] == "1")
    logits, options
end

# The outputs as vectors of integers, by the name of their line.
function outputs(sampler, case, path)
    logits, options = arguments(case)
    batch, U = size(logits, 2), BITS[case["dtype"][1]]
    row_status = Vector{UInt32}(undef, batch)
    debug = DebugArrays(sampler, logits; k_slices = case["path"][1] == "bounded")
    tokens = sample(sampler, logits; options..., path = path, row_status = row_status, debug = debug,
        replace_val = hexadecimal(case, "replace_val", Float32, UInt32)[1])
    found = Dict{String, Vector}("tokens" => tokens, "row_status" => row_status)
    for name in fieldnames(DebugArrays)
        array = getfield(debug, name)
        array === nothing && continue
        found[string(name)] = startswith(string(name), "topk_logits") ? bits(array, U) : vec(array)
    end
    found
end

# Returns whether an output is that of the case. Signed words are decimal, others are hexadecimal.
function agrees(case, name, found)
    wanted = case[name]
    base = eltype(found) <: Signed ? 10 : 16
    length(wanted) == length(found) && parse.(eltype(found), wanted; base = base) == found
end

function check_case(sampler, case, paths)
    values = 0
    for path in paths
        found = outputs(sampler, case, path)
        for (name, array) in found
            if !agrees(case, name, array)
                @error "a result differs" case = case["case"][1] path name found = array wanted = case[name]
                @test false
            end
            values += length(array)
        end
        @test length(found) == (case["path"][1] == "bounded" ? 11 : 8)
    end
    check_flat(sampler, case)
    values
end

# nuc_sample_flat, with and without row_status.
function check_flat(sampler, case)
    logits, options = arguments(case)
    path = Symbol(case["path"][1])
    row_status = Vector{UInt32}(undef, size(logits, 2))
    tokens = sample(sampler, logits; options..., path = path, row_status = row_status)
    @test agrees(case, "tokens", tokens) && agrees(case, "row_status", row_status)
    if !any(==(Nucleus.NUC_ROW_BAD_PARAMETER), row_status)
        @test sample(sampler, logits; options..., path = path) == tokens
    else
        failure = try
            sample(sampler, logits; options..., path = path)
        catch failure
            failure
        end
        @test failure isa NucleusError && failure.status == Nucleus.NUC_INVALID_ARGUMENT
        @test row_status[failure.column] == Nucleus.NUC_ROW_BAD_PARAMETER
    end
end

function check_vectors(selected::Function, paths::Function; options...)
    cases = filter(selected, read_vectors())
    values = 0
    for max_k in unique(number.(cases, "max_k"))
        Sampler(; max_k = max_k, options...) do sampler
            for case in cases
                number(case, "max_k") == max_k &&
                    (values += check_case(sampler, case, paths(Symbol(case["path"][1]))))
            end
        end
    end
    @test values > 0
    println("vectors: ", length(cases), " cases, ", sum(number.(cases, "num_rows")), " rows, ", values,
        " values")
end

@testset "vectors, built-in backend" begin
    check_vectors(case -> true, path -> path == :auto ? (:auto, :arbitrary, :reference) : (path, :reference);
        backend = :builtin, num_threads = 2)
end

@testset "the comparison of vectors can fail" begin
    case = first(filter(case -> case["path"][1] == "bounded" && number(case, "max_k") == 8, read_vectors()))
    Sampler(; backend = :builtin, max_k = 8) do sampler
        for (name, array) in outputs(sampler, case, :bounded)
            @test agrees(case, name, array)
            array[end] += one(eltype(array))
            @test !agrees(case, name, array)
        end
    end
end

# A plugin compiles programs for each type and shape, which takes seconds. So only the cases of the most frequent
# shape run on the plugin: those of f32, and the bounded path of bf16.
if PLUGIN !== nothing
    @testset "vectors, plugin" begin
        check_vectors(path -> (path,); backend = :pjrt, plugin_path = PLUGIN, row_buckets = [8]) do case
            number(case, "vocab") == 16 && case["keep_ties"][1] == "0" &&
                (case["dtype"][1] == "f32" || case["dtype"][1] == "bf16" && case["path"][1] == "bounded")
        end
    end
end
