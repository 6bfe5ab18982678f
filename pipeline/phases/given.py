"""Documents that were extracted elsewhere: their nodes are taken from the files instead of extracted from pages.

The pages phase reads which documents there are, this one what they hold; both go over the same rows in the same order,
so that of several rows with one id both take the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.packs import write_pack
from pipeline.engine.phase import Exchange, Part, Phase
from pipeline.phases.consent import judged
from pipeline.phases.documents import node_decisions, page_decisions
from pipeline.phases.given_files import GivenPiece, given_fingerprint, given_pieces, open_file
from pipeline.phases.takedowns import Takedowns, takedowns_of
from pipeline.spec.loading import Spec
from pipeline.spec.sections import DocumentsSource
from schemas.document import DOCUMENT, IMAGE_BODY
from stages.sources.documents import HEADER, read_documents
from stages.sources.sample import Sample
from stages.web.consent.page import PageConsent, Refusal, page_refusal

# Where the bytes of pictures lie that came with their documents.
_PICTURES = "rows/read_source/documents"
# Of a document's page.
_OF_PAGE = ("consent", "provenance")
# What the exchange carries: a row of a file, document or not.
_GIVEN = pa.schema(
    [
        *HEADER,
        *(field.with_nullable(True) for field in DOCUMENT if field.name not in (*HEADER.names, "page_id", *_OF_PAGE)),
    ]
)


def given_documents(spec: Spec) -> Phase:
    """The source's files + pages -> documents, one a page."""
    source = spec.source
    assert isinstance(source, DocumentsSource)
    consent = PageConsent.of(spec.crawl)
    taken = takedowns_of(spec)

    def emit(part: Part, unit: GivenPiece) -> pa.Table:
        sample = Sample(source.sample)
        with open_file(unit.path) as stream:
            tables = [
                _with_locators(part, table.filter(_is_left(table, taken)))
                for table in read_documents(stream, unit.piece, source.layout, sample)
            ]
        return pa.concat_tables(tables) if tables else _GIVEN.empty_table()

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        pages = part.read("pages")
        usable = pages.filter(pc.equal(pages.column("status"), "ok"))
        part.add("pages", pages.num_rows)
        part.add("pages_fetched", usable.num_rows)
        part.decide(page_decisions(pages))
        first = _first_of_each(rows)
        found = first.filter(pc.is_in(first.column("document_id"), value_set=usable.column("page_id").combine_chunks()))
        tags = zip(found.column("meta_robots").to_pylist(), found.column("meta_tdm").to_pylist(), strict=True)
        refusals = [page_refusal(robots, tdm, consent) for robots, tdm in tags]
        made = found.filter(
            pc.and_(pc.is_null(found.column("reason")), pa.array([refusal is None for refusal in refusals], pa.bool_()))
        )
        part.decide(_not_made(usable, found, refusals))
        part.decide(_left_out(made))
        part.add("documents", made.num_rows)
        its_page = pc.index_in(made.column("document_id"), value_set=usable.column("page_id").combine_chunks())
        columns = {name: made.column(name) for name in DOCUMENT.names if name in made.column_names}
        columns["page_id"] = made.column("document_id")
        columns |= {name: usable.column(name).take(its_page) for name in _OF_PAGE}
        documents, kept_back = judged(pa.table({name: columns[name] for name in DOCUMENT.names}), consent)
        part.decide(kept_back)
        return documents

    return Phase(
        name="documents",
        schema=DOCUMENT,
        run=run,
        inputs=("pages",),
        settings={
            "consent": consent,
            "source": source,
            "fingerprint": given_fingerprint(source),
            "takedowns": taken.digest,
        },
        modules=(
            "pipeline.phases.consent",
            "pipeline.phases.documents",
            "pipeline.phases.given_files",
            "pipeline.phases.takedowns",
        ),
        libraries=("ada-url", "fsspec"),
        units=lambda scout: given_pieces(source),
        exchange=Exchange(key="document_id", order=("document_id", "url", "file", "place"), schema=_GIVEN, emit=emit),
    )


def _with_locators(part: Part, table: pa.Table) -> pa.Table:
    """READ rows as the exchange carries them: bytes of pictures are put where fetched bytes lie."""
    images = table.column("images").combine_chunks()
    flat = images.flatten()
    if len(flat):
        bodies = pc.struct_field(flat, "bytes")
        locators = write_pack(part.storage, _PICTURES, [body.as_buffer().to_pybytes() for body in bodies])
        carried = pa.StructArray.from_arrays(
            [
                pc.struct_field(flat, "image_id"),
                pc.struct_field(flat, "content_hash"),
                pa.array(locators, IMAGE_BODY.field("body").type),
            ],
            fields=list(IMAGE_BODY),
        )
        lengths = np.asarray(pc.fill_null(pc.list_value_length(images), 0))
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        column = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), carried)
    else:
        column = pa.nulls(table.num_rows, pa.list_(IMAGE_BODY))
    part.tell(0, table.num_rows)
    return table.append_column("image_bodies", column).select(_GIVEN.names).cast(_GIVEN)


def _is_left(table: pa.Table, taken: Takedowns) -> pa.Array:
    """Mask of the rows that are not taken down: their pictures are not even put into the store."""
    return pa.array([taken.of_url(url) is None for url in table.column("url").to_pylist()], pa.bool_())


def _first_of_each(rows: pa.Table) -> pa.Table:
    """The first row of each document, of rows sorted by document."""
    ids = rows.column("document_id").combine_chunks()
    if len(ids) < 2:
        return rows
    return rows.filter(pa.concat_arrays([pa.array([True]), pc.not_equal(ids[1:], ids[:-1])]))


def _not_made(usable: pa.Table, found: pa.Table, refusals: list[Refusal | None]) -> list[dict[str, Any]]:
    """Decisions about rows that gave no document."""
    reasons, details = found.column("reason").to_pylist(), found.column("detail").to_pylist()
    why: dict[str, tuple[str, str, str | None]] = {}
    for page_id, reason, detail, refusal in zip(
        found.column("document_id").to_pylist(), reasons, details, refusals, strict=True
    ):
        if reason is not None:
            why[page_id] = "drop", reason, detail
        elif refusal is not None:
            why[page_id] = "refuse", refusal.rule, refusal.said
    unread = usable.filter(
        pc.invert(pc.is_in(usable.column("page_id"), value_set=found.column("document_id").combine_chunks()))
    )
    for row in unread.select(["page_id", "provenance"]).to_pylist():
        place = f"{row['provenance']['file']}, {row['provenance']['offset']}"
        why[row["page_id"]] = "drop", "damaged_file", f"{place}: its text and pictures cannot be read"
    if not why:
        return []
    urls = dict(zip(usable.column("page_id").to_pylist(), usable.column("url").to_pylist(), strict=True))
    return [
        {"kind": "page", "action": action, "subject_id": page_id, "url": urls[page_id], "rule": rule, "detail": detail}
        for page_id, (action, rule, detail) in sorted(why.items())
    ]


def _left_out(made: pa.Table) -> list[dict[str, Any]]:
    """Decisions about parts of documents that are no nodes of theirs."""
    there = made.filter(pc.greater(pc.list_value_length(made.column("dropped")), 0))
    rows = there.select(["document_id", "url", "dropped"]).to_pylist()
    return [said for row in rows for said in node_decisions(row["document_id"], row["url"], row["dropped"])]
