"""Where a build runs: a local Ray that it starts and stops, or the cluster that it was submitted to."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import ray

from pipeline.engine.ending import own_sigterm
from pipeline.engine.mistake import UserMistake
from pipeline.engine.storage import Storage, StorageError, is_local

# Ray gives a node 30 seconds to start, which no setting changes and a busy machine exceeds.
START_TRIES = 3
# Ray ends a worker that was idle for one second, as all are while actors embed; the next phase would wait for new ones.
IDLE_SECONDS = 60
# A thread that reads ahead waits for nothing that takes longer.
READER_SECONDS = 10.0


def submitted() -> bool:
    """True inside a Ray job, or where RAY_ADDRESS names a cluster."""
    return bool(os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"))


@contextlib.contextmanager
def connected(
    workers: int | None, object_store_bytes: int | None, *, dashboard: bool = False
) -> Iterator[dict[str, float]]:
    """A Ray to run on, as its resources: the one that this process has started already, the cluster that it was
    submitted to, or a local one that ends with the block.

    `workers` bounds the CPUs of a local Ray, and `dashboard` starts its dashboard too; any other keeps its own.
    """
    if ray.is_initialized():
        try:
            yield _resources()
        finally:
            _end_readers()
        return
    try:
        with own_sigterm():
            if submitted():
                ray.init(log_to_driver=False, logging_level=logging.ERROR)
            else:
                _start_local(workers, object_store_bytes, dashboard)
        yield _resources()
    finally:
        _end_readers()
        ray.shutdown()


def _resources() -> dict[str, float]:
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray annotates half of its API
    return found


def _end_readers() -> None:
    """End the threads by which Ray Data reads ahead, of datasets whose reading was broken off.

    Ray ends one only where its dataset is read to the end, and may miss even that; one that stays is ended with the
    interpreter, by force, wherever it stands.
    """
    for thread in threading.enumerate():
        reader = getattr(getattr(thread, "_target", None), "__self__", None)
        if thread.name != "Prefetcher" or reader is None:
            continue
        reader.stop()
        until = time.monotonic() + READER_SECONDS
        while thread.is_alive() and time.monotonic() < until:
            # Once more, as long as it lives: one that was about to wait has not heard of it.
            with reader._condition:
                reader._condition.notify_all()
            thread.join(0.02)


def dashboard() -> str:
    """Where the dashboard of the Ray at hand is, and the token that it asks for where this process drew one by lot."""
    found: str | None = ray._private.worker.get_dashboard_url()  # type: ignore[no-untyped-call]  # as above
    if not found:
        return "this Ray was started without one"
    token = os.environ.get("RAY_AUTH_TOKEN")
    return f"http://{found}/#/jobs" + (f" (the token it asks for: {token})" if token else "")


def _start_local(workers: int | None, object_store_bytes: int | None, dashboard: bool) -> None:
    for attempt in range(START_TRIES):
        try:
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=dashboard,
                logging_level=logging.ERROR,
                log_to_driver=bool(os.environ.get("INTERLOOM_WORKER_LOGS")),
                object_store_memory=object_store_bytes,
                _system_config={"idle_worker_killing_time_threshold_ms": IDLE_SECONDS * 1000},
            )
            return
        except ValueError as error:  # it checks what it is told to take, and this machine does not have that
            said = " ".join(str(error).partition("You can adjust")[0].split())
            raise UserMistake(f"resources: Ray does not start with these workers and megabytes: {said}") from None
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
            if attempt == START_TRIES - 1:
                said = f"Ray did not start in {START_TRIES} tries, as this machine is too busy: run it again"
                raise UserMistake(said) from None


def check_output(url: str) -> Storage:
    """The corpus root, seen to be writable by this process; needs no Ray.

    Raises UserMistake for a relative path on a cluster, and for what cannot be written or is no other process's.
    """
    if submitted() and is_local(url) and not os.path.isabs(url.removeprefix("file://")):
        raise UserMistake(
            f"output: {url!r} is relative, and a job's working directory is a copy on each node: "
            "give an absolute path on storage that every node mounts, or an s3:// or gs:// URL"
        )
    if url.startswith("memory:"):
        raise UserMistake(
            f"output: {url!r} is seen by one process alone, and a build has several: give a folder or s3://"
        )
    try:
        storage = Storage(url)
        storage.probe()
    except StorageError as error:
        raise UserMistake(f"output: {error}") from None
    return storage


def check_shared(storage: Storage) -> None:
    """A worker on every node writes an object, which the driver must find; UserMistake when it does not."""

    def write(root: Storage, name: str) -> str:
        root.write(name, b"seen")
        return name

    remote = ray.remote(num_cpus=0)(write)
    names: list[tuple[str, Any]] = []
    for node in ray.nodes():  # type: ignore[no-untyped-call]  # as above
        if node["Alive"]:
            where = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            name = f".shared-{uuid.uuid4().hex[:12]}"
            names.append((node["NodeManagerHostname"], remote.options(scheduling_strategy=where).remote(storage, name)))
    for host, pending in names:
        try:
            name = ray.get(pending, timeout=120)
            found = storage.exists(name)
            storage.delete(name)
        except Exception as error:
            raise UserMistake(f"output: node {host} cannot write to {storage}: {str(error).splitlines()[0]}") from None
        if not found:
            raise UserMistake(
                f"output: what node {host} wrote to {storage} is not there for the driver: "
                "use storage that every node mounts, or an s3:// or gs:// URL"
            )
