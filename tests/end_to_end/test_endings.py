"""A build that is told to end: its line, its number, and nothing of Ray's."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from pipeline.corpus.records import newest_build
from pipeline.engine.storage import Storage
from schemas.build_record import STOPPED
from tests.end_to_end.processes import started

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_build_ends_in_one_line_when_it_is_told_to(
    spec: Path, tmp_path: Path, number: int, code: int, word: str
) -> None:
    log = tmp_path / "log.txt"
    with started(log, "pipeline.build", "--spec", str(spec), "--out", str(tmp_path / "out")) as driver:
        while "building into" not in log.read_text() and driver.poll() is None:
            time.sleep(0.1)
        assert driver.poll() is None, log.read_text()
        driver.send_signal(number)
        assert driver.wait(timeout=120) == code, log.read_text()
    said = log.read_text().splitlines()
    assert said[-1] == f"error: {word}; run the same command again to go on"
    assert not [line for line in said if line.startswith(("***", "@", "[")) or "Traceback" in line], said
    record = newest_build(Storage(str(tmp_path / "out")))
    assert record is not None and (record.state, record.cause) == (STOPPED, word)
