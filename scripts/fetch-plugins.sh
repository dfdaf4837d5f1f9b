#!/bin/sh
# Downloads the plugins that the tests use into .cache/plugins/: three CPU plugins, and libtpu, which compiles for TPUs
# on any host. Only the first run needs the network.
set -eu

cd "$(dirname "$0")/.."
directory=.cache/plugins
mkdir -p "$directory"

command -v python3 >/dev/null || { echo "fetch-plugins: python3 is missing; run scripts/install-deps.sh" >&2; exit 1; }

work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# Columns: the release, its name in .cache/plugins, the path of the plugin in the wheel, and the wheel's sha256. Some
# releases have one wheel for each version of Python. For them, the last columns select one wheel. The plugin itself
# does not depend on Python.
while read -r release name member hash python abi platform; do
    library="$directory/$name.so"
    # The stamp holds the checksums of the wheel and of the extracted library.
    if [ -f "$library" ] && [ -f "$library.stamp" ] &&
        [ "$(cat "$library.stamp")" = "$hash $(sha256sum <"$library")" ]; then
        echo "fetch-plugins: $library is up to date ($release)"
        continue
    fi

    work=$(mktemp -d "$directory/fetch.XXXXXX")
    (
        # download-wheel.sh runs pip, and pip also reads its options from these variables.
        if [ -n "$python" ]; then
            export PIP_IMPLEMENTATION=cp PIP_PYTHON_VERSION="$python" PIP_ABI="$abi" PIP_PLATFORM="$platform"
        fi
        scripts/download-wheel.sh "$work/wheel" "$release" "$hash"
    )
    python3 - "$work" "$member" <<'PYTHON'
import pathlib, shutil, sys, zipfile
work, member = pathlib.Path(sys.argv[1]), sys.argv[2]
(wheel,) = (work / "wheel").glob("*.whl")
with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(work / "plugin.so", "wb") as target:
    shutil.copyfileobj(source, target)
PYTHON
    # The stamp is written last, so an interrupted run is repeated.
    rm -f "$library.stamp"
    mv "$work/plugin.so" "$library"
    echo "$hash $(sha256sum <"$library")" >"$library.stamp"
    rm -rf "$work"
    work=
    echo "fetch-plugins: $library is ready"
done <<PLUGINS
lammps-jax-pjrt-cpu==0.11.2 lammps-jax-pjrt-cpu lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so 1319390d948b39f69f7dade496b7c385149d9ca6097a6b62114da113216d9ad1
fastatomstruct-xla-cpu==2026.6.23 fastatomstruct-xla-cpu fastatomstruct_xla_cpu/libpjrt_cpu.so 88b1c430b341b4bea40a37420311c9c75db6e22b46d2ff95b6986577bee6afe9
xla-cpu-pjrt==0.0.1 xla-cpu-pjrt xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so 55837b6b7b47daa717f2d9a5a03563ea0ceaa338d06a81a1e2d3f060d960decc
libtpu==0.0.52 libtpu libtpu/libtpu.so f5e2e596eaea9357fbb5a6755a7a9007c6ab75bfde4a55191b03eff402971140 311 cp311 manylinux_2_31_x86_64
PLUGINS
