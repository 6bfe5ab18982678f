"""A small corpus of real pictures and real sentences as shards, the way the build writes them."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import skimage
import xxhash
from PIL import Image

from schemas.contract import conform, identity, table_from_rows
from schemas.manifest import ListedFile, VersionManifest
from schemas.shard import SHARD, SPLITS, shard_name

# file of scikit-image's data folder, and sentences about it
SUBJECTS = {
    "astronaut.png": ("An astronaut in an orange suit smiles before a model shuttle.", "She flew four missions."),
    "camera.png": ("A man in a dark coat looks through a camera on a tripod.", "Towers stand far behind him."),
    "chelsea.png": ("A tabby cat rests its head and looks past the lens.", "Its whiskers are long and white."),
    "coffee.png": ("A cup of coffee stands on a wooden table.", "A spoon lies on the saucer."),
    "coins.png": ("Greek coins from Pompeii lie in rows on a dark cloth.", "Some are worn almost smooth."),
    "rocket.jpg": ("A rocket waits on its launch pad under floodlights.", "The tower holds it upright."),
    "moon.png": ("Craters cover the surface of the moon near the terminator.", "The shadows are long there."),
    "horse.png": ("The black silhouette of a horse stands on white.", "Shape analysis often uses it."),
    "page.png": ("A scanned page of printed text has uneven lighting.", "Thresholding it is not trivial."),
    "brick.png": ("A wall of rough bricks fills the picture.", "The mortar lines are almost level."),
    "grass.png": ("Blades of grass cover the ground.", "The texture has no clear direction."),
    "hubble_deep_field.jpg": ("Thousands of galaxies fill the deep field.", "Each smudge holds billions of stars."),
}
DIMENSIONS = {"image": 24, "sentence": 16}
SHARED = 12


def picture(file: str, crop: int) -> bytes:
    """A real photo, cropped by `crop` and shrunk, as JPEG bytes."""
    with Image.open(Path(skimage.__file__).parent / "data" / file) as image:
        whole = image.convert("RGB")
    side = min(whole.size)
    box = (crop * side // 16, crop * side // 16, side, side)
    buffer = io.BytesIO()
    whole.crop(box).resize((48, 48)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _vector(subject: int, what: str, size: int, noise: float) -> list[float]:
    center = np.random.Generator(np.random.PCG64([subject, size])).normal(size=size)
    jitter = np.random.Generator(np.random.PCG64(xxhash.xxh3_64_intdigest(what.encode()))).normal(size=size)
    vector = center / np.linalg.norm(center) + noise * jitter / np.sqrt(size)
    return [float(value) for value in (vector / np.linalg.norm(vector)).astype(np.float16)]


def document(number: int, split: str) -> dict[str, Any]:
    """One document: two or three pictures, each after a sentence about it, with a closing line."""
    files = list(SUBJECTS)
    document_id = xxhash.xxh3_128_hexdigest(f"document {number}".encode())
    nodes: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    image_info: list[dict[str, Any]] = []
    slices: list[dict[str, Any]] = []
    for place in range(2 + number % 2):
        subject = (number + 3 * place) % len(files)
        sentences = SUBJECTS[files[subject]]
        text = f"{sentences[0]} Figure {number} of {place + 1}: {sentences[1]}"
        data = picture(files[subject], 1 + number % 7)
        sha = hashlib.sha256(data).hexdigest()
        nodes.append({"kind": "text", "text": text, "separator": "\n\n", "position": len(nodes)})
        nodes.append({"kind": "image", "image": len(images), "separator": "\n", "position": len(nodes)})
        url = f"http://127.0.0.1/{number}/{files[subject]}"
        images.append({"bytes": data, "path": f"{number}-{place}.jpeg"})
        image_info.append(
            {
                "image_id": xxhash.xxh3_128_hexdigest(url.encode()),
                "url": url,
                "sha256": sha,
                "format": "jpeg",
                "width": 48,
                "height": 48,
                "phash": f"{number:016x}",
                "caption": sentences[0],
            }
        )
        first = len(slices)
        ends = (len(sentences[0]), len(text))
        for start, end in ((0, ends[0]), (ends[0] + 1, ends[1])):
            what = text[start:end]
            slices.append(
                {
                    "kind": "sentence",
                    "node": len(nodes) - 2,
                    "start": start,
                    "end": end,
                    "primary": _vector(subject, what, DIMENSIONS["sentence"], 0.7),
                    "shared": _vector(subject, what, SHARED, 0.7),
                    "matched": first + 2 if start == 0 else None,
                    "match_kind": "similarity" if start == 0 else None,
                    "similarity": 0.8 if start == 0 else None,
                }
            )
        slices.append(
            {
                "kind": "image",
                "node": len(nodes) - 1,
                "start": 0,
                "end": 0,
                "primary": _vector(subject, sha, DIMENSIONS["image"], 0.5),
                "shared": _vector(subject, sha, SHARED, 0.5),
                "matched": first,
                "match_kind": "similarity",
                "similarity": 0.8,
            }
        )
    nodes.append({"kind": "text", "text": "The end.", "separator": "", "position": len(nodes)})
    return {
        "document_id": document_id,
        "url": f"http://127.0.0.1/{number}",
        "title": f"Document {number}",
        "language": "en",
        "split": split,
        "cluster_id": document_id,
        "nodes": nodes,
        "images": images,
        "image_info": image_info,
        "slices": slices,
        "similarity_matrix": [],
        "negatives": [],
        "provenance": {"kind": "html", "file": f"{number}.html"},
        "consent": {},
    }


def with_negatives(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every document's first sentence gets two images of the next documents as mined negatives."""
    for number, row in enumerate(rows):
        row["negatives"] = [
            {
                "slice": 0,
                "kind": "mined",
                "direction": "sentence_to_image",
                "document_id": rows[(number + hop) % len(rows)]["document_id"],
                "candidate": 2,
                "score": 0.5 / hop,
                "guard": 0.1,
            }
            for hop in (1, 5)
        ]
    return rows


def version_1(row: dict[str, Any]) -> dict[str, Any]:
    """A row as version 1 of the contract had it (schemas.shard_v1)."""
    images = [
        {**info, "bytes": picture["bytes"]} for info, picture in zip(row["image_info"], row["images"], strict=True)
    ]
    negatives = [{**negative, "kind": negative["direction"]} for negative in row["negatives"]]
    return {**row, "images": images, "negatives": negatives}


def write_bare(
    folder: Path, rows: list[dict[str, Any]], name: str = "train-00000-of-00001.arrow", schema: pa.Schema = SHARD
) -> Path:
    """A folder with one shard of these rows and no manifest; returns the shard."""
    folder.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(str(folder / name), schema) as writer:
        writer.write_table(table_from_rows(rows, schema), max_chunksize=4)
    return folder / name


def write_corpus(
    root: Path,
    documents: int = 20,
    held_out: int = 6,
    version: str = "v1",
    shards: int = 2,
    broken: int = 0,
    corrupt: int = 0,
) -> Path:
    """OUT with one version of `documents` documents, the last `held_out` of them held out; returns OUT.

    Up to `shards` files a split. The first image of the first `broken` documents is cut off in the middle; of the first
    `corrupt` documents the first sentence's own vector is NaN and the second's shared one twice as long.
    """
    rows = with_negatives(
        [document(number, "held_out" if number >= documents - held_out else "train") for number in range(documents)]
    )
    for row in rows[:broken]:
        row["images"][0]["bytes"] = row["images"][0]["bytes"][:300]
        row["image_info"][0]["sha256"] = "0" * 64
    for row in rows[:corrupt]:
        row["slices"][0]["primary"] = [float("nan")] * DIMENSIONS["sentence"]
        row["slices"][1]["shared"] = [2 * value for value in row["slices"][1]["shared"]]
    folder = root / "versions" / version
    (folder / "shards").mkdir(parents=True)
    parts = []
    for split in SPLITS:
        for number in range(shards):
            mine = [row for row in rows[number::shards] if row["split"] == split]
            if not mine:
                continue
            path = folder / "shards" / shard_name(split, number, shards)
            table = conform(table_from_rows(mine, SHARD), SHARD)
            with pa.ipc.new_file(str(path), SHARD) as writer:
                # More than one batch a shard, as large corpora have.
                writer.write_table(table, max_chunksize=4)
            digest = xxhash.xxh3_128_hexdigest(path.read_bytes())
            parts.append(ListedFile(f"shards/{path.name}", table.num_rows, path.stat().st_size, digest))
    manifest = VersionManifest("fabricated", version, tuple(parts), *identity(SHARD), {}, {}, {})
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    (root / "latest").write_text(version, encoding="utf-8")
    return root
