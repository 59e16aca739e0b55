"""The exception for errors that the user can fix."""


class InputError(Exception):
    """Something the user gave cannot be used.

    The message says what was found, what was expected and what to do, and names the file or the
    configuration key. Entry points print it in one line, without a traceback, and exit non-zero.
    """
