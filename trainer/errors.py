"""Errors that are the user's to mend: one line, exit code 2."""


class UserError(Exception):
    """A mistake in a recipe, a path or an option; the message says what to do. The command exits 2 with it."""


class CorruptRecordError(Exception):
    """A record that cannot be read; the message names the document and the image."""
