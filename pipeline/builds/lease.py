"""Leases: a build's record says that it is at work for as long as its driver keeps saying so."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from pipeline.corpus.records import build_ids, read_build
from pipeline.engine.damage import Damaged
from pipeline.engine.moment import FORMAT
from pipeline.engine.storage import Storage
from schemas.build_record import RUNNING, BuildRecord

_log = logging.getLogger(__name__)

# A driver says every so often that it is there; one that was not heard of for longer than that is taken for dead.
HEARTBEAT_SECONDS = 30.0
LEASE_SECONDS = 100.0
LOOK_SECONDS = 2.0
# Of /proc/<process>/stat, behind the name: states of processes that ended and wait for their parents, and the place,
# behind the state, of the ticks at which one began (proc_pid_stat(5)).
_DEAD = (b"Z", b"X")
_START = 18
_UPTIME = "/proc/uptime"
# By how much a clock may be set while a build is at work.
_CLOCK_SECONDS = 60.0


def this_machine() -> str:
    """Names the machine in a record, until it is started again."""
    return f"{socket.gethostname()}/{_boot()}"


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def at_work(storage: Storage) -> Iterator[BuildRecord]:
    """Records of builds whose drivers are there, the oldest first; a damaged record is no build's."""
    for build in build_ids(storage):
        try:
            record = read_build(storage, build)
        except Damaged:
            continue
        if record is not None and record.state == RUNNING and _is_there(record):
            yield record


def holder(storage: Storage) -> BuildRecord | None:
    """The record of a build that is at work, None where none is.

    One of another machine that was heard of lately may be dead: it is given the time in which it would be heard of.
    """
    for record in at_work(storage):
        if _on_this_machine(record) or _speaks(storage, record):
            return record
    return None


def _speaks(storage: Storage, record: BuildRecord) -> bool:
    """Whether a build is heard of once more before its lease ends."""
    _log.warning(
        "build %s on %s was last heard of at %s: waiting to see whether it is at work",
        *(record.id, record.host.split("/")[0], record.updated),
    )
    found: BuildRecord | None = record
    while found is not None and found.state == RUNNING and _is_there(found):
        if found.updated != record.updated:
            return True
        time.sleep(LOOK_SECONDS)
        found = read_build(storage, record.id)
    return False


def _on_this_machine(record: BuildRecord) -> bool:
    return record.host == this_machine() and os.path.exists(_UPTIME)


def _is_there(record: BuildRecord) -> bool:
    if _on_this_machine(record):
        return record.process != os.getpid() and _is_driver(record)
    heard = _seconds_since(record.updated)
    return heard is not None and heard < LEASE_SECONDS


def _is_driver(record: BuildRecord) -> bool:
    """Whether the process of that number on this machine is the build's, and not one that got the number since."""
    try:
        with open(f"/proc/{record.process}/stat", "rb") as file:
            state, *numbers = file.read().rpartition(b")")[2].split()
        with open(_UPTIME, "rb") as file:
            up = float(file.read().split()[0])
    except OSError:
        return False
    if state in _DEAD:
        return False
    age = up - int(numbers[_START]) / os.sysconf("SC_CLK_TCK")
    begun = _seconds_since(record.started)
    # An age below 0 is of a machine that tells its uptime otherwise, and then says nothing.
    return begun is None or age < 0 or age > begun - _CLOCK_SECONDS


def _seconds_since(moment: str) -> float | None:
    """Seconds since a moment in FORMAT, None for any other text."""
    try:
        return (datetime.now(UTC) - datetime.strptime(moment, FORMAT).replace(tzinfo=UTC)).total_seconds()
    except ValueError:
        return None
