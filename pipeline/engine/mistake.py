"""The user's mistakes: one line that names the file or field and says what to do; commands exit 2 on it."""


class UserMistake(Exception):
    """Shown as its message alone, never with a traceback."""
