"""Conan 2 recipe of nucleus. It builds from an archive of the sources, with the Rust toolchain of this host:

    make source-archive
    conan create packaging/conan                        # the static library
    conan create packaging/conan -o nucleus/*:shared=True

The recipe takes the archive from the target directory of the tree, or from the environment variable
NUCLEUS_SOURCE_ARCHIVE. Cargo downloads the crates of Cargo.lock, unless they are in its cache.
"""

import os
import re
import shutil
from pathlib import Path

from conan import ConanFile
from conan.errors import ConanException, ConanInvalidConfiguration
from conan.tools.files import copy, rm, rmdir, unzip


class NucleusConan(ConanFile):
    name = "nucleus"
    description = "Chooses the next token of a language model, with bit-identical results on every device"
    license = "Apache-2.0"
    topics = ("llm", "sampling", "pjrt")
    package_type = "library"
    # The interface is C, and nucleus.hpp has only inline functions. So the package does not depend on the compiler.
    settings = "os", "arch"
    options = {"shared": [True, False]}
    default_options = {"shared": False}

    def set_version(self):
        if self.version is None:
            manifest = Path(self.recipe_folder, "..", "..", "Cargo.toml").read_text()
            self.version = re.search(r'^version = "(.*)"', manifest, re.MULTILINE)[1]

    def export_sources(self):
        name = f"nucleus-{self.version}.tar.gz"
        target = os.environ.get("CARGO_TARGET_DIR") or Path(self.recipe_folder, "..", "..", "target")
        archive = Path(os.environ.get("NUCLEUS_SOURCE_ARCHIVE") or Path(target, name))
        if not archive.is_file():
            raise ConanException(f"there is no {archive}; run make source-archive, or set NUCLEUS_SOURCE_ARCHIVE")
        shutil.copyfile(archive, Path(self.export_sources_folder, name))

    def validate(self):
        if self.settings.os != "Linux" or self.settings.arch not in ("x86_64", "armv8"):
            raise ConanInvalidConfiguration("nucleus supports Linux on x86-64 and 64-bit Arm")

    # validate() also runs when a package that was built before is installed. That needs no Rust toolchain.
    def validate_build(self):
        if shutil.which("cargo") is None:
            raise ConanInvalidConfiguration("nucleus needs a Rust toolchain (cargo)")

    def source(self):
        unzip(self, f"nucleus-{self.version}.tar.gz", strip_root=True)

    def build(self):
        # DEPS=no: the recipe does not install Debian packages.
        self.run("make build DEPS=no")

    def package(self):
        self.run(f'make install DEPS=no RELOCATABLE=yes PREFIX="{self.package_folder}"')
        copy(self, "LICENSE", src=self.source_folder, dst=os.path.join(self.package_folder, "licenses"))
        lib = os.path.join(self.package_folder, "lib")
        # CMakeDeps and PkgConfigDeps generate these files.
        rmdir(self, os.path.join(lib, "cmake"))
        rmdir(self, os.path.join(lib, "pkgconfig"))
        rm(self, "installed-files", os.path.join(self.package_folder, "share", "nucleus"))
        if self.options.shared:
            rm(self, "libnucleus.a", lib)
        else:
            rm(self, "libnucleus.so*", lib)
            rmdir(self, os.path.join(lib, ".debug"))

    def package_info(self):
        self.cpp_info.libs = ["nucleus"]
        self.cpp_info.set_property("cmake_file_name", "nucleus")
        self.cpp_info.set_property("cmake_target_name", "nucleus::nucleus" if self.options.shared else "nucleus::static")
        self.cpp_info.set_property("pkg_config_name", "nucleus")
        if not self.options.shared:
            self.cpp_info.system_libs = ["pthread", "dl", "m"]
