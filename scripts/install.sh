#!/bin/sh
# Installs what `make build` built: install.sh TARGET_DIRECTORY. `make install` runs it and sets the variables:
#   PREFIX    the directory where programs find the files; a relative path is relative to the current directory
#   DESTDIR   the directory that replaces / while a package is built; empty to install into the running system
#   RPATH     `no`: the flags of pkg-config contain no rpath
#   VERSION   the version of the package
set -eu
cd "$(dirname "$0")/.."
target=$1
[ "$(uname -s)" = Linux ] || { echo "install: supported on Linux only" >&2; exit 1; }
# Do not resolve symbolic links. Then the same PREFIX gives the same files before and after the directory exists.
prefix=$(realpath -ms "$PREFIX")
root=${DESTDIR:+$(realpath -ms "$DESTDIR")}
root=${root%/}${prefix%/}

# The loader always searches /usr/lib and /lib. Distributions do not accept an rpath to these directories.
rpath=' -Wl,-rpath,${libdir}'
case $prefix in /usr | /) rpath= ;; esac
if [ "$RPATH" = no ]; then rpath=; fi

install -d "$root/bin" "$root/include" "$root/lib/.debug" "$root/lib/pkgconfig"
install -m 755 -s "$target/release/nucleus" "$root/bin/"
install -m 644 include/*.h "$root/include/"
install -m 644 "$target/lib/libnucleus.a" "$root/lib/"
install -m 755 "$target"/lib/libnucleus.so.*.*.* "$root/lib/"
install -m 644 "$target"/lib/.debug/libnucleus.so.*.debug "$root/lib/.debug/"
# The names for the loader and the linker are symbolic links.
for link in "$target"/lib/libnucleus.so "$target"/lib/libnucleus.so.[0-9]*; do
    if [ -L "$link" ]; then ln -sfn "$(readlink "$link")" "$root/lib/$(basename "$link")"; fi
done
pc=$root/lib/pkgconfig/nucleus.pc
# `&` and `|` have a special meaning in the replacement text of sed.
escaped=$(printf '%s\n' "$prefix" | sed 's/[&|\\]/\\&/g')
sed -e "s|@PREFIX@|$escaped|" -e "s|@VERSION@|$VERSION|" -e "s|@RPATH@|$rpath|" scripts/nucleus.pc.in >"$pc"
chmod 644 "$pc"
for layout in include/*.json; do
    if [ -e "$layout" ]; then
        install -d "$root/share/nucleus"
        install -m 644 "$layout" "$root/share/nucleus/"
    fi
done
echo "install: installed nucleus $VERSION to $root"
