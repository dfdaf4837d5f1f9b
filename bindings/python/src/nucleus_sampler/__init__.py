"""Python interface of nucleus, which chooses the next token of a language model.

    with Sampler() as sampler:
        result = sampler.sample(logits, top_k=50, top_p=0.9, temperature=0.7, seed=seeds, offset=step)
        result.tokens

For validation and notebooks. The meaning of every argument is in nucleus.h.
"""

from ._errors import (
    InvalidArgumentError,
    LibraryNotFoundError,
    NucleusError,
    OutOfMemoryError,
    Status,
)
from ._library import load as _load
from ._sampler import DebugArrays, DeviceInfo, Result, RowStatus, Sampler, SamplerInfo

__all__ = [
    "DebugArrays",
    "DeviceInfo",
    "InvalidArgumentError",
    "LibraryNotFoundError",
    "NucleusError",
    "OutOfMemoryError",
    "Result",
    "RowStatus",
    "Sampler",
    "SamplerInfo",
    "Status",
    "library_path",
    "library_version",
]


def library_path() -> str:
    """The path or name of the loaded libnucleus."""
    return _load().path


def library_version() -> str:
    """The version of the loaded libnucleus."""
    return _load().version
