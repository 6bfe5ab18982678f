"""Rows a second of processor time that digests of tables take: narrow rows, and documents with their nodes.

python -m benchmarks.digests                      # 2,000,000 rows, 50,000 documents
"""

from __future__ import annotations

import random
import time
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer

from schemas.contract import contract
from schemas.digests import bucket_digests, table_digest
from schemas.document import DOCUMENT
from schemas.keys import digest

_NARROW = contract(
    "narrow",
    1,
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("a", pa.int64()),
        pa.field("b", pa.int64()),
        pa.field("word", pa.string()),
        pa.field("score", pa.float64()),
    ],
    key="key",
)


def _narrow(count: int) -> pa.Table:
    chance = np.random.default_rng(0)
    bits = np.sort(chance.integers(0, 1 << 63, count))
    words = pa.array([f"word{number}" * (1 + number % 4) for number in range(5000)])
    columns = [
        pa.array([f"{each:016x}" for each in bits.tolist()]),
        chance.integers(0, 99, count),
        pa.array(chance.integers(0, 9, count), mask=chance.random(count) < 0.1),
        words.take(pa.array(chance.integers(0, 5000, count))),
        chance.normal(size=count),
    ]
    return pa.table(columns, schema=_NARROW)


def _documents(count: int) -> pa.Table:
    chance = random.Random(0)
    texts = [f"Paragraph {number}: " + "what a page says of a picture, " * (number % 17) for number in range(5000)]
    rows = []
    for number in range(count):
        nodes = [
            {"kind": "text", "tag": "p", "text": chance.choice(texts), "separator": "\n\n"}
            for _ in range(chance.randrange(40))
        ]
        url = f"https://site-{number % 97}.test/{number}"
        rows.append({"document_id": digest(url), "page_id": digest(url), "url": url, "nodes": nodes, "dropped": []})
    rows.sort(key=lambda row: str(row["document_id"]))
    return pa.Table.from_pylist(rows, schema=DOCUMENT)


def main(
    rows: Annotated[int, typer.Option(help="Narrow rows.")] = 2_000_000,
    documents: Annotated[int, typer.Option(help="Documents, of up to 40 paragraphs.")] = 50_000,
) -> None:
    """Digest both tables, three times each, and say the best."""
    for name, table in (("rows", _narrow(rows)), ("documents", _documents(documents))):
        seconds = []
        for _ in range(3):
            began = time.process_time()
            said = table_digest(table.schema, [bucket_digests(table)])
            seconds.append(time.process_time() - began)
        rate, size = table.num_rows / min(seconds), table.nbytes / min(seconds) / 1e6
        print(f"{table.num_rows:,} {name}: {rate:,.0f} a second of processor time, {size:,.0f} MB/s of Arrow; {said}")


if __name__ == "__main__":
    typer.run(main)
