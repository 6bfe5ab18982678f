"""Pictures: fetched once a URL for documents whose text passed, decoded once a content, judged, joined back."""

from __future__ import annotations

import base64
import binascii
import urllib.parse
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipeline.engine.packs import write_pack
from pipeline.engine.phase import Exchange, Part, Phase, Step
from pipeline.phases.documents import failed
from pipeline.phases.fetching import FETCH_LIBRARIES, FetchErrand, Fetching
from pipeline.phases.sources import lies_in_folder, local_images
from pipeline.phases.takedowns import crawl_without, takedowns_of, without_content
from pipeline.spec.loading import Spec
from schemas.image import IMAGE
from schemas.keys import digest
from schemas.tables import FETCHED_IMAGE, IMAGE_REFERENCE, IMAGE_USE, PASSED
from stages.filter.image_rules import decide_images
from stages.images.decode import DecodeImage
from stages.web.sites import site_key

_UNKEYED = pa.schema([field for field in FETCHED_IMAGE if field.name != "site_key"])


def _references(part: Part, _: Any) -> pa.Table:
    """Image URLs of the documents whose text passed, copies among them, by site."""
    clusters = part.read("clusters")
    copies = dict(zip(*(clusters.column(name).to_pylist() for name in ("document_id", "copies_id")), strict=True))
    positions = {
        row["document_id"]: row["positions"]
        for row in part.read("text").select(["document_id", "positions"]).to_pylist()
    }
    rows: list[dict[str, Any]] = []
    for document in part.read("documents").select(["document_id", "nodes", "image_bodies"]).to_pylist():
        document_id = document["document_id"]
        bodies = {each["image_id"]: each for each in document["image_bodies"] or ()}
        for position in positions.get(document_id, ()):
            node = document["nodes"][position]
            if node["kind"] == "image":
                url = node["image_url"]
                came = bodies.get(node["image_id"])
                rows.append(
                    {
                        "site_key": node["image_id"] if came else _site_key(url, node["image_id"]),
                        "image_id": node["image_id"],
                        "url": url,
                        "document_id": document_id,
                        "copies_id": copies.get(document_id, document_id),
                        "content_hash": came and came["content_hash"],
                        "body": came and came["body"],
                    }
                )
    return pa.Table.from_pylist(rows, schema=IMAGE_REFERENCE)


def _is_data(url: str) -> bool:
    return url[:5].lower() == "data:"


def _site_key(url: str, image_id: str) -> str:
    # Images that carry themselves have no site to be polite to: spread them.
    return image_id if _is_data(url) else site_key(url) + "0" * 24


class _Users(NamedTuple):
    """Who shows an image URL."""

    url: str
    documents: list[str]  # distinct, sorted
    copies: set[str]  # these without copies of each other


def _users(rows: pa.Table) -> dict[str, _Users]:
    """Users by image_id, from rows sorted by image and document."""
    found: dict[str, _Users] = {}
    for row in rows.select(["image_id", "url", "document_id", "copies_id"]).to_pylist():
        users = found.setdefault(row["image_id"], _Users(row["url"], [], set()))
        users.copies.add(row["copies_id"])
        if not users.documents or users.documents[-1] != row["document_id"]:
            users.documents.append(row["document_id"])
    return found


def _use(users: _Users) -> dict[str, Any]:
    """Columns documents and copies of FETCHED_IMAGE."""
    return {"documents": users.documents, "copies": sorted(users.copies)}


def _decode_data_uri(uri: str) -> bytes:
    """Bytes of a data: URI (RFC 2397); ValueError when it is none."""
    head, mark, payload = uri[5:].partition(",")
    if not mark:
        raise ValueError("data: URI without a comma")
    raw = urllib.parse.unquote_to_bytes(payload)
    if not head.lower().endswith(";base64"):
        return raw
    try:
        return base64.b64decode(raw, validate=False)
    except binascii.Error as error:
        raise ValueError(f"data: URI: {error}") from None


def fetched_images(spec: Spec) -> Phase:
    """text + clusters -> fetched_images: the bytes behind each distinct URL, a range of sites on one worker."""
    max_bytes = spec.images.max_bytes
    taken = takedowns_of(spec)
    crawl = crawl_without(spec.crawl, taken)
    fetching = Fetching(crawl, "image", max_bytes, spec.source.snapshot)

    def asked(part: Part) -> list[str]:
        assert part.rows is not None
        urls = part.rows.filter(pc.is_null(part.rows.column("content_hash"))).column("url").unique().to_pylist()
        return sorted(url for url in urls if not _is_data(url) and not lies_in_folder(spec.source, url))

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        came = pc.is_valid(rows.column("content_hash"))
        along, users = rows.filter(came), _users(rows.filter(pc.invert(came)))
        made = [_came_along(along, max_bytes)]
        part.add("image_urls", made[0].num_rows + len(users))
        local: list[str] = []
        elsewhere: list[str] = []
        for image_id, (url, *_) in users.items():
            if lies_in_folder(spec.source, url):
                local.append(image_id)
            elif not _is_data(url):
                elsewhere.append(image_id)
        if local:
            table = local_images(part, spec.source, [users[image_id][0] for image_id in local], max_bytes, taken)
            made.append(_as_fetched_image(table, local, users))
        table = fetching.answers(part.storage, [users[each][0] for each in elsewhere], part.keys, part.generation)
        part.add_true("fetched", pc.equal(table.column("status"), "ok"))
        part.add_true("failed", pc.equal(table.column("status"), "error"))
        made.append(_as_fetched_image(table, elsewhere, users))
        carried = sorted(image_id for image_id, (url, *_) in users.items() if _is_data(url))
        if carried:
            made.append(_from_data_uris(part, carried, users))
        result = taken.refused(pa.concat_tables(made)).sort_by([("image_id", "ascending")])
        key_of = dict(zip(*(rows.column(name).to_pylist() for name in ("image_id", "site_key")), strict=True))
        keys = [key_of[image_id] for image_id in result.column("image_id").to_pylist()]
        result = result.add_column(0, "site_key", pa.array(keys, pa.string()))
        part.add_true("images_fetched", pc.equal(result.column("status"), "ok"))
        part.add_true("retryable", result.column("retryable"))
        return result

    return Phase(
        name="fetched_images",
        schema=FETCHED_IMAGE,
        run=run,
        inputs=("documents", "text", "clusters"),
        settings={
            "crawl": crawl.at_any_pace(),
            "source": spec.source,
            "max_bytes": max_bytes,
            "takedowns": taken.digest,
        },
        modules=("pipeline.phases.fetching", "pipeline.phases.sources", "pipeline.phases.takedowns"),
        libraries=FETCH_LIBRARIES,
        network=True,
        errand=FetchErrand(fetching, asked),
        exchange=Exchange(key="site_key", order=("image_id", "document_id"), schema=IMAGE_REFERENCE, emit=_references),
    )


def _as_fetched_image(table: pa.Table, ids: list[str], users: dict[str, _Users]) -> pa.Table:
    columns = {name: table.column(name) for name in FETCHED_IMAGE.names if name in table.column_names}
    columns["image_id"] = pa.array(ids, pa.string())
    columns["url"] = pa.array([users[image_id][0] for image_id in ids], pa.string())
    uses = [_use(users[image_id]) for image_id in ids]
    for name in ("documents", "copies"):
        columns[name] = pa.array([use[name] for use in uses], pa.list_(pa.string()))
    return pa.table({name: columns[name] for name in _UNKEYED.names}).cast(_UNKEYED)


def _came_along(rows: pa.Table, max_bytes: int) -> pa.Table:
    """Rows of images whose bytes came with their documents; rows of one image stand together and have one body."""
    users = _users(rows)
    bodies = {row["image_id"]: row for row in rows.select(["image_id", "content_hash", "body"]).to_pylist()}
    made: list[dict[str, Any]] = []
    for image_id, use in users.items():
        row: dict[str, Any] = {"image_id": image_id, "url": use.url, "retryable": False, **_use(use)}
        if bodies[image_id]["body"]["length"] > max_bytes:
            row |= {"status": "refused", "reason": "too_large", "detail": f"more than {max_bytes} bytes"}
        else:
            row |= {"status": "ok"} | {name: bodies[image_id][name] for name in ("content_hash", "body")}
        made.append(row)
    return pa.Table.from_pylist(made, schema=_UNKEYED)


def _from_data_uris(part: Part, ids: list[str], users: dict[str, _Users]) -> pa.Table:
    """Rows of images that their page carries itself, with the bytes put where fetched bytes lie."""
    bodies: list[bytes | None] = []
    rows: list[dict[str, Any]] = []
    for image_id in ids:
        use = users[image_id]
        row: dict[str, Any] = {"image_id": image_id, "url": use.url, "retryable": False, **_use(use)}
        try:
            decoded = _decode_data_uri(use.url)
            bodies.append(decoded)
            row |= {"status": "ok", "content_hash": xxhash.xxh3_128_hexdigest(decoded)}
        except ValueError as error:
            bodies.append(None)
            row |= {"status": "error", "reason": "data_uri", "detail": str(error)}
        rows.append(row)
    for row, locator in zip(rows, write_pack(part.storage, "rows/read_source/data", bodies), strict=True):
        row["body"] = locator
    return pa.Table.from_pylist(rows, schema=_UNKEYED)


_BY_CONTENT = pa.schema([pa.field("content_key", pa.string()), *_UNKEYED])


def _by_content(part: Part, _: Any) -> pa.Table:
    """Fetched images keyed by their bytes, failures by their URL."""
    table = part.read("fetched_images").drop_columns(["site_key"])
    keys = pc.coalesce(table.column("content_hash"), table.column("image_id"))
    return table.add_column(0, "content_key", keys)


def _to_decode(part: Part) -> pa.Table:
    assert part.rows is not None
    there = part.rows.filter(pc.equal(part.rows.column("status"), "ok"))
    return there.select(["content_key", "body", "content_type"])


def images(spec: Spec) -> Phase:
    """fetched_images -> images: each distinct content decoded once, with how many documents show it."""
    # The header's type is a hint that a picture's own bytes overrule: it must not make them another picture.
    decode = Step(DecodeImage(spec.images), _to_decode, owner="content_key", key=("content_key",))
    taken = takedowns_of(spec)

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        _, result = part.answers(decode)
        users: dict[str, set[str]] = {}
        for key, copies in zip(rows.column("content_key").to_pylist(), rows.column("copies").to_pylist(), strict=True):
            users.setdefault(key, set()).update(copies)
        decoded = iter(result.to_pylist())
        made: list[dict[str, Any]] = []
        for row in rows.drop_columns(["body", "copies"]).to_pylist():
            image = {name: row.get(name) for name in ("content_key", *IMAGE.names, "documents")}
            image["num_documents"] = len(users[row["content_key"]])
            if row["status"] == "ok":
                facts = next(decoded)
                error = facts.pop("error")
                if error is not None:
                    said = failed("image", "decode", error)
                    status = "quarantined" if said["action"] == "quarantine" else "error"
                    facts |= {"status": status, "reason": said["rule"], "detail": said["detail"]}
                image |= {name: value for name, value in facts.items() if name in IMAGE.names}
                image = without_content(image, taken)
            else:
                image["body"] = None
            made.append(image)
        part.add("images", len(made))
        part.add("images_ok", sum(image["status"] == "ok" for image in made))
        return pa.Table.from_pylist(made, schema=IMAGE_USE)

    return Phase(
        name="images",
        schema=IMAGE_USE,
        run=run,
        inputs=("fetched_images",),
        settings={"takedowns": taken.digest},
        modules=("pipeline.phases.takedowns",),
        steps=(decode,),
        exchange=Exchange(key="content_key", order=("image_id",), schema=_BY_CONTENT, emit=_by_content),
    )


_IMAGE_OF = pa.schema([pa.field("owner_id", pa.string()), *IMAGE, pa.field("num_documents", pa.int32())])


def _by_document(part: Part, _: Any) -> pa.Table:
    """Each image's facts, once for every document that shows it."""
    table = part.read("images")
    owners = pc.list_parent_indices(table.column("documents"))
    facts = table.drop_columns(["content_key", "documents"]).take(owners)
    return facts.add_column(0, "owner_id", pc.list_flatten(table.column("documents")))


def passed(spec: Spec) -> Phase:
    """images + text + scores -> passed: what the image rules and the last document rules leave, copies among it."""

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        selected = part.read("text").select(["document_id", "positions", "language"])
        ids = selected.column("document_id").combine_chunks()
        documents = part.read("documents")
        documents = documents.filter(pc.is_in(documents.column("document_id"), ids))
        scores = part.read("scores")
        scores = scores.filter(pc.is_in(scores.column("document_id"), ids))
        images = _distinct(rows.drop_columns(["owner_id"]))
        ok = images.filter(pc.is_valid(images.column("sha256")))
        frequency = ok.group_by("sha256").aggregate([("num_documents", "max")])
        frequency = frequency.rename_columns({"sha256": "content", "num_documents_max": "num_documents"})
        final, decisions = decide_images(
            selected.select(["document_id", "positions"]),
            documents,
            scores,
            images.drop_columns(["num_documents"]),
            frequency,
            spec.filter,
        )
        part.decide(decisions)
        languages, words = (
            dict(zip(table.column("document_id").to_pylist(), table.column(name).to_pylist(), strict=True))
            for table, name in ((selected, "language"), (scores, "paragraphs"))
        )
        facts_of = {row["image_id"]: row for row in images.drop_columns(["num_documents"]).to_pylist()}
        positions = {row["document_id"]: row["positions"] for row in final.to_pylist()}
        made: list[dict[str, Any]] = []
        for document in documents.select(["document_id", "url", "modified", "nodes"]).to_pylist():
            document_id = document["document_id"]
            if document_id not in positions:
                continue
            nodes = [document["nodes"][position] for position in positions[document_id]]
            shown = [node for node in nodes if node["kind"] == "image"]
            used = [facts_of[image_id] for image_id in dict.fromkeys(node["image_id"] for node in shown)]
            left = set(positions[document_id])
            made.append(
                {
                    "document_id": document_id,
                    "url": document["url"],
                    "language": languages[document_id],
                    "modified": document["modified"],
                    "positions": positions[document_id],
                    "num_images": len(shown),
                    "num_words": sum(
                        each["words"] or 0 for each in words[document_id] or () if each["position"] in left
                    ),
                    "pictures": _digest_of(image["phash"] or image["sha256"] for image in used),
                    "captions": _digest_of(" ".join((node["caption"] or "").split()) for node in shown),
                    "images": used,
                }
            )
        part.add("documents", len(made))
        return pa.Table.from_pylist(made, schema=PASSED)

    return Phase(
        name="passed",
        schema=PASSED,
        run=run,
        inputs=("documents", "scores", "text", "images"),
        settings={"filter": spec.filter},
        modules=("stages.filter.image_rules",),
        exchange=Exchange(key="owner_id", order=("owner_id", "image_id"), schema=_IMAGE_OF, emit=_by_document),
    )


def _digest_of(names: Iterable[str]) -> str | None:
    """Digest of a set of names; None for an empty one, which is like no other."""
    found = sorted(set(names))
    return digest(*found) if found else None


def _distinct(rows: pa.Table) -> pa.Table:
    """Each image once."""
    first: dict[str, int] = {}
    for index, image_id in enumerate(rows.column("image_id").to_pylist()):
        first.setdefault(image_id, index)
    return rows.take(pa.array(sorted(first.values()), pa.int64()))
