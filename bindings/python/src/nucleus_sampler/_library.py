"""Finds and loads libnucleus.

The first usable library of this list is used:

1. the file that the environment variable NUCLEUS_LIBRARY names (no other library is then tried);
2. the copy in this package, which wheels have;
3. the library that `pkg-config nucleus` finds;
4. the library that the dynamic loader finds (LD_LIBRARY_PATH, ldconfig).
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from . import _abi
from ._errors import LibraryNotFoundError, error_of

ENVIRONMENT_VARIABLE = "NUCLEUS_LIBRARY"
FILE_NAME = f"libnucleus.so.{_abi.NUC_ABI_VERSION}"

_POINTER = ctypes.c_void_p
_SIZE = ctypes.c_size_t
_STATUS = ctypes.c_int32
# Pointers are untyped, so that null and addresses of arrays can be passed without a conversion.
_SAMPLING = (_STATUS, (_POINTER,) * 7)

# The functions that this package calls: result and arguments.
FUNCTIONS: dict[str, tuple[object, tuple[object, ...]]] = {
    "nuc_version": (ctypes.c_char_p, ()),
    "nuc_version_number": (ctypes.c_uint32, ()),
    "nuc_abi_version": (ctypes.c_uint32, ()),
    "nuc_sampler_create": (_STATUS, (_POINTER,) * 3),
    "nuc_sampler_destroy": (_STATUS, (_POINTER,) * 2),
    "nuc_topk_topp_and_sample": _SAMPLING,
    "nuc_arbitrary_topk_topp_and_sample": _SAMPLING,
    "nuc_bounded_topk_topp_and_sample": _SAMPLING,
    "nuc_reference_topk_topp_and_sample": _SAMPLING,
    "nuc_prewarm": (_STATUS, (_POINTER,) * 3),
    "nuc_sampler_get_info": (_STATUS, (_POINTER,) * 3),
    "nuc_sampler_get_device": (_STATUS, (_POINTER, _SIZE, _POINTER, _POINTER)),
    "nuc_sampler_get_stats": (_STATUS, (_POINTER,) * 3),
}


class UnusableLibrary(OSError):
    """The file is not a libnucleus that this package can use."""


class Library:
    """A loaded libnucleus. Calls release the global interpreter lock."""

    def __init__(self, path: str) -> None:
        self.path = path
        handle = ctypes.CDLL(path)
        try:
            for name, (result, arguments) in FUNCTIONS.items():
                function = getattr(handle, name)
                function.restype = result
                function.argtypes = arguments
        except AttributeError as error:
            raise UnusableLibrary(f"{path} is not a libnucleus of this version: {error}") from None
        abi = handle.nuc_abi_version()
        if abi != _abi.NUC_ABI_VERSION:
            raise UnusableLibrary(f"{path} has ABI version {abi}; this package needs {_abi.NUC_ABI_VERSION}")
        self.version: str = handle.nuc_version().decode()
        if handle.nuc_version_number() < _number(_abi.LIBRARY_VERSION):
            raise UnusableLibrary(
                f"{path} has version {self.version}; this package needs {_abi.LIBRARY_VERSION} or newer"
            )
        self.functions = handle


def _number(version: str) -> int:
    major, minor, patch = (int(part) for part in version.split("."))
    return major * 1_000_000 + minor * 1_000 + patch


def _candidates() -> Iterator[str]:
    own = Path(__file__).parent / "lib" / FILE_NAME
    if own.exists():
        yield str(own)
    try:
        found = subprocess.run(
            ["pkg-config", "--variable=libdir", "nucleus"], capture_output=True, text=True, check=True
        )
        yield str(Path(found.stdout.strip()) / FILE_NAME)
    except (OSError, subprocess.CalledProcessError):
        pass  # There is no pkg-config, or it does not know the library.
    yield FILE_NAME


@functools.lru_cache(maxsize=1)
def load() -> Library:
    """The library of this process. Raises LibraryNotFoundError if there is none."""
    if ctypes.sizeof(ctypes.c_void_p) != _abi.POINTER_SIZE:
        raise LibraryNotFoundError(f"this package needs a system with {8 * _abi.POINTER_SIZE}-bit pointers")
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    failures = []
    for path in [named] if named else _candidates():
        try:
            return Library(path)
        except OSError as error:
            failures.append(str(error))
    tried = "\n".join(f"  {failure}" for failure in failures)
    raise LibraryNotFoundError(
        f"libnucleus was not found. Install a wheel that contains it, install the library, or set the environment "
        f"variable {ENVIRONMENT_VARIABLE} to its path. Tried:\n{tried}"
    )


class Errors:
    """A nuc_error. Only one call may use it at a time."""

    def __init__(self, full_message_size: int = 0) -> None:
        self.struct = _abi.nuc_error(struct_size=ctypes.sizeof(_abi.nuc_error))
        self.address = ctypes.addressof(self.struct)
        self._buffer = ctypes.create_string_buffer(full_message_size) if full_message_size else None
        if self._buffer is not None:
            self.struct.full_message = ctypes.addressof(self._buffer)
            self.struct.full_message_size = full_message_size

    def check(self, status: int) -> None:
        """Raises the exception for the status of the last call. Does nothing for NUC_OK."""
        if status != 0:
            message = self._buffer.value if self._buffer is not None else self.struct.message
            argument = self.struct.argument
            raise error_of(
                status,
                message.decode(errors="replace"),
                argument.decode() if argument is not None else None,
                self.struct.row if self.struct.row >= 0 else None,
            )
