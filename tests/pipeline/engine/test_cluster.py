"""Where a build runs, and whether its output is the same for all who write it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine import cluster
from pipeline.engine.cluster import check_output, check_shared, submitted
from pipeline.engine.mistake import UserMistake
from pipeline.engine.storage import Storage, StorageFull


@pytest.fixture
def in_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert submitted()


def test_alone_a_relative_output_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not submitted()
    assert check_output("out/here").exists("") and not list((tmp_path / "out" / "here").iterdir())


@pytest.mark.parametrize("url", ["out/here", "./out", "file://out"])
def test_in_a_job_a_relative_output_is_refused(in_a_job: None, url: str) -> None:
    with pytest.raises(UserMistake, match=r"output: .* is relative.*give an absolute path"):
        check_output(url)


def test_an_output_that_cannot_be_written_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserMistake, match="output: cannot write to"):
        check_output(f"{tmp_path}/file/out")
    with pytest.raises(UserMistake, match="output: cannot open nosuch://x"):
        check_output("nosuch://x")


def test_what_one_process_alone_sees_is_no_output() -> None:
    with pytest.raises(UserMistake, match="seen by one process alone"):
        check_output("memory://x")


def test_a_full_disk_is_no_mistake_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageFull, match="no space left for"):
        check_output(str(tmp_path))


def test_every_node_writes_and_the_driver_sees_it(local_ray: dict[str, float], in_a_job: None, tmp_path: Path) -> None:
    check_shared(Storage(str(tmp_path / "out")))
    assert not list((tmp_path / "out").iterdir()), "probes are removed"


def test_output_that_workers_keep_to_themselves_is_refused(
    local_ray: dict[str, float], in_a_job: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when each node has a disk of its own under the same path."""
    monkeypatch.setattr(Storage, "exists", lambda self, name: False)
    with pytest.raises(UserMistake, match="is not there for the driver: use storage that every node mounts"):
        check_shared(Storage(str(tmp_path / "out")))


def test_output_that_workers_cannot_write_is_refused(
    local_ray: dict[str, float], in_a_job: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(str(tmp_path / "out"))
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserMistake, match=r"output: node .* cannot write to"):
        check_shared(storage)


def test_a_node_that_is_slow_to_start_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Any] = []

    def init(**options: Any) -> None:
        tries.append(options)
        if len(tries) < 3:
            raise Exception("The current node timed out during startup. This could happen because …")

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    with cluster.connected(2, 200_000_000) as found:
        assert found == {"CPU": 2.0}
    assert len(tries) == 3 and tries[0]["num_cpus"] == 2 and tries[0]["object_store_memory"] == 200_000_000


def test_a_machine_too_busy_to_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: Any) -> None:
        raise Exception("The current node timed out during startup. This could happen because …")

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", init)
    said = "^Ray did not start in 3 tries, as this machine is too busy: run it again$"
    with pytest.raises(UserMistake, match=said), cluster.connected(None, None):
        pass


def test_other_failures_to_start_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: Any) -> None:
        raise RuntimeError("no such binary")

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", init)
    with pytest.raises(RuntimeError, match="no such binary"), cluster.connected(None, None):
        pass


def test_more_than_the_machine_has_is_one_line_about_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: Any) -> None:
        raise ValueError("After the object store\n less memory is left than 5%. You can adjust these settings with")

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", init)
    words = "resources: .* these workers and megabytes: After the object store less memory is left than 5%.$"
    with pytest.raises(UserMistake, match=words), cluster.connected(4096, 16_000_000_000_000):
        pass


def test_threads_that_read_ahead_end_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a dataset that was not read to its end, and of one whose stop came between two of its looks."""
    from ray.data._internal.block_batching.util import WaitBlockPrefetcher

    monkeypatch.setattr(cluster.ray, "init", lambda **_: None)
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: {})
    with pytest.raises(KeyError), cluster.connected(None, None):
        readers = [WaitBlockPrefetcher(), WaitBlockPrefetcher()]
        readers[1]._stopped = True
        raise KeyError("a worker died")
    assert not any(reader._thread.is_alive() for reader in readers)
