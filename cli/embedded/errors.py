"""The error that a person at the terminal reads."""


class StackError(Exception):
    """Something about this machine stops the stack. The message says what, and what to do about it."""
