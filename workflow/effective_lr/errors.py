"""The error that a person can correct."""


class UserError(Exception):
    """A mistake that the user can correct. Its text is one clear sentence, which the command line prints."""


def reason(error: Exception) -> str:
    """The message of another library's error, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
