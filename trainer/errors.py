"""What ends a run early, by its exit code."""


class UserError(Exception):
    """A mistake in a recipe, a path or an option; the message says what to do. The command exits 2 with it."""


class CorruptRecordError(Exception):
    """A record that cannot be read; the message names the document and the image."""


class NotFiniteError(Exception):
    """The model answers with NaN or infinity: there is nothing to measure or to go on with. The command exits 1."""


class Terminated(Exception):
    """SIGTERM came; the steps done are in a checkpoint. The command exits 143."""
