"""The errors of incorrect programs."""


class ProgramError(Exception):
    """The program is malformed or did a forbidden operation. The message names the operation."""


class PlacedError(ProgramError):
    """An error whose message already contains the position."""
