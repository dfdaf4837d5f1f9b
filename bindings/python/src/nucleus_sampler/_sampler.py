"""The sampler."""

from __future__ import annotations

import ctypes
import enum
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from . import _abi, _arrays
from ._arrays import Array, address
from ._errors import invalid
from ._library import Errors, load

Path = Literal["auto", "arbitrary", "bounded", "reference"]
Backend = Literal["auto", "builtin", "pjrt"]
Dtype = Literal["f32", "bf16", "f16"]

_BACKENDS: dict[str, int] = {
    "auto": _abi.nuc_backend.NUC_BACKEND_AUTO,
    "builtin": _abi.nuc_backend.NUC_BACKEND_BUILTIN,
    "pjrt": _abi.nuc_backend.NUC_BACKEND_PJRT,
}
_PATHS: dict[str, int] = {
    "auto": _abi.nuc_path.NUC_PATH_AUTO,
    "arbitrary": _abi.nuc_path.NUC_PATH_ARBITRARY,
    "bounded": _abi.nuc_path.NUC_PATH_BOUNDED,
}
_FUNCTIONS: dict[str, str] = {
    "auto": "nuc_topk_topp_and_sample",
    "arbitrary": "nuc_arbitrary_topk_topp_and_sample",
    "bounded": "nuc_bounded_topk_topp_and_sample",
    "reference": "nuc_reference_topk_topp_and_sample",
}
# Messages of plugins can be long, because they quote compilers.
_LONG_MESSAGE = 1 << 16


class RowStatus(enum.IntFlag):
    """The bits of `Result.row_status`: the NUC_ROW_* bits of nucleus.h."""

    NO_CANDIDATE = _abi.NUC_ROW_NO_CANDIDATE
    """Every logit is -inf or NaN. The token is -1."""
    HAD_NAN = _abi.NUC_ROW_HAD_NAN
    """The row contains a NaN, which counted as -inf."""
    HAD_INF = _abi.NUC_ROW_HAD_INF
    """The row contains a +inf, which counted as the largest finite f32."""
    BAD_PARAMETER = _abi.NUC_ROW_BAD_PARAMETER
    """A parameter of the row is impossible. The row was not sampled; the token is -1."""

    @classmethod
    def _missing_(cls, value: object) -> Any:
        # Enumerations do not accept the integers of NumPy by themselves.
        if isinstance(value, np.integer):
            return cls(int(value))
        return super()._missing_(value)


@dataclass(frozen=True)
class DebugArrays:
    """The intermediate arrays of a call; None where an array was not requested.

    The fields are those of nuc_debug_arrays in nucleus.h. R is the number of rows, V the vocabulary, K the sampler's
    max_k. Arrays of logits have the type of the logits that were passed; for bfloat16 from DLPack they are uint16.
    """

    greedy_sampled: npt.NDArray[np.int32] | None = None
    """`[R]`: the lowest index of the row's maximum; -1 if there is no candidate."""
    topk_logits_unsorted: Array | None = None
    """`[R, V]`: the cleaned logit if top-k kept the entry, else `replace_val`."""
    topk_topp_unnorm_probs_i32_unsorted: npt.NDArray[np.int32] | None = None
    """`[R, V]`: the integer weight if every filter kept the entry, else 0."""
    random_unnorm_cdf_sampled_high: npt.NDArray[np.uint32] | None = None
    """`[R]`: bits 32 to 63 of r, the random number modulo the total of the kept weights."""
    random_unnorm_cdf_sampled_low: npt.NDArray[np.uint32] | None = None
    """`[R]`: bits 0 to 31 of r."""
    next_tokens: npt.NDArray[np.int32] | None = None
    """`[R]`: the lowest index whose inclusive prefix sum of kept weights exceeds r; -1 if there is no candidate."""
    topk_indices_k: npt.NDArray[np.int32] | None = None
    """`[R, K]`: the indices that top-k kept, ascending; -1 in unused slots."""
    topk_logits_k: Array | None = None
    """`[R, K]`: `topk_logits_unsorted` at those indices; `replace_val` in unused slots."""
    topk_topp_unnorm_probs_i32_k: npt.NDArray[np.int32] | None = None
    """`[R, K]`: `topk_topp_unnorm_probs_i32_unsorted` at those indices; 0 in unused slots."""


_NO_DEBUG_ARRAYS = DebugArrays()
_DEBUG_NAMES = tuple(field.name for field in fields(DebugArrays))
_K_SLICES = ("topk_indices_k", "topk_logits_k", "topk_topp_unnorm_probs_i32_k")
# The shape of each array, and its type; None is the type of the logits.
_DEBUG_SHAPES: dict[str, tuple[str, Any]] = {
    "greedy_sampled": ("R", np.int32),
    "topk_logits_unsorted": ("RV", None),
    "topk_topp_unnorm_probs_i32_unsorted": ("RV", np.int32),
    "random_unnorm_cdf_sampled_high": ("R", np.uint32),
    "random_unnorm_cdf_sampled_low": ("R", np.uint32),
    "next_tokens": ("R", np.int32),
    "topk_indices_k": ("RK", np.int32),
    "topk_logits_k": ("RK", None),
    "topk_topp_unnorm_probs_i32_k": ("RK", np.int32),
}
# The NUC_DEBUG_* bits of the arrays for which a plugin compiles other programs.
_DEBUG_BITS = {
    "topk_logits_unsorted": _abi.NUC_DEBUG_TOPK_LOGITS,
    "topk_topp_unnorm_probs_i32_unsorted": _abi.NUC_DEBUG_TOPK_TOPP_PROBS,
    **{name: _abi.NUC_DEBUG_K_SLICES for name in _K_SLICES},
}


class Result(NamedTuple):
    """The results of a call."""

    tokens: npt.NDArray[np.int32]
    """`[R]`: the token of each row; -1 if the row has none."""
    row_status: npt.NDArray[np.uint32]
    """`[R]`: the `RowStatus` bits of each row."""
    debug: DebugArrays
    """The intermediate arrays that the call requested."""


@dataclass(frozen=True)
class SamplerInfo:
    """A sampler's platform: nuc_sampler_info in nucleus.h."""

    platform_name: str
    platform_version: str
    pjrt_api: tuple[int, int]
    num_devices: int
    max_k: int


@dataclass(frozen=True)
class DeviceInfo:
    """A device of a sampler: nuc_device_info in nucleus.h."""

    description: str
    kind: str
    id: int


class Sampler:
    """Chooses the next token of each row of a batch of logits.

    Any number of threads may use a sampler at the same time. Calls release the global interpreter lock. A sampler
    does not survive fork: create samplers in the process that uses them.

    The arguments are those of nuc_sampler_options in nucleus.h, with the same defaults. `client_options` are options
    of the plugin: the type of each value selects the type of the option.
    """

    def __init__(
        self,
        *,
        backend: Backend = "auto",
        plugin_path: str | os.PathLike[str] | None = None,
        client_options: Mapping[str, str | bool | int | float] | None = None,
        device_index: int = 0,
        max_k: int = 0,
        cache_capacity: int = 0,
        num_threads: int = 0,
        program_dir: str | os.PathLike[str] | None = None,
        write_programs: bool = False,
        program_dir_capacity: int = 0,
        row_buckets: Sequence[int] = (),
    ) -> None:
        self._handle: int | None = None
        self._process = os.getpid()
        # One token for each call that is running. close() waits until the set is empty. A number would be wrong after an
        # interrupt between a change of it and the `try` that undoes the change; a token may be discarded in any case.
        self._running: set[object] = set()
        self._closed = False
        # Only one thread may take the handle to destroy it.
        self._closing = threading.Lock()
        self._functions = load().functions
        if backend not in _BACKENDS:
            raise invalid("backend", f"backend is {backend!r}; it must be one of {', '.join(_BACKENDS)}")
        listed = _client_options(client_options or {})
        buckets = (ctypes.c_size_t * len(row_buckets))(
            *(_number("row_buckets", number, ctypes.c_size_t) for number in row_buckets)
        )
        options = _abi.nuc_sampler_options(
            struct_size=ctypes.sizeof(_abi.nuc_sampler_options),
            backend=_BACKENDS[backend],
            device_index=_number("device_index", device_index, ctypes.c_int32),
            plugin_path=_file_name("plugin_path", plugin_path),
            client_options=ctypes.addressof(listed) if len(listed) else None,
            num_client_options=len(listed),
            max_k=_number("max_k", max_k, ctypes.c_size_t),
            cache_capacity=_number("cache_capacity", cache_capacity, ctypes.c_size_t),
            num_threads=_number("num_threads", num_threads, ctypes.c_size_t),
            program_dir=_file_name("program_dir", program_dir),
            write_programs=int(write_programs),
            program_dir_capacity=_number("program_dir_capacity", program_dir_capacity, ctypes.c_uint64),
            row_buckets=ctypes.addressof(buckets) if len(buckets) else None,
            num_row_buckets=len(buckets),
        )
        handle, errors = ctypes.c_void_p(), Errors(_LONG_MESSAGE)
        errors.check(
            self._functions.nuc_sampler_create(
                ctypes.addressof(options), ctypes.addressof(handle), errors.address
            )
        )
        self._handle = handle.value
        self._max_k = self.info().max_k

    def __enter__(self) -> Sampler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # __init__ may have failed before it set the handle.
        if getattr(self, "_handle", None) is not None:
            self.close()

    def __reduce__(self) -> NoReturn:
        # The modules copy and pickle call this function. A copy would own the same handle and free it a second time.
        raise TypeError(
            "a Sampler cannot be copied or pickled; threads can share it, and another process must create its own"
        )

    def close(self) -> None:
        """Frees the sampler. Waits for calls of other threads. Later calls raise ValueError."""
        if os.getpid() != self._process:
            # In a child process after fork, the threads of the parent's calls do not exist. Nothing is freed.
            self._closed, self._handle = True, None
            return
        self._closed = True
        # The calls do not notify this thread, because an interrupt can prevent it.
        while self._running:
            time.sleep(0.001)
        errors = Errors()
        with self._closing:
            handle, self._handle = self._handle, None
        if handle is not None:
            errors.check(self._functions.nuc_sampler_destroy(handle, errors.address))

    @property
    def closed(self) -> bool:
        """Whether the sampler was closed."""
        return self._closed

    def _begin(self, token: object) -> int:
        """Begins a call and returns the handle.

        The caller calls this function in a `try` whose `finally` only discards the token from `_running`. Python
        handles no signal between the beginning of such a `finally` and the end of the discard.
        """
        if os.getpid() != self._process:
            raise invalid("sampler", "a sampler does not survive fork; create it in the process that uses it")
        # In this order, because close() sets _closed first and then waits for the tokens.
        self._running.add(token)
        handle = self._handle
        if self._closed or handle is None:
            raise ValueError("the sampler is closed")
        return handle

    def _call(self, name: str, *arguments: int | None, full_message_size: int = 0) -> None:
        """Calls a function of the library whose first argument is the sampler."""
        errors, token = Errors(full_message_size), object()
        try:
            handle = self._begin(token)
            status = getattr(self._functions, name)(handle, *arguments, errors.address)
        finally:
            self._running.discard(token)
        errors.check(status)

    def sample(
        self,
        logits: Any,
        *,
        top_k: npt.ArrayLike | None = None,
        top_p: npt.ArrayLike | None = None,
        min_p: npt.ArrayLike | None = None,
        temperature: npt.ArrayLike | None = None,
        seed: npt.ArrayLike | None = None,
        offset: npt.ArrayLike | None = None,
        random_words: npt.ArrayLike | None = None,
        keep_ties: bool = False,
        replace_val: float | None = None,
        path: Path = "auto",
        dtype: Dtype | None = None,
        strict: bool = False,
        debug: bool | Iterable[str] = False,
    ) -> Result:
        """Chooses the next token of every row.

        `logits` is `[num_rows, vocab]`: a NumPy array of float32, float16 or ml_dtypes.bfloat16; an array of uint16
        with the bits of `dtype` "bf16" or "f16"; or an object on the CPU that supports DLPack. It is not copied if the
        elements of each row are adjacent. No thread may write it during the call.

        `top_k`, `top_p`, `min_p`, `temperature`, `seed` and `offset` are scalars for all rows, or have one element
        per row. `random_words` is `[num_rows, 4]`. None is the default of nucleus.h, where all of these arguments are
        described. Parameters of type float are rounded to float32.

        Give each request its own seed. Rows with equal seed and offset use the same random number.

        An impossible parameter, for example a NaN temperature, affects only its own row: the row gets the token -1 and
        `RowStatus.BAD_PARAMETER`. With `strict`, the call raises InvalidArgumentError instead, which names the
        parameter and the row.

        `path` selects a function of the library; the results do not depend on it. "reference" is the sorted
        reference. `debug` lists names of `DebugArrays`. True requests all of them, but the k-slices only if the path
        is "bounded", because they restrict k.
        """
        if path not in _FUNCTIONS:
            raise invalid("path", f"path is {path!r}; it must be one of {', '.join(_FUNCTIONS)}")
        view = _arrays.logits_of(logits, dtype)
        num_rows, vocab = view.array.shape
        # These arrays must live until the call returns.
        inputs = (
            _arrays.integers("top_k", top_k, num_rows, np.int32),
            _arrays.floats("top_p", top_p, num_rows),
            _arrays.floats("min_p", min_p, num_rows),
            _arrays.floats("temperature", temperature, num_rows),
            _arrays.words(random_words, num_rows),
            _arrays.integers("seed", seed, num_rows, np.uint64),
            _arrays.integers("offset", offset, num_rows, np.uint64),
        )
        batch = _abi.nuc_batch(
            ctypes.sizeof(_abi.nuc_batch),
            address(view.array),
            view.dtype,
            0,
            num_rows,
            vocab,
            view.row_stride,
            *map(address, inputs),
        )
        tokens = np.empty(num_rows, np.int32)
        row_status = np.empty(num_rows, np.uint32)
        options = _call_options(keep_ties, replace_val)
        names = _debug_names(debug, path)
        arrays = self._debug_arrays(names, num_rows, vocab, view.array.dtype)
        pointers = _debug_struct(arrays)
        # With row_status the library marks impossible rows; without it the call fails and describes the first error.
        for status in (row_status, None):
            self._call(
                _FUNCTIONS[path],
                ctypes.addressof(batch),
                ctypes.addressof(options) if options is not None else None,
                address(tokens),
                address(status),
                ctypes.addressof(pointers) if pointers is not None else None,
            )
            if not strict or not (row_status & RowStatus.BAD_PARAMETER).any():
                break
        return Result(tokens, row_status, DebugArrays(**arrays) if arrays else _NO_DEBUG_ARRAYS)

    def _debug_arrays(
        self, names: tuple[str, ...], num_rows: int, vocab: int, dtype: np.dtype[Any]
    ) -> dict[str, Array]:
        shapes = {"R": (num_rows,), "RV": (num_rows, vocab), "RK": (num_rows, self._max_k)}
        return {
            name: np.empty(shapes[shape], kind if kind is not None else dtype.newbyteorder("="))
            for name, (shape, kind) in ((name, _DEBUG_SHAPES[name]) for name in names)
        }

    def prewarm(
        self,
        num_rows: int,
        vocab: int,
        *,
        dtype: Dtype = "f32",
        path: Literal["auto", "arbitrary", "bounded"] = "auto",
        keep_ties: bool = False,
        debug: bool | Iterable[str] = False,
        num_threads: int = 0,
    ) -> None:
        """Compiles the programs that calls with up to `num_rows` rows need. The built-in backend needs none."""
        if path not in _PATHS:
            raise invalid("path", f"path is {path!r}; it must be one of {', '.join(_PATHS)}")
        if dtype not in _arrays.DTYPES:
            raise invalid("dtype", f"dtype is {dtype!r}; it must be one of {', '.join(_arrays.DTYPES)}")
        bits = 0
        for name in _debug_names(debug, path):
            bits |= _DEBUG_BITS.get(name, 0)
        spec = _abi.nuc_prewarm_spec(
            struct_size=ctypes.sizeof(_abi.nuc_prewarm_spec),
            path=_PATHS[path],
            dtype=_arrays.DTYPES[dtype],
            num_rows=_number("num_rows", num_rows, ctypes.c_size_t),
            vocab=_number("vocab", vocab, ctypes.c_size_t),
            keep_ties=int(keep_ties),
            debug_arrays=bits,
            num_threads=_number("num_threads", num_threads, ctypes.c_size_t),
        )
        self._call("nuc_prewarm", ctypes.addressof(spec), full_message_size=_LONG_MESSAGE)

    def info(self) -> SamplerInfo:
        """Describes the sampler's platform."""
        info = _abi.nuc_sampler_info(struct_size=ctypes.sizeof(_abi.nuc_sampler_info))
        # The strings belong to the sampler, so they are copied while it cannot be destroyed.
        token = object()
        try:
            self._begin(token)
            self._call("nuc_sampler_get_info", ctypes.addressof(info))
            return SamplerInfo(
                platform_name=_text(info.platform_name),
                platform_version=_text(info.platform_version),
                pjrt_api=(info.pjrt_api_major, info.pjrt_api_minor),
                num_devices=info.num_devices,
                max_k=info.max_k,
            )
        finally:
            self._running.discard(token)

    def devices(self) -> list[DeviceInfo]:
        """Describes the devices that `device_index` can select."""
        found = []
        token = object()
        try:
            self._begin(token)
            for index in range(self.info().num_devices):
                device = _abi.nuc_device_info(struct_size=ctypes.sizeof(_abi.nuc_device_info))
                self._call("nuc_sampler_get_device", index, ctypes.addressof(device))
                found.append(DeviceInfo(_text(device.description), _text(device.kind), device.id))
        finally:
            self._running.discard(token)
        return found

    def stats(self) -> dict[str, int]:
        """The counters and latencies of the sampler, by the names of nuc_sampler_stats in nucleus.h."""
        stats = _abi.nuc_sampler_stats(struct_size=ctypes.sizeof(_abi.nuc_sampler_stats))
        self._call("nuc_sampler_get_stats", ctypes.addressof(stats))
        names = (field[0] for field in _abi.nuc_sampler_stats._fields_)
        return {name: getattr(stats, name) for name in names if name != "struct_size"}


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")


def _number(name: str, value: Any, kind: Any) -> int:
    """An integer that fits a C type."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    number = int(value.__index__())
    if kind(number).value != number:
        raise invalid(name, f"{name} is {number}; it does not fit its type in nucleus.h")
    return number


def _file_name(name: str, value: str | os.PathLike[str] | None) -> bytes | None:
    if value is None:
        return None
    return _without_nul(name, os.fsencode(value))


def _without_nul(name: str, encoded: bytes) -> bytes:
    if b"\0" in encoded:
        raise invalid(name, f"{name} contains a NUL character")
    return encoded


def _client_options(options: Mapping[str, str | bool | int | float]) -> Any:
    """An array of nuc_client_option."""
    kinds = _abi.nuc_option_type
    listed = (_abi.nuc_client_option * len(options))()
    for option, (name, value) in zip(listed, options.items(), strict=True):
        if not isinstance(name, str):
            raise TypeError(f"a name in client_options must be a str, not {type(name).__name__}")
        option.name = _without_nul("client_options", name.encode())
        if isinstance(value, str):
            option.type = kinds.NUC_OPTION_STRING
            option.string_value = _without_nul("client_options", value.encode())
        elif isinstance(value, bool):
            option.type, option.int64_value = kinds.NUC_OPTION_BOOL, int(value)
        elif isinstance(value, int):
            option.type, option.int64_value = kinds.NUC_OPTION_INT64, _number(name, value, ctypes.c_int64)
        elif isinstance(value, float):
            option.type, option.float_value = kinds.NUC_OPTION_FLOAT, value
        else:
            raise TypeError(
                f"the client option {name!r} must be a str, bool, int or float, not {type(value).__name__}"
            )
    return listed


def _call_options(keep_ties: bool, replace_val: float | None) -> Any:
    """A nuc_call_options; None if every option has its default."""
    if not keep_ties and replace_val is None:
        return None
    return _abi.nuc_call_options(
        struct_size=ctypes.sizeof(_abi.nuc_call_options),
        keep_ties=int(keep_ties),
        use_replace_val=int(replace_val is not None),
        replace_val=replace_val if replace_val is not None else 0.0,
    )


def _debug_names(debug: bool | Iterable[str], path: str) -> tuple[str, ...]:
    """The names of the debug arrays that a call requests."""
    if debug is False:
        return ()
    if debug is True:
        return tuple(name for name in _DEBUG_NAMES if path == "bounded" or name not in _K_SLICES)
    if not isinstance(debug, Iterable):
        raise TypeError(f"debug must be True, False or names of arrays, not {type(debug).__name__}")
    names = (debug,) if isinstance(debug, str) else tuple(debug)
    unknown = [name for name in names if name not in _DEBUG_NAMES]
    if unknown:
        raise invalid("debug", f"debug contains {unknown[0]!r}; the arrays are {', '.join(_DEBUG_NAMES)}")
    return names


def _debug_struct(arrays: dict[str, Array]) -> Any:
    """A nuc_debug_arrays with the addresses of the arrays; None if there is no array."""
    if not arrays:
        return None
    struct = _abi.nuc_debug_arrays(struct_size=ctypes.sizeof(_abi.nuc_debug_arrays))
    for name, array in arrays.items():
        setattr(struct, name, address(array))
    return struct
