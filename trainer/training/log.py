"""What a run shows: one JSON object a step, TensorBoard, and a live line; nothing at all on other ranks."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from trainer.training.disk import room_for
from trainer.training.events import EventFile

# Without a terminal a line is written no more often than this, in seconds.
QUIET = 10.0


def plain(value: Any) -> Any:
    """A value for JSON: what is not a finite number becomes null, since JSON has no word for it."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun, e.g. "1 document", "1,200 documents"; `plural` where it is not the noun and an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


class RunLog:
    """metrics.jsonl and TensorBoard files in the run folder; progress on standard error."""

    def __init__(self, folder: Path, total: int, first: bool, tensorboard: bool) -> None:
        self.folder, self.total, self.first, self.tensorboard = folder, total, first, tensorboard
        self.console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._events: EventFile | None = None
        self._last = 0.0
        if first and sys.stderr.isatty():
            columns = (
                TextColumn("train"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[terms]}"),
                TimeRemainingColumn(),
            )  # fmt: skip
            self._bar = Progress(*columns, console=self.console)
            self._task = self._bar.add_task("train", total=total, terms="")
            self._bar.start()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        if self._events:
            self._events.close()

    def say(self, message: str) -> None:
        """One line for people."""
        if self.first:
            self.console.print(message, markup=False)

    def open(self, done: int) -> None:
        """Start writing after `done` steps: what earlier starts wrote of later ones is forgotten, here and in
        TensorBoard, for it will be written again."""
        if not self.first:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "metrics.jsonl"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] < done]
            temporary = path.with_suffix(".tmp")
            with room_for(path):
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
                temporary.replace(path)
        if self.tensorboard:
            # The evaluation after `done` steps stays; the one before the first step is made again.
            self._events = EventFile(self.folder / "tensorboard", done + 1 if done else 0)

    def evaluation(self, step: int, values: dict[str, Any]) -> None:
        """Held-out figures after `step` steps, for TensorBoard, under held_out/."""
        self._plot({f"held_out/{name}": value for name, value in values.items()}, step)

    def _plot(self, values: dict[str, Any], step: int) -> None:
        """Numbers as scalars; counts of equal bins of [0, 1] by group ({group: [counts]}) as histograms."""
        if self._events is None:
            return
        for name, value in values.items():
            if isinstance(value, int | float):
                self._events.scalar(name, value, step)
            elif isinstance(value, dict):
                for group, counts in value.items():
                    self._events.histogram(f"{name}/{group}", counts, step)

    def step(self, step: int, values: dict[str, Any], write: bool) -> None:
        """One finished step (0 is the first); `write` puts it into the files, TensorBoard's by the steps then done."""
        if not self.first:
            return
        if write:
            path = self.folder / "metrics.jsonl"
            with room_for(path), path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(plain({"step": step, **values})) + "\n")
            self._plot(values, step + 1)
        terms = (
            f"loss {values['loss']:.4f} = L_g {values['generative']:.4f} + L_d {values['structure']:.4f}  "
            f"{values['tokens_per_second']:.0f} tokens/s  {values['images_per_second']:.1f} images/s"
        )
        if self._bar:
            self._bar.update(self._task, completed=step + 1, terms=terms)
        elif time.monotonic() - self._last > QUIET or step + 1 == self.total:
            self._last = time.monotonic()
            self.say(f"step {step + 1}/{self.total}  {terms}")
