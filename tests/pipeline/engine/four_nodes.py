"""Toy phases on four nodes, which are processes of this machine; for a process of its own, as each has one Ray.

One node dies while it holds rows of an exchange and rows that it has not stored. The log gets a line for each number
that is squared: on which node, in which phase (0, 1), which number.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pyarrow as pa
import ray
from ray.cluster_utils import Cluster

from pipeline.engine.plans import configure_ray_data
from pipeline.engine.progress import Progress
from pipeline.engine.resources import Resources
from pipeline.engine.runner import Runner
from pipeline.engine.storage import Storage
from tests.pipeline.toy import Square, SquareSettings, last_digits, numbers, squares, total

COUNT = 480
SECONDS_A_ROW = 0.02
STORE_BYTES = 80_000_000
# Rows of the second function that a node has computed when it is killed.
ROWS_BEFORE = 20


class SlowSquare(Square):
    """Square that takes a while, and says where it runs."""

    batch_size = 5

    def __call__(self, rows: pa.Table) -> pa.Table:
        time.sleep(SECONDS_A_ROW * rows.num_rows)
        made = super().__call__(rows.select(["n"]))
        node, numbers = ray.get_runtime_context().get_node_id(), rows.column("n").to_pylist()
        with open(self.settings.node_log, "a") as file:
            file.write("".join(f"{node} {self.settings.plus} {number}\n" for number in numbers))
        if node == self.settings.victim:
            while _is_due(Path(self.settings.node_log), node, self.settings.plus):
                time.sleep(1)  # until it is killed
        return made


class LoggedSettings(SquareSettings):
    """Of the slow function; `plus` tells the two phases' apart."""

    node_log: str
    """File that gets a line for every number computed."""
    victim: str = ""
    """Node that is to die: it stops with `ROWS_BEFORE` rows logged, the last of them not stored. Default: none is."""


def _is_due(log: Path, node: str, plus: int) -> bool:
    """Whether a node has computed the rows of a phase that it is to have when it is killed."""
    return log.exists() and log.read_text().count(f"{node} {plus} ") >= ROWS_BEFORE


def _kill(cluster: Cluster, node: object, log: Path) -> None:
    """Take a node away, workers and all, in the middle of the second phase's rows."""
    while not _is_due(log, node.node_id, 1):  # type: ignore[attr-defined]
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)
    print("killed", flush=True)


def main(out: str, log: str) -> None:
    """Tables in `out`, lines in `log`."""
    node = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    others = [cluster.add_node(**node) for _ in range(3)]
    try:
        ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
        configure_ray_data()
        threading.Thread(target=_kill, args=(cluster, others[-1], Path(log)), daemon=True).start()
        with Progress(lambda phase: [0, 0, 0], live=False) as progress:
            runner = Runner(Storage(out), Resources(4.0, 0.0), progress, None)
            runner.run(numbers(COUNT))
            runner.run(squares(LoggedSettings(node_log=log), kind=SlowSquare))
            runner.run(last_digits(LoggedSettings(node_log=log, plus=1, victim=others[-1].node_id), kind=SlowSquare))
            runner.run(total())
    finally:
        ray.shutdown()
        cluster.shutdown()
