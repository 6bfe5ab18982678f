"""Build records: the JSON file that says what a build is, how far it came and how it ended."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from schemas.strict_json import parsed

VERSION = 2
RUNNING, STOPPED, FAILED, FINISHED = "running", "stopped", "failed", "finished"
STATES = (RUNNING, STOPPED, FAILED, FINISHED)


@dataclass(frozen=True)
class BuildRecord:
    """One build under OUT/builds/<id>.json, written again as it goes on; of a killed one the state stays `running`."""

    id: str  # sorts by the time of its start
    label: str  # what --spec named
    overrides: tuple[str, ...]  # key=value, as --set took them
    spec: dict[str, Any]  # resolved, every default filled in
    # every phase in build order -> its record, or the folder of its receipts while it is not finished, both named from
    # the corpus root; "" for one that was not begun
    phases: dict[str, str]
    stores: tuple[str, ...]  # folders of row stores that the phases begun work with, from the corpus root, sorted
    state: str  # one of STATES
    cause: str  # one line, "" while it runs and when it is finished
    started: str  # ISO 8601, UTC
    updated: str  # of one that runs, every half minute: one that stays silent for three of them is dead
    host: str  # that its driver runs on
    process: int  # id of the driver there
    version: str = ""  # of the version that it made, whether or not it is published; "" before
    record_version: int = VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str | bytes) -> BuildRecord:
        """Parse a record; ValueError, one line, when it is another version or no record."""
        record = parsed(BuildRecord, text, "build record", "record_version", VERSION)
        if record.state not in STATES:
            raise ValueError(f"not a build record: state {record.state!r}")
        return record
