"""Documents a second of processor time, and memory, of reading what was extracted elsewhere, in every layout.

python -m benchmarks.documents                      # 100,000 documents a layout
python -m benchmarks.documents --documents 20000
"""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from stages.sources.documents import Piece, read_documents, read_headers
from stages.sources.sample import Sample

_ROWS = 1000  # documents made at a time, and of a row group
_TEXTS = 2000  # different ones


def _texts() -> list[list[str]]:
    """Eight paragraphs of 20 to 80 words each."""
    chance = random.Random(0)
    words = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 9))) for _ in range(5000)]
    return [
        [" ".join(chance.choices(words, k=chance.randint(20, 80))).capitalize() + "." for _ in range(8)]
        for _ in range(_TEXTS)
    ]


def _interloom(url: str, texts: list[str]) -> dict[str, Any]:
    nodes: list[dict[str, Any]] = [{"kind": "text", "tag": "p", "text": text} for text in texts]
    for number in range(3):
        nodes.insert(
            2 * number, {"kind": "image", "tag": "img", "image_url": f"{url}/{number}.jpg", "alt": "a picture"}
        )
    return {"url": url, "title": "a title", "nodes": nodes}


def _obelics(url: str, texts: list[str]) -> dict[str, Any]:
    images = [each for number in range(3) for each in (f"{url}/{number}.jpg", None)]
    about = [image and {"src": image, "alt_text": "a picture", "rendered_width": 300} for image in images]
    return {
        "images": images,
        "texts": [None, "\n\n".join(texts[:3]), None, "\n\n".join(texts[3:6]), None, "\n\n".join(texts[6:])],
        "metadata": json.dumps(about),
        "general_metadata": json.dumps({"url": url, "warc_filename": "a.warc.gz", "warc_record_offset": 1}),
    }


def _mmc4(url: str, texts: list[str]) -> dict[str, Any]:
    sentences = [half for text in texts for half in (text[: len(text) // 2], text[len(text) // 2 :])]
    images = [{"raw_url": f"{url}/{number}.jpg", "matched_text_index": 3 * number} for number in range(3)]
    return {
        "url": url,
        "text_list": sentences,
        "image_info": images,
        "similarity_matrix": [[0.2312345678] * len(sentences) for _ in images],
    }


_LAYOUTS: dict[str, Callable[[str, list[str]], dict[str, Any]]] = {
    "interloom": _interloom,
    "obelics": _obelics,
    "mmc4": _mmc4,
}


def _write(path: Path, layout: str, count: int) -> None:
    texts = _texts()
    writer = None
    with path.open("wb") as file:
        for first in range(0, count, _ROWS):
            numbers = range(first, min(first + _ROWS, count))
            rows = [_LAYOUTS[layout](f"https://host-{n % 999}.example/{n}", texts[n % _TEXTS]) for n in numbers]
            if layout == "mmc4":
                file.writelines(json.dumps(row).encode() + b"\n" for row in rows)
                continue
            table = pa.Table.from_pylist(rows)
            writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table)
        if writer is not None:
            writer.close()


def _read(path: Path, headers: bool) -> tuple[float, float]:
    """(seconds of processor time, megabytes at the peak) of reading a file on one thread."""
    pa.set_cpu_count(1)
    began = time.process_time()
    with path.open("rb") as stream:
        for _ in (read_headers if headers else read_documents)(stream, Piece(path.name), "auto", Sample()):
            pass
    return time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(documents: Annotated[int, typer.Option(min=1)] = 100_000) -> None:
    """Print a line a layout; every reading is a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for layout in _LAYOUTS:
            path = Path(folder, f"{layout}.{'jsonl' if layout == 'mmc4' else 'parquet'}")
            _write(path, layout, documents)
            said = []
            for headers in (True, False):
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    seconds, megabytes = pool.apply(_read, (path, headers))
                said.append(f"{documents / seconds:9,.0f} {'rows' if headers else 'documents'}/s, {megabytes:.0f} MB")
            print(f"{layout:<10}{path.stat().st_size / 1e6:6.0f} MB: {'; '.join(said)}")
            path.unlink()


if __name__ == "__main__":
    typer.run(main)
