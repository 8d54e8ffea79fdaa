"""The error that a person can correct."""


class UserError(Exception):
    """A mistake that the user can correct. Its text is one clear sentence; the command line prints it and exits with 1."""


def reason(error: Exception) -> str:
    """The message of another library's error, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
