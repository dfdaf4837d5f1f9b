# Prints a Markdown document in which each relative link leads to one of the documents. Any other relative link becomes
# its text.
#
# usage: awk -v page=PATH -v documents='PATH...' -f links.awk FILE

BEGIN {
    # The text of a link can have several lines, so the whole file is one record. No document contains this character.
    RS = "\001"
    count = split(documents, names, " ")
    for (i = 1; i <= count; i++) installed[names[i]] = 1
    directory = page
    if (!sub(/\/[^\/]*$/, "/", directory)) directory = ""
}

{
    # Every second part is a block of code.
    count = split($0, parts, /```/)
    for (i = 1; i <= count; i++) {
        if (i != 1) printf "```"
        printf "%s", (i % 2 == 1 ? with_links(parts[i]) : parts[i])
    }
}

function with_links(rest,    done, link, separator) {
    while (match(rest, /\[[^][]+\]\([^() ]+\)/)) {
        link = substr(rest, RSTART + 1, RLENGTH - 2)
        separator = index(link, "](")
        done = done substr(rest, 1, RSTART - 1) \
            (leads(substr(link, separator + 2)) ? "[" link ")" : substr(link, 1, separator - 1))
        rest = substr(rest, RSTART + RLENGTH)
    }
    return done rest
}

function leads(target) {
    if (target ~ /^([a-z]+:|#)/) return 1
    sub(/#.*/, "", target)
    target = directory target
    while (sub(/[^\/]+\/\.\.\//, "", target)) continue
    return target in installed
}
