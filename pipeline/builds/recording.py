"""Keeping a build's record: when it starts, where a phase begins to make its table, and how it ends."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.builds.lease import HEARTBEAT_SECONDS, holder, this_machine
from pipeline.corpus.records import new_id, record_name
from pipeline.engine.credentials import masked
from pipeline.engine.ending import Terminated
from pipeline.engine.moment import now
from pipeline.engine.recovery import line_for_people
from pipeline.engine.runner import Runner
from pipeline.engine.storage import Storage, StorageError
from pipeline.spec.loading import Spec
from schemas.build_record import FAILED, FINISHED, RUNNING, STOPPED, BuildRecord


class Recording:
    """The record of a build under way; every change is one put."""

    def __init__(self, storage: Storage, record: BuildRecord) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self.record = record

    def _put(self, **changes: object) -> None:
        with self._lock:
            self.record = replace(self.record, updated=now(), **changes)  # type: ignore[arg-type]  # names of its fields
            self._storage.write(record_name(self.record.id), self.record.to_json().encode())

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Says within the block, every now and then, that the build is at work."""
        ended = threading.Event()

        def speak() -> None:
            while not ended.wait(HEARTBEAT_SECONDS):
                with contextlib.suppress(Exception):  # a lease that runs out is no reason for a build to fail
                    self._put()

        speaker = threading.Thread(target=speak, name="lease")
        speaker.start()
        try:
            yield
        finally:
            ended.set()
            speaker.join()

    def begun(self, runner: Runner) -> None:
        """A phase begins: those before it are finished, and what it works with is not to be collected."""
        self._put(**_reached(self.record, runner))

    def made(self, runner: Runner, version: str) -> None:
        """The version of its shards exists."""
        self._put(**_reached(self.record, runner), version=version)

    def ended(self, state: str, cause: str = "") -> None:
        self._put(state=state, cause=cause)


def _reached(record: BuildRecord, runner: Runner) -> dict[str, object]:
    phases = {name: runner.places.get(name, "") for name in record.phases}
    return {"phases": phases, "stores": tuple(sorted(runner.stores))}


@contextlib.contextmanager
def recorded(
    storage: Storage, spec: Spec, label: str, overrides: Sequence[str], phases: Sequence[str]
) -> Iterator[Recording]:
    """A record for the build within the block, which says how that ended.

    The block says `ended(STOPPED, …)` itself where it stops as it was asked to. StorageError where another build is at
    work in the same output.
    """
    if (other := holder(storage)) is not None:
        raise StorageError(
            f"output: build {other.id} of {other.label} is at work in {storage} (process {other.process} on "
            f"{other.host.split('/')[0]}, last heard of at {other.updated}): let it end, or end it"
        )
    recording = Recording(
        storage,
        BuildRecord(
            id=new_id(),
            # The spec itself carries no secret, or it would not have been taken; a value that was set over may have.
            label=masked(label),
            overrides=tuple(masked(each) for each in overrides),
            spec=spec.model_dump(mode="json"),
            phases=dict.fromkeys(phases, ""),
            stores=(),
            state=RUNNING,
            cause="",
            started=now(),
            updated="",
            host=this_machine(),
            process=os.getpid(),
        ),
    )
    recording.ended(RUNNING)
    try:
        with recording.heard():
            yield recording
    except BaseException as error:
        # What ended the build may keep its record from being written too, and is what people are to be told.
        with contextlib.suppress(Exception):
            recording.ended(*_ending(error))
        raise
    if recording.record.state == RUNNING:
        recording.ended(FINISHED)


def _ending(error: BaseException) -> tuple[str, str]:
    """State and cause."""
    if isinstance(error, Terminated):
        return STOPPED, "terminated"
    if isinstance(error, KeyboardInterrupt):
        return STOPPED, "interrupted"
    said = line_for_people(error) if isinstance(error, Exception) else None
    return FAILED, " ".join(masked(said or f"{type(error).__name__}: {error}").split())
