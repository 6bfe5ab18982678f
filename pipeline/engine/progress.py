"""Progress: one live line a running phase on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

PLAIN_EVERY_SECONDS = 10.0


class Tally:
    """Ray actor: what the workers of a running phase have done so far. Only for the eyes; never part of a result."""

    def __init__(self) -> None:
        self._numbers: dict[str, list[int]] = {}

    def add(self, phase: str, looked_up: int, computed: int, dropped: int) -> None:
        numbers = self._numbers.setdefault(phase, [0, 0, 0])
        for index, number in enumerate((looked_up, computed, dropped)):
            numbers[index] += number

    def get(self, phase: str) -> list[int]:
        return self._numbers.get(phase, [0, 0, 0])


class Progress:
    """Shows the phases of a build; `numbers(phase)` asks for (looked up, computed, dropped) so far.

    `rows_are(phase, count)` names what a table's rows are, `drops_are(phase)` what a phase can drop ("" for nothing).
    """

    def __init__(
        self,
        numbers: Callable[[str], list[int]],
        stream: Any = None,
        live: bool | None = None,
        *,
        rows_are: Callable[[str, int], str] = lambda phase, count: "row" if count == 1 else "rows",
        drops_are: Callable[[str], str] = lambda phase: "",
    ) -> None:
        self.console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True)
        self.live = self.console.is_terminal if live is None else live
        self._numbers = numbers
        self._rows_are, self._drops_are = rows_are, drops_are
        self._display: Live | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None

    def say(self, line: str) -> None:
        """A line that stays."""
        self.console.print(Text(line))

    def begin(self, phase: str) -> None:
        self._phase, self._began, self._said = phase, time.monotonic(), time.monotonic()
        if self.live:
            self._display = Live(Text(f"  {phase:<18}"), console=self.console, transient=True, refresh_per_second=5)
            self._display.start()

    def tick(self, done: int, parts: int) -> None:
        """Called by the runner while a phase runs."""
        now = time.monotonic()
        if not self.live and now - self._said < PLAIN_EVERY_SECONDS:
            return
        looked_up, computed, dropped = self._numbers(self._phase)
        seconds = now - self._began
        line = (
            f"  {self._phase:<18} {done}/{parts} parts  {looked_up + computed:,} rows"
            f"  {computed / max(seconds, 1e-9):,.0f} new/s  {dropped:,} dropped  {seconds:.0f} s"
        )
        if self._display is not None:
            self._display.update(Text(line))
        else:
            self._said = now
            self.say(line)

    def end(self, phase: str, rows: int, dropped: int, seconds: float, remark: str = "") -> None:
        self._close()
        kinds = f" ({self._drops_are(phase)})" if dropped and self._drops_are(phase) else ""
        said = [f"{dropped:,} dropped{kinds}"] if dropped else []
        tail = "".join(f"  {each}" for each in (*said, remark) if each)
        self.say(f"  {phase:<18} {self._rows(phase, rows)}  {seconds:7.1f} s{tail}")

    def cached(self, phase: str, rows: int) -> None:
        self.say(f"  {phase:<18} {self._rows(phase, rows)}  unchanged")

    def _rows(self, phase: str, rows: int) -> str:
        """A table's rows and what they are, in columns."""
        return f"{rows:>9,} {self._rows_are(phase, rows):<19}"
