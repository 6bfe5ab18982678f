"""One history a run folder: who goes on from an older checkpoint starts a branch, and the one left is kept aside.

    OUT/checkpoints/branch-0001/{step-00000100/, metrics.jsonl, evaluation.json}

So the newest checkpoint of OUT/checkpoints is always the one to go on from, and what a branch wrote is found where it
was moved: --resume OUT/checkpoints/branch-0001/step-00000100 takes it up again.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from trainer.training.checkpoint import Checkpoint, list_checkpoints, read_check, step_of
from trainer.training.disk import room_for

_RECORDS = ("metrics.jsonl", "evaluation.json")


def take_up(out: Path, found: Checkpoint) -> list[str]:
    """Make `found` the newest checkpoint of the run in `out`; one line for what was moved aside, if anything was.

    Checkpoints after it, and all of them when it lies outside (those before it are another run's too), are moved into
    a folder of their own with copies of metrics.jsonl and evaluation.json, which then forget what came after it. Killed
    half way it can be done again. Raises NoSpace.
    """
    folder = out / "checkpoints"
    target = folder / f"step-{found.place.step:08d}"
    inside = read_check(target) == found.check
    left = [path for path in list_checkpoints(folder) if not inside or step_of(path) > found.place.step]
    with room_for(target):
        copied = folder / f".{target.name}.{os.getpid()}"
        if not inside:
            shutil.copytree(found.path, copied)
        aside = _move_aside(out, folder, left) if left else None
        if not inside:
            for name in _RECORDS:
                # Of the branch that is taken up again; what another run wrote stays with it.
                (out / name).unlink(missing_ok=True)
                if (found.path.parent / name).is_file():
                    shutil.copyfile(found.path.parent / name, out / name)
            copied.rename(target)
        if left or not inside:
            _forget_after(out / "evaluation.json", found.place.step)
    if aside is None:
        return []
    names = ", ".join(path.name for path in reversed(left))
    return [f"going on from {found.path}: {names} of the run that is left here are kept in {aside}"]


def _move_aside(out: Path, folder: Path, left: list[Path]) -> Path:
    """Move checkpoints (newest first) into the next free folder, the oldest first: until the last one is gone, the run
    that is left is as it was."""
    taken = [int(path.name[7:]) for path in folder.glob("branch-*") if path.name[7:].isdecimal()]
    aside = folder / f"branch-{max(taken, default=0) + 1:04d}"
    aside.mkdir()
    for name in _RECORDS:
        if (out / name).is_file():
            shutil.copyfile(out / name, aside / name)
    for path in reversed(left):
        path.rename(aside / path.name)
    return aside


def _forget_after(path: Path, step: int) -> None:
    """Drop what an evaluation.json says of more than `step` steps, and of the run's end."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    kept = {
        moment: values
        for moment, values in found.items()
        if moment != "after" and isinstance(values.get("step"), int) and values["step"] <= step
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    temporary.replace(path)
