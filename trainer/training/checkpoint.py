"""Checkpoints: a run can be killed at any moment and go on from the last one, bit for bit.

    OUT/checkpoints/step-00000050/{weights.safetensors, optimizer.pt, meta.json}

A checkpoint appears by one rename when all of it is on disk; meta.json carries a hash of every file, so a damaged
one is noticed and the one before it is used. Random numbers are functions of (seed, step), so there is no
generator state to save. What else decides the numbers (precision, ranks, threads) is recorded and compared.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from schemas.keys import file_digest
from trainer.errors import UserError
from trainer.training.disk import room_for

FORMAT = 1


@dataclass(frozen=True)
class Place:
    """Where a run is: steps done, and the epoch and place in its plan that come next."""

    step: int
    epoch: int
    index: int


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and whose hashes agree."""

    path: Path
    check: str  # digest of all of it, the same for no other checkpoint
    place: Place
    corpus: str
    recipe: dict[str, Any]
    numerics: dict[str, Any]  # trainer.parallel.ranks.numerics; empty where it was not recorded
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]


def kept_names(model: nn.Module, asset_prefixes: tuple[str, ...]) -> list[str]:
    """Names of the tensors a checkpoint holds: all, but frozen ones that come from an asset again."""
    trained = {name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter.requires_grad}
    return [name for name in model.state_dict() if name in trained or not name.startswith(asset_prefixes or ("\0",))]


def save(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    place: Place,
    corpus: str,
    recipe: dict[str, Any],
    numerics: dict[str, Any],
    asset_prefixes: tuple[str, ...],
    keep: int,
) -> Path:
    """Write a checkpoint under `folder` and remove all older ones but the `keep` - 1 newest; returns its path.

    Raises NoSpace, with nothing of it left behind.
    """
    path = folder / f"step-{place.step:08d}"
    temporary = folder / f".{path.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    state = model.state_dict()
    # Tied weights are one tensor under two names; safetensors wants each name to own its bytes.
    weights = {name: state[name].detach().cpu().clone() for name in kept_names(model, asset_prefixes)}
    meta = {"format": FORMAT, "progress": vars(place), "corpus": corpus, "recipe": recipe, "numerics": numerics}
    try:
        with room_for(path):
            _write(temporary, weights, optimizer.state_dict(), meta)
            shutil.rmtree(path, ignore_errors=True)
            temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    older = [each for each in list_checkpoints(folder) if step_of(each) < place.step]
    for old in older[keep - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def _write(folder: Path, weights: dict[str, torch.Tensor], optimizer: dict[str, Any], meta: dict[str, Any]) -> None:
    """The files of a checkpoint, on disk when it returns."""
    folder.mkdir(parents=True)
    save_file(weights, folder / "weights.safetensors")
    # Through a file of Python's: torch's own says nothing of a disk that is full.
    with (folder / "optimizer.pt").open("wb") as file:
        torch.save(optimizer, file)
    files = {name: file_digest(folder / name) for name in ("optimizer.pt", "weights.safetensors")}
    meta = {**meta, "files": files}
    text = json.dumps({**meta, "check": _check(meta)}, indent=1, sort_keys=True)
    (folder / "meta.json").write_text(text, encoding="utf-8")
    # safetensors writes for the owner alone; who may read the run may read its weights.
    (folder / "weights.safetensors").chmod((folder / "meta.json").stat().st_mode & 0o777)
    for name in sorted(folder.iterdir()):
        with name.open("rb") as handle:
            os.fsync(handle.fileno())


def remove_unfinished(folder: Path) -> None:
    """Remove what trainers killed while they saved left under a run's folder of checkpoints."""
    for temporary in folder.glob(".step-*"):
        shutil.rmtree(temporary, ignore_errors=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints under a folder, newest first, unread."""
    return sorted((path for path in folder.glob("step-*") if path.name[5:].isdecimal()), reverse=True)


def step_of(path: Path) -> int:
    """Steps done in a checkpoint, by its name."""
    return int(path.name.removeprefix("step-"))


def read_check(path: Path) -> str | None:
    """The digest that a checkpoint says it has, unchecked; None when there is no readable one."""
    try:
        found = json.loads((path / "meta.json").read_text(encoding="utf-8"))["check"]
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return str(found)


def read(path: Path) -> Checkpoint:
    """A checkpoint, every byte checked; ValueError in one line when it is damaged or incomplete."""
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        check = meta.pop("check")
        if check != _check(meta):
            raise ValueError("meta.json is damaged")
        if meta["format"] != FORMAT:
            raise ValueError(f"format {meta['format']}, expected {FORMAT}")
        for name, wanted in meta["files"].items():
            if file_digest(path / name) != wanted:
                raise ValueError(f"{name} is damaged")
        weights = load_file(path / "weights.safetensors")
        optimizer = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
        place = Place(**meta["progress"])
    except (OSError, KeyError, TypeError, AttributeError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path}: {error}") from None
    numerics = meta.get("numerics", {})
    return Checkpoint(path, check, place, meta["corpus"], meta["recipe"], numerics, weights, optimizer)


def find(folder: Path, resume: str, warn: Callable[[str], None]) -> Checkpoint | None:
    """The checkpoint to go on from: "none", a path, or "auto", the newest under `folder` that can be read.

    A damaged one is warned about and the one before it is used. Raises UserError when the path cannot be read, or
    none of the checkpoints that are there.
    """
    if resume == "none":
        return None
    if resume != "auto":
        try:
            return read(Path(resume))
        except ValueError as error:
            raise UserError(f"--resume: {error}") from None
    problems: list[str] = []
    for path in list_checkpoints(folder):
        try:
            found = read(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warn(f"checkpoint unusable, using {found.path.name} before it: {problem}")
        return found
    if problems:
        raise UserError(
            f"none of the {len(problems)} checkpoints can be read, the newest: {problems[0]}; "
            "--resume none starts over and removes them"
        )
    return None


def restore(checkpoint: Checkpoint, model: nn.Module, asset_prefixes: tuple[str, ...]) -> None:
    """Put a checkpoint's weights into a model built from its recipe; UserError when they do not fit."""
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    if missing := sorted(set(kept_names(model, asset_prefixes)) - set(checkpoint.weights)):
        raise UserError(f"{checkpoint.path} lacks {missing[0]}, which the recipe's model has")
    for name, value in checkpoint.weights.items():
        if shapes.get(name) != value.shape:
            raise UserError(f"{checkpoint.path}: {name} has shape {tuple(value.shape)}, the recipe's model another")
    model.load_state_dict(checkpoint.weights, strict=False)


def restore_optimizer(checkpoint: Checkpoint, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's moments into an optimizer over the same weights; UserError when they do not fit.

    Rates and decay stay the recipe's: who goes on with others means them.
    """
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(checkpoint.optimizer)
    except ValueError as error:
        raise UserError(f"{checkpoint.path}: its optimizer is not the recipe's: {error}") from None
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def check_same_run(checkpoint: Checkpoint, corpus: str, recipe: dict[str, Any]) -> None:
    """UserError when the checkpoint is of another corpus, or of a recipe whose steps would not be these."""
    if checkpoint.corpus != corpus:
        raise UserError(
            f"{checkpoint.path} was trained on another corpus (shards {checkpoint.corpus[:12]}, here {corpus[:12]}); "
            "pass --allow-changes to go on with this one, or --resume none to start over"
        )
    for section in ("seed", "data", "model", "objective", "optimizer"):
        before, now = checkpoint.recipe.get(section), recipe.get(section)
        if before != now:
            name = section
            if isinstance(before, dict) and isinstance(now, dict):
                name += "." + next(key for key in sorted(before | now) if before.get(key) != now.get(key))
            raise UserError(
                f"{checkpoint.path} was trained with another {name}; "
                "pass --allow-changes to go on with this recipe, or --resume none to start over"
            )


def compare_numerics(checkpoint: Checkpoint, numerics: dict[str, Any], allow_changes: bool) -> list[str]:
    """One line for each way in which a run computes otherwise than its checkpoint did; what was not recorded is not
    compared. UserError when that is another precision, unless `allow_changes`: the run would be another one.
    """
    before = checkpoint.numerics
    changed = [name for name in numerics if name in before and before[name] != numerics[name]]
    if "precision" in changed and not allow_changes:
        raise UserError(
            f"{checkpoint.path} was trained in {before['precision']} and this run computes in {numerics['precision']}; "
            f"pass --set parallel.precision={before['precision']} to go on as it was, or --allow-changes"
        )
    return [
        f"going on with {name} {numerics[name]} where the checkpoint was made with {before[name]}"
        + ("" if name == "precision" else ": the same run up to rounding, not bit for bit")
        for name in changed
    ]


def _check(meta: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(meta, sort_keys=True).encode())
