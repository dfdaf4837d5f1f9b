"""The one error that a wrong program raises."""


class ProgramError(Exception):
    """A program that cannot be run, or that did something it must not; the message names the operation."""


class PlacedError(ProgramError):
    """One whose message already says where."""
