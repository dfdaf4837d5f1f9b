#!/bin/sh
# Installs what `make build` built, and removes it again. `make install` and `make uninstall` run it:
#
#     install.sh install TARGET_DIRECTORY
#     install.sh uninstall
#
# and set the variables:
#   PREFIX        the directory where programs find the files; a relative path is relative to the current directory
#   DESTDIR       the directory that replaces / while a package is built; empty to install into the running system
#   LIBDIR        the directory of the libraries, relative to PREFIX; `lib` if empty
#   CMAKEDIR      the directory of CMake's package files, relative to PREFIX; LIBDIR/cmake/nucleus if empty
#   RPATH         `no`: the flags of pkg-config contain no rpath
#   RELOCATABLE   `yes`: the pkg-config files find the other files relative to themselves
#   VERSION       the version of the package
#   NUCLEUS_DOCUMENTS  the files of the sources to install as documents; all of them if empty
#
# It needs no Rust toolchain, so root can run it after another user has built. The file share/nucleus/installed-files
# lists what was installed, so that `uninstall` removes exactly this, also the files of older versions.
set -eu
export LC_ALL=C
cd "$(dirname "$0")/.."
[ -n "${PREFIX:-}" ] || { echo "install: PREFIX is empty; set it to a directory such as /usr/local" >&2; exit 1; }
# In the flags of a pkg-config file, these characters have a special meaning, even inside quotes.
case $PREFIX in
    *[\"\'\\\$\`\#,]*)
        printf 'install: PREFIX is %s; it must not contain a quote, a backquote, a backslash, $, # or a comma\n' \
            "$PREFIX" >&2
        exit 1
        ;;
esac
[ "$(uname -s)" = Linux ] || { echo "install: supported on Linux only" >&2; exit 1; }
# Do not resolve symbolic links. Then the same PREFIX gives the same files before and after the directory exists.
prefix=$(realpath -ms "$PREFIX")
root=${DESTDIR:+$(realpath -ms "$DESTDIR")}
root=${root%/}${prefix%/}
libdir=${LIBDIR:-lib}
cmakedir=${CMAKEDIR:-$libdir/cmake/nucleus}
list=share/nucleus/installed-files

# Removes the directory of the prefix if it is empty. The list contains this directory only if install.sh created it.
# With DESTDIR, also removes the parent directories below DESTDIR that are then empty. Without DESTDIR, keeps the
# parents, because a parent can be a directory of the system, such as /opt.
remove_prefix() {
    rmdir --ignore-fail-on-non-empty "$root"
    parent=$(dirname "$prefix") stage=${root%"$prefix"}
    if [ -n "$stage" ] && [ ! -d "$root" ] && [ "$parent" != / ]; then
        (cd "$stage" && rmdir --parents --ignore-fail-on-non-empty "${parent#/}")
    fi
}

uninstall() {
    [ -f "$root/$list" ] || { echo "uninstall: there is no $root/$list; nothing is installed there" >&2; exit 1; }
    # The order puts each directory after its contents. A directory that install.sh created is removed if it is empty.
    entries=$(sort -r "$root/$list")
    while IFS= read -r entry; do
        case $entry in
            /* | ../* | */../*) echo "uninstall: $root/$list contains the path $entry; it must be inside the prefix" >&2; exit 1 ;;
            ./) remove_prefix ;;
            */) if [ -d "$root/$entry" ]; then rmdir --ignore-fail-on-non-empty "$root/$entry"; fi ;;
            *) rm -f "$root/$entry" ;;
        esac
    done <<END
$entries
END
    echo "uninstall: removed nucleus from $root"
}

# directory PATH: creates a directory in the prefix, and its parents. Lists those that did not exist.
directory() {
    [ "$1" = . ] || directory "$(dirname "$1")"
    [ -d "$root/$1" ] && return
    install -d "$root/$1"
    echo "$1/" >>"$installed"
}

# put MODE FILE PATH: installs a file as PATH in the prefix.
put() {
    directory "$(dirname "$3")"
    install -m "$1" "$2" "$root/$3"
    echo "$3" >>"$installed"
}

# to_prefix DIRECTORY: the path from a directory in the prefix to the prefix, one .. for each name.
to_prefix() {
    printf '%s\n' "$1" | sed 's|[^/][^/]*|..|g'
}

# fill TEMPLATE PATH: installs a template with its values filled in.
fill() {
    # `&`, `|` and `\` have a special meaning in the replacement text of sed.
    escaped=$(printf '%s\n' "$pc_prefix" | sed 's/[&|\\]/\\&/g')
    sed -e "s|@PREFIX@|$escaped|" -e "s|@LIBDIR@|$libdir|" -e "s|@VERSION@|$VERSION|" -e "s|@RPATH@|$rpath|" \
        -e "s|@QUOTE@|$quote|g" -e "s|@SONAME@|$soname|" -e "s|@TO_PREFIX@|$(to_prefix "$cmakedir")|" \
        "$1" >"$scratch/filled"
    put 644 "$scratch/filled" "$2"
}

do_install() {
    target=$1
    soname=$(readlink "$target/lib/libnucleus.so") ||
        { echo "install: there is no $target/lib/libnucleus.so; run make build" >&2; exit 1; }
    newer=$(find src kernels cli/src Cargo.toml Cargo.lock -type f -newer "$target/lib/libnucleus.a" -print | head -n 1)
    if [ -n "$newer" ]; then
        echo "install: $newer is newer than the libraries in $target/lib; run make build to install it" >&2
    fi
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    installed=$scratch/installed-files
    if [ -f "$root/$list" ]; then cp "$root/$list" "$installed"; else : >"$installed"; fi

    # The loader always searches the directories of the system. Distributions do not accept an rpath to them.
    rpath=' -Wl,-rpath,@QUOTE@${libdir}@QUOTE@'
    case $prefix in /usr | /) rpath= ;; esac
    if [ "${RPATH:-yes}" = no ]; then rpath=; fi
    # The quotes allow spaces in the prefix. A relocatable file has no quotes, because pkg-config itself escapes the
    # spaces in pcfiledir.
    pc_prefix=$prefix quote='"'
    if [ "${RELOCATABLE:-no}" = yes ]; then pc_prefix='${pcfiledir}/'$(to_prefix "$libdir/pkgconfig") quote=; fi

    # The installed command is stripped. The file in target keeps its debug information.
    install -s -m 755 "$target/release/nucleus" "$scratch/nucleus"
    put 755 "$scratch/nucleus" bin/nucleus
    for header in include/*.h include/*.hpp; do put 644 "$header" "$header"; done
    for layout in include/*.json; do put 644 "$layout" "share/nucleus/$(basename "$layout")"; done
    put 644 "$target/lib/libnucleus.a" "$libdir/libnucleus.a"
    for file in "$target"/lib/libnucleus.so.*.*.*; do put 755 "$file" "$libdir/$(basename "$file")"; done
    for file in "$target"/lib/.debug/*.debug; do put 644 "$file" "$libdir/.debug/$(basename "$file")"; done
    # The names for the loader and the linker are symbolic links.
    for link in "$target"/lib/libnucleus.so "$target"/lib/libnucleus.so.[0-9]*; do
        [ -L "$link" ] || continue
        ln -sfn "$(readlink "$link")" "$root/$libdir/$(basename "$link")"
        echo "$libdir/$(basename "$link")" >>"$installed"
    done
    for pc in nucleus nucleus-static; do fill scripts/install/$pc.pc.in "$libdir/pkgconfig/$pc.pc"; done
    for file in nucleus-config nucleus-config-version; do
        fill scripts/install/$file.cmake.in "$cmakedir/$file.cmake"
    done
    documents=${NUCLEUS_DOCUMENTS:-$(echo LICENSE README.md CHANGELOG.md docs/*.md docs/*.png)}
    for file in $documents; do
        document=$file
        case $file in *.md)
            document=$scratch/document
            awk -v page="$file" -v documents="$documents" -f scripts/install/links.awk "$file" >"$document"
            ;;
        esac
        put 644 "$document" "share/doc/nucleus/$file"
    done
    # `make build` lets the command write these.
    for page in "$target"/man/*.1; do put 644 "$page" "share/man/man1/$(basename "$page")"; done
    put 644 "$target/completions/nucleus.bash" share/bash-completion/completions/nucleus
    put 644 "$target/completions/nucleus.zsh" share/zsh/site-functions/_nucleus
    put 644 "$target/completions/nucleus.fish" share/fish/vendor_completions.d/nucleus.fish
    directory share/nucleus
    { cat "$installed"; echo "$list"; } | sort -u >"$scratch/sorted"
    install -m 644 "$scratch/sorted" "$root/$list"
    echo "install: installed nucleus $VERSION to $root"
}

case ${1:-} in
    install) do_install "$2" ;;
    uninstall) uninstall ;;
    *) echo "usage: install.sh install TARGET_DIRECTORY | install.sh uninstall" >&2; exit 2 ;;
esac
