"""Damage: an object of a corpus that is not what was written, and what a person can do about it."""

from __future__ import annotations

# Row stores of what came over the network: nothing here can make it again.
NETWORK_STORES = ("fetch_page", "fetch_image")


class Damaged(RuntimeError):
    """An object is missing, is not what it should be, or holds other bytes than were written.

    The message is one line that says what to do. `name` is the object's path from the corpus root, where a build that
    meets the damage may make the object again.
    """

    def __init__(self, message: str, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name


def damaged(name: str, what: str) -> Damaged:
    """The damage of an object of a table or of a row store; `what` is "is missing" or the like."""
    folder, store, *_ = [*name.split("/"), ""]
    if folder == "tables":
        remedy = f"delete records/{store} and work/{store} and build again"
    elif store in NETWORK_STORES:
        remedy = (
            "it holds what was fetched and cannot be made again: put it back from a copy, or give source.snapshot "
            "another name to fetch everything afresh"
        )
    else:
        remedy = "delete it and the folders records and work and build again, which makes again what is not remembered"
    return Damaged(f"{name} is damaged: it {what}: {remedy}", name)


def can_be_made_again(name: str) -> bool:
    """Whether a build can make an object again: parts of tables, and packs of what it read or computed itself."""
    folder, store, *_ = [*name.split("/"), ""]
    return folder == "tables" or (folder == "rows" and store not in NETWORK_STORES and name.endswith(".pack"))
