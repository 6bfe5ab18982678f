"""A corpus folder of four documents, written through the tables' own code: what report and explain read."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.corpus.records import new_id, record_name
from pipeline.corpus.version import Corpus
from pipeline.engine.key_range import WHOLE
from pipeline.engine.layout import LATEST, version_folder
from pipeline.engine.storage import Storage
from pipeline.engine.table import Table, described
from pipeline.engine.work_folder import WorkFolder
from pipeline.phases.shards import SHARD_ROW
from pipeline.spec.loading import parse
from schemas.build_record import BuildRecord
from schemas.contract import identity, table_from_rows
from schemas.decision import DECISION
from schemas.document import DOCUMENT
from schemas.manifest import ListedFile, PhaseRecord, VersionManifest
from schemas.page import PAGE
from schemas.shard import SHARD, shard_name
from schemas.tables import CHOICE, CLUSTER, IMAGE_USE, KEPT, MINED, PAIRED, PASSED, SCORED, SELECTED
from stages.shards.rows import ShardDocument, ShardSettings, shard_bytes, shard_table
from stages.shards.slices import Slice, slices
from stages.text.scores import ScoreText, ScoreTextSettings
from stages.web.urls import url_id

VERSION = "0123456789ab"
SITE = "http://site.test"
HOSTILE = '<script>alert(1)</script> <img src=x onerror=alert(2)> "quoted" & \x1b[31mred'
SPEC = """
name: small
output: {url: out}
source: {kind: site, seeds: ["http://site.test/"]}
pair: {min_similarity: 0.15}
"""
CONSENT = {
    "robots_allowed": True,
    "robots_source": f"{SITE}/robots.txt 200",
    "x_robots_tag": None,
    "agent": "interloom",
}
PROVENANCE = {"kind": "site", "snapshot": "default", "file": None, "offset": None, "length": None}


def picture(number: int) -> bytes:
    """A JPEG of 240 x 160 pixels, each number another."""
    y, x = np.mgrid[0:160, 0:240]
    pixels = np.stack([(x * (number + 1)) % 256, (y * 2) % 256, (x + y) * (3 - number % 3) % 256], axis=-1)
    sink = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(sink, "JPEG", quality=80)
    return sink.getvalue()


def page(path: str, status: str = "ok", **more: Any) -> dict[str, Any]:
    url = f"{SITE}{path}"
    row = {
        "page_id": url_id(url),
        "url": url,
        "final_url": url,
        "status": status,
        "depth": 1,
        "consent": CONSENT,
        "provenance": PROVENANCE,
        "retryable": False,
    }
    return {**row, **({"http_status": 200, "content_type": "text/html"} if status == "ok" else {}), **more}


def text(words: str) -> dict[str, Any]:
    return {"kind": "text", "tag": "p", "text": words, "separator": "\n\n"}


def image(number: int, caption: str | None = None) -> dict[str, Any]:
    url = f"{SITE}/img/{number}.jpg"
    return {
        "kind": "image",
        "tag": "img",
        "image_url": url,
        "image_id": url_id(url),
        "alt": HOSTILE,
        "caption": caption,
    }


PAGES = [
    page("/cats"),
    page("/dogs"),
    page("/dogs-copy"),
    page("/old", final_url=f"{SITE}/moved"),
    page("/private", "refused", reason="robots", detail="Disallow: /private"),
    page("/down", "error", reason="http_status", detail="HTTP 503", http_status=503, retryable=True),
]
NODES = {
    "/cats": [text("A tabby cat sleeps. It dreams of mice."), image(0, HOSTILE), text("Buy now!"), image(3)],
    "/dogs": [text("A dog runs over the meadow. " + HOSTILE), image(1), image(2)],
    "/dogs-copy": [text("A dog runs over the meadow. It barks."), image(1)],
    "/old": [text("Nothing but words.")],
}
SENTENCES = {
    "/cats": [[(0, 19), (20, 38)], None, None],
    "/dogs": [[(0, 27), (28, 28 + len(HOSTILE))], None, None],
}


def document_id(path: str) -> str:
    return url_id(f"{SITE}{path}")


def decision(kind: str, rule: str, subject: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "action": "drop", "subject_id": subject, "rule": rule, **more}


def decisions() -> dict[str, list[dict[str, Any]]]:
    cats, dogs, copy, old = (document_id(path) for path in NODES)
    return {
        "documents": [
            decision(
                "page",
                "robots",
                url_id(f"{SITE}/private"),
                action="refuse",
                url=f"{SITE}/private",
                detail="Disallow: /private",
            ),
            decision("page", "http_status", url_id(f"{SITE}/down"), url=f"{SITE}/down", value=503.0, detail="HTTP 503"),
            decision("image", "no_source", cats, document_id=cats, url=HOSTILE, detail=HOSTILE),
        ],
        "text": [
            decision(
                "paragraph",
                "num_words",
                cats,
                document_id=cats,
                position=2,
                value=2.0,
                low=4.0,
                high=1000.0,
                detail="Buy now!",
            ),
            decision("document", "num_images", old, document_id=old, url=f"{SITE}/old", value=0.0, low=1.0, high=30.0),
        ],
        "choose": [
            decision(
                "document",
                "near_duplicate",
                copy,
                document_id=copy,
                value=0.93,
                high=0.7,
                detail=f"kept {dogs}",
            ),
        ],
        "passed": [
            decision(
                "image",
                "aspect_ratio",
                url_id(f"{SITE}/img/3.jpg"),
                document_id=cats,
                url=f"{SITE}/img/3.jpg",
                position=3,
                value=4.2,
                low=0.5,
                high=2.0,
                detail="jpeg",
            ),
        ],
    }


def shard_documents() -> list[ShardDocument]:
    found = []
    for path, other in (("/cats", "/dogs"), ("/dogs", "/cats")):
        nodes = [
            {**node, "position": index}
            for index, node in enumerate(NODES[path])
            if index not in (2, 3) or path == "/dogs"
        ]
        spans = [[{"start": a, "end": b} for a, b in each] if each else None for each in SENTENCES[path]][: len(nodes)]
        sha256 = {node["image_id"]: node["image_id"] for node in nodes if node["kind"] == "image"}
        sequence: list[Slice] = slices(nodes, spans, sha256)
        images = sum(item.kind == "image" for item in sequence)
        found.append(
            ShardDocument(
                document_id=document_id(path),
                url=f"{SITE}{path}",
                title=HOSTILE if path == "/cats" else "Dogs",
                language="en",
                license=None,
                split="train",
                cluster_id=document_id(path),
                nodes=nodes,
                slices=sequence,
                matched=[2, None, 0, *([1] if images > 1 else [])] if images == 1 else [2, 3, 0, 1],
                match_kind=["similarity", None, "similarity"] if images == 1 else ["similarity"] * 4,
                similarity=[0.31, None, 0.31] if images == 1 else [0.28, 0.17, 0.28, 0.17],
                matrix=[[0.31, 0.11]] if images == 1 else [[0.28, 0.05], [0.12, 0.17]],
                negatives=[
                    {
                        "slice": 0,
                        "kind": "mined",
                        "direction": "sentence_to_image",
                        "document_id": document_id(other),
                        "candidate": 2,
                        "score": 0.25,
                        "guard": 0.4,
                    },
                    {
                        "slice": 2,
                        "kind": "mined",
                        "direction": "image_to_sentence",
                        "document_id": document_id(other),
                        "candidate": 1,
                        "score": 0.22,
                        "guard": None,
                    },
                ],
                provenance=PROVENANCE,
                consent=CONSENT,
            )
        )
    return found


def image_rows(storage: Storage) -> list[dict[str, Any]]:
    rows = []
    for number in range(4):
        data = picture(number)
        name = f"rows/decode/pack-{number}.bin"
        storage.write(name, data)
        url = f"{SITE}/img/{number}.jpg"
        rows.append(
            {
                "content_key": url_id(url),
                "image_id": url_id(url),
                "url": url,
                "status": "ok",
                "retryable": False,
                "original_format": "jpeg",
                "original_width": 480,
                "original_height": 320,
                "sha256": url_id(url),
                "format": "jpeg",
                "width": 240,
                "height": 160,
                "phash": "0" * 16,
                "body": {"pack": name, "offset": 0, "length": len(data)},
                "consent": CONSENT,
                "documents": [],
                "num_documents": 1 + (number == 1),
            }
        )
    return rows


def text_scores() -> list[dict[str, Any]]:
    nodes = pa.array(NODES.values(), DOCUMENT.field("nodes").type)
    scores = ScoreText(ScoreTextSettings())(pa.table({"nodes": nodes})).to_pylist()
    return [
        {name: value for name, value in row.items() if name != "error"}
        | {"document_id": document_id(path), "url": f"{SITE}{path}"}
        for path, row in zip(NODES, scores, strict=True)
    ]


def write(folder: str) -> Corpus:
    """Write the corpus and open it."""
    storage = Storage(folder)
    documents = shard_documents()
    images = image_rows(storage)
    facts = {row["image_id"]: {**row, "bytes": storage.read(row["body"]["pack"])} for row in images}
    rng = np.random.default_rng(0)
    vectors = {
        item.content_id: (rng.random(6).astype(np.float16) / 6, rng.random(4).astype(np.float16) / 4)
        for document in documents
        for item in document.slices
    }
    table = shard_table(documents, facts, vectors)
    data = shard_bytes(table, ShardSettings())
    shard = described(f"shards/{shard_name('train', 0, 1)}", data, len(table))
    stored = described(f"{version_folder(VERSION)}/{shard.name}", data, len(table))
    storage.write(stored.name, data)

    rows: dict[str, tuple[pa.Schema, list[dict[str, Any]]]] = {
        "pages": (PAGE, PAGES),
        "documents": (
            DOCUMENT,
            [
                {
                    "document_id": document_id(p),
                    "page_id": document_id(p),
                    "url": f"{SITE}{p}",
                    "title": f"Title of {p}",
                    "nodes": nodes,
                    "dropped": [],
                    "canonical_url": f"{SITE}/canonical-cats" if p == "/cats" else None,
                }
                for p, nodes in NODES.items()
            ],
        ),
        "scores": (SCORED, text_scores()),
        "text": (
            SELECTED,
            [
                {"document_id": document_id(p), "positions": [0, 1], "num_images": 1, "text": "x", "url_key": "0" * 32}
                for p in NODES
                if p != "/old"
            ],
        ),
        "clusters": (
            CLUSTER,
            [
                {
                    "document_id": document_id(p),
                    "cluster_id": document_id("/dogs"),
                    "copies_id": document_id("/dogs"),
                    "text_id": document_id(p),
                    "url_id": document_id(p),
                    "similarity": 0.93,
                }
                for p in ("/dogs", "/dogs-copy")
            ],
        ),
        "images": (IMAGE_USE, images),
        "passed": (
            PASSED,
            [
                {
                    "document_id": document_id(p),
                    "url": f"{SITE}{p}",
                    "positions": [0, 1],
                    "num_images": 1,
                    "num_words": 7,
                    "images": [],
                }
                for p in NODES
                if p != "/old"
            ],
        ),
        "choose": (
            CHOICE,
            [
                {
                    "document_id": document_id(p),
                    "cluster_id": document_id("/dogs"),
                    "kept": p == "/dogs",
                    "cut": [],
                    "position": 0.5,
                }
                for p in ("/dogs", "/dogs-copy")
            ],
        ),
        "kept": (
            KEPT,
            [
                {
                    "document_id": d.document_id,
                    "url": d.url,
                    "cluster_id": d.cluster_id,
                    "split": d.split,
                    "nodes": list(d.nodes),
                    "images": [],
                    "positions": [node["position"] for node in d.nodes],
                }
                for d in documents
            ],
        ),
        "pairs": (
            PAIRED,
            [
                {
                    "document_id": d.document_id,
                    "slice": i,
                    "kind": s.kind,
                    "content_id": s.content_id,
                    "node": s.node,
                    "start": s.start,
                    "end": s.end,
                    "cluster_id": d.cluster_id,
                    "split": d.split,
                    "matched": d.matched[i],
                    "match_kind": d.match_kind[i],
                    "similarity": d.similarity[i],
                    "position": d.nodes[s.node]["position"],
                }
                for d in documents
                for i, s in enumerate(d.slices)
            ],
        ),
        "negatives": (MINED, [{"document_id": d.document_id, "negatives": list(d.negatives)} for d in documents]),
        "shards": (
            SHARD_ROW,
            [
                {
                    "document_id": d.document_id,
                    "url": d.url,
                    "file": shard.name,
                    "row": index,
                    "split": d.split,
                    "num_images": 1 + index,
                    "num_sentences": 2,
                    "num_matched_images": 1 + index,
                    "num_negatives": 2,
                    "bytes": 1,
                }
                for index, d in enumerate(documents)
            ],
        ),
    }
    counts = {
        "documents": {"pages_fetched": 4, "pages": 6},
        "negatives": {"guard.image_to_sentence.cluster": 4, "guard.image_to_sentence.split": 9},
        "pairs": {
            **{"matched_images": 3, "matched.markup": 2, "matched.similarity": 1, "captioned_images": 2},
            **{"own_captions": 2, "distance.1": 2, "distance.3 to 4": 1},
        },
        "shards": {"documents": 2, "images": 3, "sentences": 4, "matched_images": 3, "negatives": 4, "held_out": 0},
    }
    phases = {}
    for index, (name, (schema, found)) in enumerate(rows.items()):
        key = f"{VERSION if name == 'shards' else ''}{index:0{20 if name == 'shards' else 32}x}"
        files = [stored] if name == "shards" else []
        decided = decisions().get(name, [])
        phases[name] = put(storage, name, key, schema, found, decided, counts.get(name, {}), files)
    manifest = VersionManifest(
        name="small",
        version=VERSION,
        shards=(shard,),
        schema=identity(SHARD)[0],
        schema_version=identity(SHARD)[1],
        phases=phases,
        spec=parse("small", SPEC).model_dump(mode="json"),
        counts={f"{phase}.{key}": n for phase, each in counts.items() for key, n in each.items()}
        | {"pages.retryable": 1},
        run={"built": "2026-01-02T03:04:05Z", "seconds": 75.0, "cpus": 2, "gpus": 0},
    )
    storage.write(f"{version_folder(VERSION)}/manifest.json", manifest.to_json().encode())
    storage.write(LATEST, VERSION.encode())
    return Corpus(folder)


def put(
    storage: Storage,
    phase: str,
    key: str,
    schema: pa.Schema,
    rows: list[dict[str, Any]],
    decided: list[dict[str, Any]],
    counts: dict[str, int],
    files: Sequence[ListedFile] = (),
) -> str:
    """One finished phase, whose table is one part; its record, named from the corpus root."""
    folder = WorkFolder(storage, phase, key)
    said = table_from_rows([{**row, "phase": phase} for row in decided], DECISION)
    folder.put(WHOLE, 0, table_from_rows(rows, schema), schema, said, list(files), counts)
    receipts = folder.receipts(0)
    table, digest = folder.finish(receipts, schema)
    record = PhaseRecord(
        phase=phase,
        key=key,
        generation=0,
        table=table,
        digest=digest,
        rows=len(rows),
        decisions=tuple(file for receipt in receipts for file in receipt.decisions),
        files=tuple(files),
        ingredients={"libraries": {"pyarrow": pa.__version__}},
        counts=counts,
        run={"seconds": 1.5, "rows_computed": len(rows), "rows_remembered": 0},
    )
    name = Table(storage, record).record_name
    storage.write(name, record.to_json().encode())
    return name


def record_build(corpus: Corpus, until: str, state: str, cause: str = "", **more: Any) -> BuildRecord:
    """The record of a build newer than the corpus's version, whose phases it shares up to one."""
    names = corpus.phases
    begun = names[: names.index(until) + 1]
    record = BuildRecord(
        id=new_id(),
        label="small spec.yaml",
        overrides=("mine.top_k=3", 'output.url="elsewhere"'),
        spec=corpus.manifest.spec,
        phases={name: corpus.manifest.phases[name] if name in begun else "" for name in names},
        stores=(),
        state=state,
        cause=cause,
        started="2026-01-03T00:00:00Z",
        updated="2026-01-03T00:01:00Z",
        host="elsewhere.test/boot",
        process=1,
    )
    record = replace(record, **more)
    corpus.storage.write(record_name(record.id), record.to_json().encode())
    return record
