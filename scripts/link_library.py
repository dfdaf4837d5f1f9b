#!/usr/bin/env python3
"""Links the shared and the static library that are tested, installed and shipped, from Cargo's static library.

    link_library.py CARGO_OUTPUT DIRECTORY VERSION      `make build` runs it with target/release and target/lib

Cargo's own libraries do not suit C programs. Cargo's libnucleus.so has no symbol versions: rustc passes an anonymous
version script to the linker, and GNU ld cannot combine such a script with symbol versions. Cargo's libnucleus.a
exports the symbols of Rust's standard library and of every crate. These can clash with another Rust library in the
same program. Therefore this script writes:

    nucleus.o                    temporary: everything that the header's functions need, as one relocatable object;
                                 only these functions are global
    libnucleus.a                 this object without debug information
    libnucleus.so.VERSION        the shared library, stripped. Its SONAME is libnucleus.so.N and its symbols have the
                                 version NUCLEUS_N, where N is NUC_ABI_VERSION
    libnucleus.so.N              links to libnucleus.so.VERSION; the loader looks for this name
    libnucleus.so                links to libnucleus.so.N; the linker looks for this name for -lnucleus
    .debug/libnucleus.so.VERSION.debug    debug information; debuggers look in .debug beside the library

It needs Linux and the GNU tools `ld`, `ar`, `nm` and `objcopy` (or $LD, $AR, $NM, $OBJCOPY).
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import header

# The tool for each job. The compiler driver adds the C runtime and libgcc.
CC, LD, AR, NM, OBJCOPY = (header.program(name.upper(), name) for name in ("cc", "ld", "ar", "nm", "objcopy"))
# The objects of the standard library contain megabytes of LLVM bitcode. C linkers do not use it. In the combined
# object it is not valid, but some versions of `nm` try to read it.
BITCODE = ["--remove-section=.llvmbc", "--remove-section=.llvmcmd"]
SYSTEM_LIBRARIES = ["-lm", "-ldl", "-lpthread"]


def tool(program, *arguments, **options):
    return subprocess.run([*program, *map(str, arguments)], check=True, text=True, **options)


def relocatable(archive, functions, scratch):
    """Combines the functions of the header and everything that they need. Only these functions are global."""
    names, undefined = scratch / "functions", scratch / "undefined"
    names.write_text("".join(f"{name}\n" for name in functions))
    combined, text, localized = scratch / "combined.o", scratch / "text.o", scratch / "nucleus.o"
    # --force-group-allocation turns COMDAT groups into plain sections. Otherwise a linker would replace a group by the
    # group of the same name in another Rust library, although the symbols of this library are local.
    required = [f"--require-defined={name}" for name in functions]
    tool(LD, "-r", "--gc-sections", "--force-group-allocation", *required, archive, "-o", combined)
    tool(OBJCOPY, *BITCODE, combined, text)
    # --gc-sections removes code that has weak references, but keeps the referenced symbols as undefined symbols that
    # are not weak. A linker would require definitions of these symbols, so they are removed here.
    lines = tool(NM, "--undefined-only", text, stdout=subprocess.PIPE).stdout.splitlines()
    undefined.write_text("".join(f"{line.split()[-1]}\n" for line in lines))
    tool(OBJCOPY, f"--strip-unneeded-symbols={undefined}", f"--keep-global-symbols={names}", text, localized)
    return localized


def static_library(module, directory):
    # The static library has no debug information, because it would be six times as large as the code. The shared
    # library has debug information.
    stripped = module.with_name("stripped") / module.name
    stripped.parent.mkdir()
    tool(OBJCOPY, "--strip-debug", module, stripped)
    tool(AR, "rcsD", directory / "libnucleus.a", stripped)


def shared_library(module, directory, version, scratch):
    script = scratch / "version-script"
    script.write_text(header.version_script())
    soname = f"libnucleus.so.{header.abi_version()}"
    options = [
        f"-soname={soname}", f"--version-script={script}", "-z,now", "-z,relro", "-z,noexecstack", "-z,defs", "-z,text",
        "--gc-sections", "--as-needed", "--build-id=sha1", "--hash-style=gnu",
    ]  # fmt: skip
    unstripped, name = scratch / "libnucleus.so", f"libnucleus.so.{version}"
    tool(CC, "-shared", module, "-o", unstripped, *(f"-Wl,{option}" for option in options), *SYSTEM_LIBRARIES)

    debug = directory / ".debug" / f"{name}.debug"
    debug.parent.mkdir()
    tool(OBJCOPY, "--only-keep-debug", "--compress-debug-sections", unstripped, debug)
    debug.chmod(0o644)
    tool(OBJCOPY, "--strip-all", f"--add-gnu-debuglink={debug}", unstripped, directory / name)
    (directory / soname).symlink_to(name)
    (directory / "libnucleus.so").symlink_to(soname)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    cargo_output, directory, version = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    if sys.platform != "linux":
        sys.exit(f"link_library: versioned libraries are for Linux only; the libraries of Cargo are in {cargo_output}")
    functions = sorted(header.prototypes())
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="link-") as scratch:
        scratch = Path(scratch)
        finished = scratch / "finished"
        finished.mkdir()
        module = relocatable(cargo_output / "libnucleus.a", functions, scratch)
        shared_library(module, finished, version, scratch)
        static_library(module, finished)
        shutil.rmtree(directory, ignore_errors=True)
        finished.rename(directory)


if __name__ == "__main__":
    try:
        main()
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        # The tool has already printed the reason, or it does not exist.
        sys.exit(f"link_library: {error}")
