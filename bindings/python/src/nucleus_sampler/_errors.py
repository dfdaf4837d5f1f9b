"""The exceptions of this package."""

from __future__ import annotations

from . import _abi

Status = _abi.nuc_status


class NucleusError(RuntimeError):
    """A call of the library failed.

    Attributes:
        status: The status of the call, for example `Status.NUC_DEVICE_ERROR`.
        message: The reason.
        argument: The name of the argument at fault, as in nucleus.h; None if no single argument is at fault.
        row: The index of the row at fault, counted from 0; None if no single row is at fault.
    """

    status: Status
    message: str
    argument: str | None
    row: int | None

    def __init__(
        self, status: Status, message: str, argument: str | None = None, row: int | None = None
    ) -> None:
        super().__init__(f"{message} ({status.name})")
        self.status = status
        self.message = message
        self.argument = argument
        self.row = row

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.status, self.message, self.argument, self.row)


class InvalidArgumentError(NucleusError, ValueError):
    """An argument has a wrong value or shape. The library or this package found it; no output exists."""


class OutOfMemoryError(NucleusError, MemoryError):
    """The host or the device ran out of memory, threads or another resource."""


class LibraryNotFoundError(OSError):
    """No usable libnucleus was found. The message lists what was tried."""


_CLASSES: dict[int, type[NucleusError]] = {
    Status.NUC_INVALID_ARGUMENT: InvalidArgumentError,
    Status.NUC_OUT_OF_MEMORY: OutOfMemoryError,
}


def error_of(status: int, message: str, argument: str | None, row: int | None) -> NucleusError:
    """The exception for a status. A status that this package does not know counts as NUC_INTERNAL."""
    known = Status(status) if status in Status.__members__.values() else Status.NUC_INTERNAL
    return _CLASSES.get(known, NucleusError)(known, message, argument, row)


def invalid(argument: str, message: str) -> InvalidArgumentError:
    """The exception for an argument that this package refuses."""
    return InvalidArgumentError(Status.NUC_INVALID_ARGUMENT, message, argument)
