"""The one error that a person can mend."""


class UserError(Exception):
    """A mistake that the user can mend. Its text is one clear sentence; the command line prints it and exits with 1."""


def reason(error: Exception) -> str:
    """What another library says of its error, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
