"""What phases ask the world for: crews look around before units are listed, errands fetch before parts are made."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine.phase import Messenger, Part, Phase, Scout
from pipeline.engine.runner import PhaseFailed
from tests.pipeline.conftest import Run
from tests.pipeline.toy import numbers, tree


def note(log: Path, word: str) -> int:
    """Add a line to a log of many processes; how many of that word stand there now."""
    with log.open("a") as file:
        file.write(word + "\n")
    return log.read_text().split("\n").count(word)


class Looker:
    """A crew's member that counts what it was asked; dies at its first question, once."""

    def __init__(self, log: Path, members: int, dies: bool) -> None:
        self.log, self.members, self.dies, self.asked = log, members, dies, 0
        note(log, "opened")

    def __call__(self, question: list[int]) -> dict[str, Any]:
        if self.dies and note(self.log, "asked") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        self.asked += 1
        return {"found": [each * 10 for each in question], "asked": self.asked, "members": self.members}


def looking(log: Path, dies: bool = False) -> Phase:
    """`numbers`, of which a crew finds the units."""

    def units(scout: Scout) -> Sequence[Any]:
        member: Callable[[Part, int], Looker] = lambda part, members: Looker(log, members, dies)  # noqa: E731
        with scout.crew(member, 64) as crew:
            count = len(crew.ranges)
            first = crew.ask({index: [index] for index in range(count)})
            second = crew.ask({0: [5]})
            assert sorted(each["found"][0] for each in first) == [10 * index for index in range(count)]
            assert all(each["members"] == count == 2 for each in first)
        return [sorted(each["found"][0] for each in first), [second[0]["found"][0] + second[0]["asked"]]]

    return replace(numbers(0), units=units)


@pytest.mark.parametrize("dies", [False, True])
def test_a_crew_remembers_and_one_that_dies_is_opened_again(run_phases: Run, tmp_path: Path, dies: bool) -> None:
    runner = run_phases(tmp_path / "out", looking(tmp_path / "log", dies))
    found = sorted(row["n"] for part in runner.table("numbers").read_all() for row in part.to_pylist())
    assert found == [0, 10, 52]
    assert runner.records["numbers"].run["tries"] == 1 + dies
    # Of the crew that ended with a member another may not have been opened yet.
    assert (tmp_path / "log").read_text().split().count("opened") in ((3, 4) if dies else (2,))


def test_a_crew_that_raises_ends_the_phase(run_phases: Run, tmp_path: Path) -> None:
    def units(scout: Scout) -> Sequence[Any]:
        with scout.crew(lambda part, members: lambda question: 1 // question, 1) as crew:
            return crew.ask({0: 0})

    with pytest.raises(Exception, match="ZeroDivisionError"):
        run_phases(tmp_path, replace(numbers(0), units=units))


@dataclass(frozen=True)
class Bring:
    """An errand that writes each of a range's numbers into a folder, unless it is there."""

    folder: Path
    dies_at: int | None = None
    name: str = "bring"
    concurrency: int = 64

    def open(self, concurrency: int) -> Messenger:
        """An actor's share."""
        return _Bringer(self, concurrency)


class _Bringer:
    def __init__(self, errand: Bring, concurrency: int) -> None:
        self.errand, self.concurrency = errand, concurrency

    def __call__(self, part: Part) -> int:
        assert part.rows is not None
        brought = 0
        for number in part.rows.column("n").to_pylist():
            path = self.errand.folder / str(number)
            if number == self.errand.dies_at and not (path.parent / "died").exists():
                (path.parent / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if not path.exists():
                # At once: other ranges are on their way in other threads of an actor that dies.
                whole = path.with_suffix(f".{threading.get_ident()}")
                whole.write_text(json.dumps({"concurrency": self.concurrency}))
                whole.rename(path)
                brought += 1
        return brought


def brought(folder: Path, dies_at: int | None = None) -> Phase:
    """`numbers`, which are made of what an errand brought."""
    folder.mkdir()
    plain = numbers(40)

    def run(part: Part, rows: Any) -> Any:
        assert all((folder / str(number)).exists() for number in rows.column("n").to_pylist())
        return plain.run(part, rows)

    return replace(plain, run=run, errand=Bring(folder, dies_at))


@pytest.mark.parametrize("dies_at", [None, 17])
def test_an_errand_brings_all_before_parts_are_made(run_phases: Run, tmp_path: Path, dies_at: int | None) -> None:
    run_phases(tmp_path / "plain", numbers(40))
    runner = run_phases(tmp_path / "out", brought(tmp_path / "there", dies_at))
    assert runner.records["numbers"].run["tries"] == (1 if dies_at is None else 2)
    facts = [json.loads((tmp_path / "there" / str(number)).read_text()) for number in range(40)]
    assert {each["concurrency"] for each in facts} == {32}, "what may be in flight is shared out"
    assert tree(tmp_path / "out") == tree(tmp_path / "plain")


def test_an_errand_that_always_dies_gives_up_with_one_line(run_phases: Run, tmp_path: Path) -> None:
    class Doomed(Bring):
        """Ends its actor."""

        def open(self, concurrency: int) -> Messenger:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    phase = replace(brought(tmp_path / "there"), errand=Doomed(tmp_path / "there"))
    with pytest.raises(PhaseFailed, match="numbers: workers died 4 times without progress"):
        run_phases(tmp_path / "out", phase)
