"""The error that a user can mend."""


class UsageError(ValueError):
    """A mistake in a command, its data or its files. fairseq's commands print it as one line."""
