"""Ranks of two nodes: what one of them cannot see ends both, with one line each, and nobody waits."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.trainer.training.test_checkpoint import ROOT
from trainer.run import app
from trainer.training.outcome import Outcome


def two_nodes(arguments: list[list[str]], folders: list[Path]) -> list[tuple[int, str]]:
    """(exit code, standard error) of two ranks, each the first of its node, started in folders of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    shared |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "trainer.run", *words],
            cwd=folder,
            env={**shared, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, (words, folder) in enumerate(zip(arguments, folders, strict=True))
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    return [(process.returncode, said) for process, said in zip(processes, errors, strict=True)]


def settings(corpus: Path, out: str) -> list[str]:
    fixed = ("parallel.threads=1", "log.tensorboard=false")
    return ["--config", "tiny", "--corpus", str(corpus), "--out", out, *(w for each in fixed for w in ("--set", each))]


@pytest.mark.slow
def test_a_run_folder_of_each_node_s_own_ends_both(corpus: Path, tmp_path: Path, finished: Outcome) -> None:
    """The first node has the run's checkpoints, the second an empty folder of the same name."""
    nodes = [tmp_path / "a", tmp_path / "b"]
    shutil.copytree(finished.out / "checkpoints", nodes[0] / "run" / "checkpoints")
    (nodes[1] / "run").mkdir(parents=True)
    for code, said in two_nodes([settings(corpus, "run")] * 2, nodes):
        assert code == 2, said
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert re.fullmatch(
            rf"error: rank 1 on \S+ does not see the run folder {nodes[1] / 'run'} that rank 0 on \S+ writes: .*", line
        )
        assert "Traceback" not in said
    assert not (nodes[1] / "run" / "checkpoints").exists() and not (nodes[0] / "run" / ".lock").exists()


@pytest.mark.slow
def test_a_checkpoint_that_one_node_cannot_read_ends_both(corpus: Path, tmp_path: Path, finished: Outcome) -> None:
    nodes = [tmp_path / "a", tmp_path / "b"]
    shutil.copytree(finished.out / "checkpoints" / "step-00000004", nodes[0] / "old")
    nodes[1].mkdir()
    words = [*settings(corpus, str(tmp_path / "run")), "--resume", "old"]
    for code, said in two_nodes([words] * 2, nodes):
        assert code == 2, said
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert re.match(r"error: rank 1 on \S+ cannot read the checkpoint that rank 0 goes on from: old: ", line)
        assert "Traceback" not in said


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_ranks_that_do_not_divide_a_step_end_before_they_meet(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    monkeypatch.setattr("trainer.parallel.ray_launch.start", None)  # nobody joins
    for name, value in (("WORLD_SIZE", "3"), ("RANK", str(rank)), ("LOCAL_RANK", str(rank))):
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, settings(corpus, str(tmp_path / "run")))
    assert result.exit_code == 2
    said = "error: data.packs_per_step 2 is not a multiple of 3 ranks; start as many ranks as divide it, or pass "
    assert result.output == ("" if rank else f"{said}--set data.packs_per_step=3\n")  # once, not once a rank
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("world", ["two", "0", "-1", ""])
def test_a_launcher_that_says_nonsense_is_one_line(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    result = CliRunner().invoke(app, settings(corpus, str(tmp_path / "run")))
    assert result.exit_code == 2 and len(result.output.splitlines()) == 1
    assert f"WORLD_SIZE={world!r} is no number of ranks" in result.output
