"""Leases: of two builds in one output the second is told of the first, and none waits for one that is dead."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.builds import lease, recording, run
from pipeline.builds.lease import at_work, holder, this_machine
from pipeline.builds.recording import recorded
from pipeline.corpus.records import newest_build, record_name
from pipeline.engine.moment import FORMAT
from pipeline.engine.storage import Storage, StorageError
from schemas.build_record import FAILED, FINISHED, RUNNING, STOPPED, BuildRecord
from tests.pipeline.builds.test_dry_run import spec_of

PHASES = ("pages", "documents")


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime(FORMAT)


def write(storage: Storage, build: str, **changes: Any) -> BuildRecord:
    """The record of another build."""
    said: dict[str, Any] = {
        "id": build,
        "label": "small.yaml",
        "overrides": (),
        "spec": {},
        "phases": {"pages": "work/pages/p1"},
        "stores": (),
        "state": RUNNING,
        "cause": "",
        "started": ago(1),
        "updated": ago(1),
        "host": "elsewhere.test/boot",
        "process": 7,
    }
    record = BuildRecord(**said | changes)
    storage.write(record_name(build), record.to_json().encode())
    return record


@pytest.fixture
def other_process() -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody else on this machine."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def held(storage: Storage) -> list[str]:
    return [record.id for record in at_work(storage)]


def test_a_second_build_is_told_of_the_first_in_one_line(
    storage: Storage, tmp_path: Path, other_process: subprocess.Popen[bytes]
) -> None:
    first = write(storage, "20260101-a", host=this_machine(), process=other_process.pid, updated=ago(86_400))
    for _ in range(2):
        block = recorded(storage, spec_of(tmp_path), "other.yaml", [], PHASES)
        with pytest.raises(StorageError) as mistake, block:
            raise AssertionError("the block of a second build runs")
        said = str(mistake.value)
        assert said == (
            f"output: build 20260101-a of small.yaml is at work in {storage} (process {other_process.pid} on "
            f"{first.host.split('/')[0]}, last heard of at {first.updated}): let it end, or end it"
        )
    assert storage.names("builds") == ["20260101-a.json"], "a build that did not begin leaves no record"
    # However long it was not heard of: its process is there. Once that is gone, nobody waits.
    other_process.kill()
    other_process.wait()
    assert held(storage) == []
    with recorded(storage, spec_of(tmp_path), "other.yaml", [], PHASES) as ours:
        assert ours.record.host == this_machine() and ours.record.process == os.getpid()
        assert held(storage) == [], "a build does not wait for itself"
    assert len(storage.names("builds")) == 2


def test_a_process_that_ended_and_was_not_waited_for_is_not_there(
    storage: Storage, other_process: subprocess.Popen[bytes]
) -> None:
    write(storage, "20260101-a", host=this_machine(), process=other_process.pid)
    assert held(storage) == ["20260101-a"]
    other_process.kill()
    until = time.monotonic() + 30
    while held(storage) and time.monotonic() < until:
        time.sleep(0.01)
    assert Path(f"/proc/{other_process.pid}").exists() and held(storage) == []


def test_a_later_process_of_the_same_number_is_another(
    storage: Storage, other_process: subprocess.Popen[bytes]
) -> None:
    for begun, there in ((9999, False), (lease._CLOCK_SECONDS + 60, False), (0, True), (-5, True)):
        write(storage, "20260101-a", host=this_machine(), process=other_process.pid, started=ago(begun))
        assert bool(held(storage)) is there, begun


@pytest.mark.slow
def test_a_build_of_another_process_that_is_under_way_holds_the_output(storage: Storage, tmp_path: Path) -> None:
    """By the code that builds themselves run, not by a record that was made up."""
    root = Path(__file__).parents[3]
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from pipeline.builds.recording import recorded\n"
        "from pipeline.engine.storage import Storage\n"
        "from tests.pipeline.builds.test_dry_run import spec_of\n"
        "out = Path(sys.argv[1])\n"
        "with recorded(Storage(str(out)), spec_of(out), 'first.yaml', [], ['pages']):\n"
        "    print('begun', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(root)}
    first = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=root,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdin is not None and first.stdout is not None
    try:
        assert first.stdout.readline() == "begun\n"
        block = recorded(storage, spec_of(tmp_path), "second.yaml", [], PHASES)
        with pytest.raises(StorageError, match=rf"of first\.yaml is at work .*\(process {first.pid} on "), block:
            raise AssertionError("the block of a second build runs")
        first.stdin.close()
        assert first.wait(60) == 0
    finally:
        first.kill()
        first.wait()
        first.stdout.close()
    with recorded(storage, spec_of(tmp_path), "second.yaml", [], PHASES):
        pass
    newest = newest_build(storage)
    assert newest is not None and (newest.label, newest.state) == ("second.yaml", FINISHED)


@pytest.mark.parametrize(
    ("changes", "there"),
    [
        ({}, True),
        ({"updated": -lease.LEASE_SECONDS + 60}, True),
        ({"updated": -lease.LEASE_SECONDS - 5}, False),
        ({"updated": "2026-01-01T00:00:00Z"}, False),
        ({"updated": ""}, False),
        ({"updated": "yesterday"}, False),
        ({"state": STOPPED}, False),
        ({"state": FAILED}, False),
        ({"state": FINISHED}, False),
        # A process of that number on this machine, and of this machine before it was started again.
        ({"host": "HERE", "process": 1 << 30}, False),
        ({"host": "HERE", "process": 1}, True),
        ({"host": "BEFORE", "process": 1, "updated": -9999.0}, False),
    ],
)
def test_of_another_machine_it_counts_when_it_was_last_heard_of(
    storage: Storage, tmp_path: Path, changes: dict[str, Any], there: bool
) -> None:
    hosts = {"HERE": this_machine(), "BEFORE": f"{this_machine().split('/')[0]}/another-start"}
    if changes.get("host") in hosts:
        changes = {**changes, "host": hosts[changes["host"]]}
    if isinstance(changes.get("updated"), float):  # so many seconds ago
        changes = {**changes, "updated": ago(-changes["updated"])}
    write(storage, "20260101-a", **changes)
    storage.write("builds/20260102-b.json", b"{}")  # damaged: it is nobody's
    assert held(storage) == (["20260101-a"] if there else [])
    if not there:
        with recorded(storage, spec_of(tmp_path), "s", [], PHASES) as ours:
            assert ours.record.state == RUNNING


@pytest.mark.slow
@pytest.mark.parametrize("speaks", [True, False])
def test_a_build_of_another_machine_is_given_the_time_to_be_heard_of(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, speaks: bool
) -> None:
    """As after a driver died with its machine, and a scheduler starts it again on another."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 4.0)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.05)
    looks = 0
    slept = time.sleep

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if speaks and looks == 3:
            write(storage, "20260101-a", updated=ago(0))
        slept(seconds)

    write(storage, "20260101-a", updated=ago(1))
    monkeypatch.setattr(lease.time, "sleep", sleep)
    found = holder(storage)
    assert (found is not None) is speaks
    if found is not None:
        assert found.id == "20260101-a"
    (said,) = caplog.messages
    assert said.startswith("build 20260101-a on elsewhere.test was last heard of at ")


def test_a_build_is_heard_of_while_it_is_at_work_and_no_longer(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    put = Storage.write

    def counted(self: Storage, name: str, data: bytes) -> None:
        written.append(BuildRecord.from_json(data).updated)
        put(self, name, data)

    monkeypatch.setattr(Storage, "write", counted)
    monkeypatch.setattr(recording, "HEARTBEAT_SECONDS", 0.02)
    with recorded(storage, spec_of(tmp_path), "s", [], PHASES):
        until = time.monotonic() + 30
        while len(written) < 4 and time.monotonic() < until:
            time.sleep(0.01)
    ended = len(written)
    assert ended >= 5 and all(written), "its start, three times that it is there, its end"
    time.sleep(0.1)
    assert len(written) == ended
    record = newest_build(storage)
    assert record is not None and record.state == FINISHED
    assert lease.HEARTBEAT_SECONDS * 3 < lease.LEASE_SECONDS, "one or two that are missed end no lease"


def test_a_heartbeat_that_fails_does_not_end_the_build(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "HEARTBEAT_SECONDS", 0.01)
    put, tried = Storage.write, []

    def failing(self: Storage, name: str, data: bytes) -> None:
        tried.append(name)
        if len(tried) in (2, 3):
            raise OSError("the store does not answer")
        put(self, name, data)

    monkeypatch.setattr(Storage, "write", failing)
    with recorded(storage, spec_of(tmp_path), "s", [], PHASES):
        until = time.monotonic() + 30
        while len(tried) < 4 and time.monotonic() < until:
            time.sleep(0.01)
    record = newest_build(storage)
    assert len(tried) >= 5 and record is not None and record.state == FINISHED


def test_what_has_nothing_to_do_waits_for_nobody(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(storage, "20260101-a")
    monkeypatch.setattr(run, "finished_until", lambda spec, until: True)
    said = list(run.build(run.Order(spec_of(tmp_path), "s", until="pages")))
    assert said == ["nothing to do: every phase up to pages is finished"]
