"""The errors that a wrong program raises."""


class ProgramError(Exception):
    """The program is malformed, or did something forbidden. The message names the operation."""


class PlacedError(ProgramError):
    """An error whose message already contains the position."""
