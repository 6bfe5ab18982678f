"""Records of builds, OUT/builds/<id>.json: what readers and collectors know of builds that made no version."""

from __future__ import annotations

import re
import shlex
import uuid
from datetime import UTC, datetime

from pipeline.engine.damage import Damaged
from pipeline.engine.layout import BUILDS
from pipeline.engine.storage import Storage
from schemas.build_record import FAILED, RUNNING, BuildRecord

_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


def new_id() -> str:
    """An id that sorts by time, and is no other's."""
    return f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%S%fZ')}-{uuid.uuid4().hex[:6]}"


def record_name(build: str) -> str:
    """Where a build's record lies, from the corpus root."""
    return f"{BUILDS}/{build}.json"


def build_ids(storage: Storage) -> list[str]:
    """Builds that have a record, the oldest first."""
    names = [name.removesuffix(".json") for name in storage.names(BUILDS) if name.endswith(".json")]
    return sorted(name for name in names if _ID.fullmatch(name))


def read_build(storage: Storage, build: str) -> BuildRecord | None:
    """The record of a build, None where there is none; Damaged when the file is not one."""
    if not _ID.fullmatch(build):
        return None
    name = record_name(build)
    try:
        record = BuildRecord.from_json(storage.read(name))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise Damaged(f"{storage.path(name)}: {error}: delete it") from None
    if record.id != build:
        raise Damaged(f"{storage.path(name)} is of build {record.id!r}: delete it")
    return record


def newest_build(storage: Storage) -> BuildRecord | None:
    """The record of the build that started last; Damaged as `read_build`."""
    ids = build_ids(storage)
    return read_build(storage, ids[-1]) if ids else None


def record_of_version(storage: Storage, version: str) -> BuildRecord | None:
    """The record of the last build that made a version, None where none is there to be read."""
    for build in reversed(build_ids(storage)):
        try:
            record = read_build(storage, build)
        except Damaged:
            continue
        if record is not None and record.version == version:
            return record
    return None


def build_command(url: str, record: BuildRecord | None, *more: str) -> str:
    """The command that builds again what a record is of, or SPEC for an unknown spec, to be put into a shell."""
    words = ["--spec", record.label if record else "SPEC"]
    for override in record.overrides if record else ():
        if not override.startswith("output.url="):  # --out says it
            words += ["--set", override]
    return shlex.join(["python", "-m", "pipeline.build", *words, "--out", url, *more])


def how_it_ended(record: BuildRecord, finished: list[str]) -> str:
    """One line: the build, how it ended or that it has not, and which phases are not there."""
    after = f" after {finished[-1]}" if finished else ""
    if record.state == RUNNING:
        said = f"build {record.id} is running, or was killed{after} (last heard of at {record.updated})"
    elif record.state == FAILED:
        said = f"build {record.id} failed{after}: {record.cause}"
    else:
        said = f"build {record.id} {record.state}{after}" + (f": {record.cause}" if record.cause else "")
    ahead = [phase for phase in record.phases if phase not in finished]
    return said + (f"; phases from {ahead[0]} on did not finish" if ahead else "")
