"""Seconds and memory of what card and report count of a corpus: its decisions, its documents, its near-duplicates.

python -m benchmarks.statistics                      # 100,000 and 1,000,000 rows a table
python -m benchmarks.statistics --rows 20000 --way dask
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import resource
import tempfile
import time
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer

from pipeline.corpus.card_facts import documents
from pipeline.corpus.funnel import by_rule
from pipeline.engine import aggregates
from pipeline.engine.aggregates import Ranking, counts, decision_rows, table_rows, totals
from pipeline.engine.cluster import connected
from pipeline.engine.key_range import KeyRange, evenly
from pipeline.engine.storage import Storage
from pipeline.engine.table import Table, records_of
from pipeline.engine.work_folder import WorkFolder
from pipeline.phases.shards import SHARD_ROW
from pipeline.report.dropped import examples
from pipeline.report.scores import of_decisions
from schemas.decision import DECISION
from schemas.manifest import PhaseRecord
from schemas.tables import CLUSTER, KEPT

_FILE_ROWS = 25_000
_HOSTS = 20_000
_RULES = [("document", "num_words"), ("document", "stop_words"), ("image", "aspect_ratio"), ("paragraph", "num_words")]
_WAYS = ("this process", "dask", "dask on Ray")


def _ids(keys: KeyRange, count: int) -> list[str]:
    draw = np.random.default_rng(keys.first)
    first = np.sort(draw.integers(keys.first, keys.last + 1, count))
    return [f"{prefix:08x}{number:024x}" for number, prefix in enumerate(first.tolist())]


def _kept(keys: KeyRange, count: int) -> pa.Table:
    draw = random.Random(keys.first)
    ids = _ids(keys, count)
    nothing = [[]] * count
    known = {
        "document_id": ids,
        "url": [f"https://host-{int(draw.paretovariate(0.5)) % _HOSTS}.example/{name}" for name in ids],
        "language": draw.choices(["en", "de", "fr", None], k=count),
        "cluster_id": ids,
        "split": ["train"] * count,
        "positions": nothing,
        "nodes": nothing,
        "images": nothing,
    }
    return pa.table([pa.array(known.get(f.name, [None] * count), f.type) for f in KEPT], schema=KEPT)


def _shards(keys: KeyRange, count: int) -> pa.Table:
    ids = _ids(keys, count)
    known = {"document_id": ids, "url": ids, "file": ["shards/0.arrow"] * count, "split": ["train"] * count}
    return pa.table([pa.array(known.get(f.name, [1] * count), f.type) for f in SHARD_ROW], schema=SHARD_ROW)


def _clusters(keys: KeyRange, count: int) -> pa.Table:
    """Pairs of near-duplicates."""
    ids = _ids(keys, count)
    first = [ids[place - place % 2] for place in range(count)]
    return pa.table([ids, first, ids, ids, first, [0.9] * count], schema=CLUSTER)


def _decisions(keys: KeyRange, count: int) -> pa.Table:
    draw = random.Random(keys.first)
    ids = _ids(keys, count)
    rules = draw.choices(_RULES, k=count)
    known = {
        "phase": ["kept"] * count,
        "kind": [kind for kind, _ in rules],
        "action": ["drop"] * count,
        "subject_id": ids,
        "document_id": ids,
        "rule": [rule for _, rule in rules],
        "value": [draw.random() for _ in ids],
        "detail": [f"why {name} was dropped" for name in ids],
    }
    return pa.table([pa.array(known.get(f.name, [None] * count), f.type) for f in DECISION], schema=DECISION)


def _write(url: str, rows: int) -> None:
    storage = Storage(url)
    for phase, schema, make in (
        ("kept", KEPT, _kept),
        ("shards", SHARD_ROW, _shards),
        ("clusters", CLUSTER, _clusters),
    ):
        folder = WorkFolder(storage, phase, "0" * 32)
        pieces = evenly(-(-rows // _FILE_ROWS))
        for keys in pieces:
            size = rows // len(pieces)
            said = (_decisions(keys, size) if phase == "kept" else DECISION.empty_table()).cast(DECISION)
            folder.put(keys, 0, make(keys, size), schema, said, [], {})
        receipts = folder.receipts(0)
        table, digest = folder.finish(receipts, schema)
        decisions = tuple(file for receipt in receipts for file in receipt.decisions)
        record = PhaseRecord(phase, "0" * 32, 0, table, digest, rows, decisions, {})
        storage.write(Table(storage, record).record_name, record.to_json().encode())


def _peak() -> float:
    """Most megabytes that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _count(url: str, way: str) -> tuple[float, float, float]:
    """(seconds, megabytes before, megabytes at the peak) of all that is counted; Ray's start is left out."""
    aggregates.FEW_BYTES = 1 << 60 if way == "this process" else 0
    storage = Storage(url)
    kept, shards, clusters = (Table(storage, records_of(storage, name)[0]) for name in ("kept", "shards", "clusters"))
    with connected(2, 500_000_000) if way == "dask on Ray" else contextlib.nullcontext():
        began, before = time.monotonic(), _peak()
        decision_rows([kept], DECISION).aggregate(by_rule(), of_decisions(), examples(12))
        facts = counts("split"), counts("language"), Ranking("license", 15), Ranking("host", 15), totals("image_bytes")
        documents(kept, shards).aggregate(*facts)
        table_rows(clusters, CLUSTER, ("cluster_id",)).aggregate(Ranking("cluster_id", 12))
        return time.monotonic() - began, before, _peak()


def main(
    rows: Annotated[list[int] | None, typer.Option(min=1)] = None,
    way: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(_WAYS)}; all without one.")] = None,
) -> None:
    """Print a line for each size and way; every one is a process of its own."""
    for size in rows or [100_000, 1_000_000]:
        with tempfile.TemporaryDirectory() as folder:
            # A process starts with the peak of the one that started it, so this one does no work.
            spawned = multiprocessing.get_context("spawn")
            with spawned.Pool(1) as pool:
                pool.apply(_write, (folder, size))
            for each in way or _WAYS:
                with spawned.Pool(1) as pool:
                    seconds, before, peak = pool.apply(_count, (folder, each))
                print(f"{size:>9,} rows, {each:<13}{seconds:6.1f} s, {before:.0f} MB before, {peak:.0f} MB at the peak")


if __name__ == "__main__":
    typer.run(main)
