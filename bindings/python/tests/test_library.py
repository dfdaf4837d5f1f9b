"""The library: how it is found, its structs, and the contents of the installed package."""

import ctypes
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import nucleus_sampler
from nucleus_sampler import _abi, _library
from vectors import REPOSITORY

LAYOUT = json.loads((REPOSITORY / "include/nucleus.layout.json").read_text())
BINDING = REPOSITORY / "bindings/python"
PACKAGE = Path(nucleus_sampler.__file__).parent
LIBRARY = PACKAGE / "lib" / _library.FILE_NAME


def run(code, path=None, **environment):
    """Runs Python code in a new process. `path` is the directory of another copy of the package."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("NUCLEUS_", "PKG_CONFIG", "LD_"))
    }
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        [sys.executable, "-c", code], env={**kept, **environment}, capture_output=True, text=True, cwd="/"
    )


WHERE = "import nucleus_sampler; print(nucleus_sampler.library_path())"


class Structs(unittest.TestCase):
    def test_the_generated_file_is_up_to_date(self):
        printed = subprocess.run(
            [sys.executable, BINDING / "generate.py", "--print"], capture_output=True, text=True, check=True
        ).stdout
        committed = (BINDING / "src/nucleus_sampler/_abi.py").read_text()
        self.assertEqual(printed, committed, "run make python-structs")
        self.assertEqual((PACKAGE / "_abi.py").read_text(), committed)

    def test_the_layout_of_every_struct(self):
        for struct in LAYOUT["structs"]:
            with self.subTest(struct["name"]):
                mirror = getattr(_abi, struct["name"])
                self.assertEqual(ctypes.sizeof(mirror), struct["size"])
                self.assertEqual(ctypes.alignment(mirror), struct["alignment"])
                self.assertEqual(
                    [name for name, *_ in mirror._fields_], [f["name"] for f in struct["fields"]]
                )
                for field in struct["fields"]:
                    found = getattr(mirror, field["name"])
                    self.assertEqual(
                        (found.offset, found.size), (field["offset"], field["size"]), field["name"]
                    )

    def test_every_function_is_in_the_header(self):
        self.assertLessEqual(set(_library.FUNCTIONS), set(LAYOUT["functions"]))

    def test_every_debug_array_is_in_the_dataclass(self):
        names = [name for name, *_ in _abi.nuc_debug_arrays._fields_ if name != "struct_size"]
        self.assertEqual(list(nucleus_sampler._sampler._DEBUG_NAMES), names)
        self.assertEqual(list(nucleus_sampler._sampler._DEBUG_SHAPES), names)


class Package(unittest.TestCase):
    def test_the_package_is_the_installed_one(self):
        self.assertTrue(PACKAGE.is_relative_to(sys.prefix), PACKAGE)
        self.assertFalse(PACKAGE.is_relative_to(REPOSITORY), PACKAGE)

    def test_contents(self):
        files = {str(file): file for file in importlib.metadata.files("nucleus-sampler")}
        for name in ("nucleus_sampler/py.typed", f"nucleus_sampler/lib/{_library.FILE_NAME}"):
            self.assertIn(name, files)
        licences = [file for name, file in files.items() if name.endswith("LICENSE")]
        self.assertEqual([file.read_text() for file in licences], [(REPOSITORY / "LICENSE").read_text()])
        sections = subprocess.run(
            ["readelf", "-SW", LIBRARY], capture_output=True, text=True, check=True
        ).stdout
        self.assertNotIn(".symtab", sections)
        self.assertNotIn(".debug_info", sections)
        metadata = importlib.metadata.metadata("nucleus-sampler")
        self.assertEqual(metadata["License-Expression"], "Apache-2.0")
        self.assertEqual(metadata["Version"], LAYOUT["library_version"])
        wheel = importlib.metadata.distribution("nucleus-sampler").read_text("WHEEL")
        self.assertRegex(wheel, r"Tag: py3-none-manylinux_\d+_\d+_\w+\n")
        self.assertIn("Root-Is-Purelib: false", wheel)

    def test_version(self):
        self.assertEqual(nucleus_sampler.library_version(), LAYOUT["library_version"])


class Search(unittest.TestCase):
    def test_the_own_copy_comes_first(self):
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / _library.FILE_NAME).write_text("not a library")
            found = run(WHERE, LD_LIBRARY_PATH=directory)
            self.assertEqual(found.stdout.strip(), str(LIBRARY), found.stderr)

    def test_the_environment_variable_comes_before_it(self):
        with tempfile.TemporaryDirectory() as directory:
            other = Path(directory) / "other.so"
            other.write_bytes(LIBRARY.read_bytes())
            self.assertEqual(run(WHERE, NUCLEUS_LIBRARY=str(other)).stdout.strip(), str(other))

    def test_a_wrong_environment_variable_is_an_error(self):
        for wrong in ("/nowhere/libnucleus.so.1", "libm.so.6"):
            found = run(WHERE, NUCLEUS_LIBRARY=wrong)
            self.assertIn("LibraryNotFoundError", found.stderr)
            self.assertIn(wrong, found.stderr)

    def test_without_an_own_copy(self):
        """pkg-config comes first, then the dynamic loader."""
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            source, packaged, loader = directory / "site", directory / "packaged", directory / "loader"
            (source / "nucleus_sampler").mkdir(parents=True)
            for file in PACKAGE.glob("*.py"):
                (source / "nucleus_sampler" / file.name).write_text(file.read_text())
            for place in (packaged, loader):
                place.mkdir()
                (place / _library.FILE_NAME).write_bytes(LIBRARY.read_bytes())
            (packaged / "nucleus.pc").write_text(
                f"libdir={packaged}\nName: nucleus\nDescription: test\nVersion: 1\nLibs:\n"
            )
            both = {"PKG_CONFIG_PATH": str(packaged), "LD_LIBRARY_PATH": str(loader)}
            found = run(WHERE, source, **both)
            self.assertEqual(found.stdout.strip(), str(packaged / _library.FILE_NAME), found.stderr)
            # pkg-config names a directory without the library.
            (packaged / _library.FILE_NAME).unlink()
            self.assertEqual(run(WHERE, source, **both).stdout.strip(), _library.FILE_NAME)
            nothing = run(WHERE, source, PKG_CONFIG_PATH=str(packaged), PKG_CONFIG_LIBDIR=str(packaged))
            self.assertIn("LibraryNotFoundError", nothing.stderr)
            self.assertIn("NUCLEUS_LIBRARY", nothing.stderr)

    def test_another_abi_or_an_old_version_is_refused(self):
        abi, version = LAYOUT["abi_version"], LAYOUT["library_version"]
        for change, reason in (
            ("_abi.NUC_ABI_VERSION = 99", f"has ABI version {abi}; this package needs 99"),
            ("_abi.LIBRARY_VERSION = '99.0.0'", f"has version {version}; this package needs 99.0.0 or newer"),
        ):
            found = run(
                f"import nucleus_sampler\nfrom nucleus_sampler import _abi\n{change}\n{WHERE}",
                NUCLEUS_LIBRARY=str(LIBRARY),
            )
            self.assertIn(reason, found.stderr)

    def test_importing_needs_no_library(self):
        found = run("import nucleus_sampler", NUCLEUS_LIBRARY="/nowhere")
        self.assertEqual((found.returncode, found.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
