"""Files of documents as others publish them: OBELICS' Parquet, MMC4's zipped lines, out of plain nodes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = Sequence[Mapping[str, Any]]


def parquet(rows: Rows, schema: pa.Schema | None = None, **options: Any) -> bytes:
    """Rows as one Parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), sink, **options)
    return sink.getvalue()


def lines(rows: Rows) -> bytes:
    """Rows as JSON Lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip archive, as MMC4 publishes its shards."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return sink.getvalue()


def obelics(url: str, nodes: Rows, picture: Callable[[str], bytes] | None = None) -> dict[str, Any]:
    """A document in OBELICS' layout; `picture` gives the bytes behind a URL where images are bytes."""
    images: list[Any] = []
    texts: list[str | None] = []
    about: list[dict[str, Any] | None] = []
    for node in nodes:
        if node["kind"] == "image":
            source = node["image_url"]
            images.append({"bytes": picture(source), "path": None} if picture else source)
            texts.append(None)
            about.append({"document_url": url, "unformatted_src": source, "src": source, "alt_text": node["alt"]})
        elif texts and texts[-1] is not None:
            texts[-1] += "\n\n" + node["text"]
        else:
            images.append(None)
            texts.append(node["text"])
            about.append(None)
    general = {"url": url, "warc_filename": "crawl.warc.gz", "warc_record_offset": 1, "warc_record_length": 2}
    return {
        "images": images,
        "metadata": json.dumps(about),
        "general_metadata": json.dumps(general),
        "texts": texts,
    }


def mmc4(url: str, sentences: Sequence[str], images: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """A document in MMC4's layout; images as (URL, index of the matched sentence)."""
    return {
        "url": url,
        "text_list": list(sentences),
        "image_info": [
            {
                "image_name": f"{number}.jpg",
                "raw_url": image,
                "matched_text_index": index,
                "matched_sim": 0.25,
                "face_detections": None,
            }
            for number, (image, index) in enumerate(images)
        ],
        "similarity_matrix": [[0.25] * len(sentences) for _ in images],
        "could_have_url_duplicate": 0,
    }
