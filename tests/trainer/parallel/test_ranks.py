"""Several ranks: torchrun and Ray Train give the run that one process gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from tests.trainer.training.test_checkpoint import ROOT, command, weights
from trainer.training.outcome import Outcome

STEPS = 8


def losses(out: Path) -> list[tuple[float, int]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(line["loss"], line["tokens"]) for line in lines]


def check_like_one_process(out: Path, finished: Outcome) -> None:
    ours, theirs = losses(out), losses(finished.out)
    assert [tokens for _, tokens in ours] == [tokens for _, tokens in theirs]  # the same documents in every step
    assert ours[0][0] == pytest.approx(theirs[0][0], rel=1e-6)
    assert [loss for loss, _ in ours] == pytest.approx([loss for loss, _ in theirs], rel=1e-5)
    a, b = weights(out, STEPS), weights(finished.out, STEPS)
    assert set(a) == set(b) and all(torch.allclose(a[name], b[name], atol=1e-4) for name in a)
    assert (out / "model" / "config.json").is_file()


@pytest.mark.torchrun
def test_torchrun_with_two_ranks_equals_one_process(corpus: Path, tmp_path: Path, finished: Outcome) -> None:
    out = tmp_path / "ranks"
    arguments = command(corpus, out)[3:]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*launcher, "-m", "trainer.run", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check_like_one_process(out, finished)
    assert done.stdout.count("last loss") == 1


@pytest.mark.ray
def test_ray_train_with_two_ranks_equals_one_process(corpus: Path, tmp_path: Path, finished: Outcome) -> None:
    out = tmp_path / "ray"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "GLOO_SOCKET_IFNAME": "lo"}
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        environment.pop(name, None)
    home = tmp_path / "home"
    home.mkdir()
    # Ray's sockets need a short path, and another Ray of this machine must not be joined by accident.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        done = subprocess.run(
            command(corpus, out, "--launcher", "ray", "--workers", "2"),
            cwd=ROOT,
            env={**environment, "RAY_TMPDIR": scratch, "HOME": str(home)},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    check_like_one_process(out, finished)
    assert "last loss" in done.stdout
    # The token file would turn authentication on for every later `ray start` of this user.
    assert not (home / ".ray" / "auth_token").exists()
