# Conversions of keyword arguments to the values of C.

# Returns the value of a symbol, for example :auto. If the symbol is unknown, the error message lists the symbols of
# `choices`.
function choice(name, table, value, choices = table)
    found = get(table, value, nothing)
    found === nothing &&
        not_a_choice(name, value, sort(collect(keys(choices))))
    found
end

@noinline not_a_choice(name, value, choices) =
    throw(ArgumentError("$name is $(repr(value)); it must be $(join(repr.(choices), ", ", " or "))"))

const BACKENDS = Dict(:auto => NUC_BACKEND_AUTO, :builtin => NUC_BACKEND_BUILTIN, :pjrt => NUC_BACKEND_PJRT)
const PATHS = Dict(:auto => NUC_PATH_AUTO, :arbitrary => NUC_PATH_ARBITRARY, :bounded => NUC_PATH_BOUNDED)
const HOST_NUMBERS = Dict(:tokens => NUC_HOST_TOKENS, :all => NUC_HOST_ALL, :none => NUC_HOST_NONE)
const PLACES = Dict(:host => NUC_LOGITS_ON_HOST, :device => NUC_LOGITS_ON_DEVICE)
const DEBUG_BITS = Dict(:topk_logits => NUC_DEBUG_TOPK_LOGITS, :topk_topp_probs => NUC_DEBUG_TOPK_TOPP_PROBS,
    :k_slices => NUC_DEBUG_K_SLICES)

debug_bits(names) = foldl(|, (choice("debug_arrays", DEBUG_BITS, name) for name in names); init = UInt32(0))

# A string that is null if it is empty. The string must be preserved.
function text(name, value::AbstractString)
    string = String(value)
    '\0' in string && throw(ArgumentError("$name contains a NUL character"))
    string
end

text_pointer(string::String) = isempty(string) ? Ptr{UInt8}(C_NULL) : pointer(string)

array_pointer(::Nothing, ::Type{T}) where {T} = Ptr{T}(C_NULL)
array_pointer(array, ::Type{T}) where {T} = isempty(array) ? Ptr{T}(C_NULL) : Ptr{T}(pointer(array))

# Options of a plugin as structs, and the strings that they point to.
function client_options(options)
    names = String[]
    strings = String[]
    structs = nuc_client_option[]
    for (name, value) in options
        push!(names, text("client_options", string(name)))
        name_pointer = pointer(names[end])
        if value isa AbstractString
            push!(strings, text("client_options", value))
            option = nuc_client_option(; name = name_pointer, type = NUC_OPTION_STRING,
                string_value = pointer(strings[end]))
        elseif value isa Bool
            option = nuc_client_option(; name = name_pointer, type = NUC_OPTION_BOOL, int64_value = value)
        elseif value isa Integer
            option = nuc_client_option(; name = name_pointer, type = NUC_OPTION_INT64, int64_value = value)
        elseif value isa AbstractFloat
            option = nuc_client_option(; name = name_pointer, type = NUC_OPTION_FLOAT, float_value = value)
        else
            throw(ArgumentError("client_options has the option $name of type $(typeof(value)); " *
                "it must be a string, an integer, a float or a Bool"))
        end
        push!(structs, option)
    end
    structs, (names, strings)
end
