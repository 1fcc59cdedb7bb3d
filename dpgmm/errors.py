"""The one error that a user can mend."""


class InputError(ValueError):
    """Bad input. The message is one line: what was found, where, what to do. The command line exits with code 2."""
