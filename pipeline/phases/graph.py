"""The build graph, in the order it runs: cheap and shrinking first, pictures only for documents whose text passed."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.engine.phase import Phase
from pipeline.phases.choice import border, choose, kept, shared_pictures
from pipeline.phases.documents import documents as extracted_documents
from pipeline.phases.duplicates import candidate_pairs, clusters, edges, paragraphs, signatures, similarities
from pipeline.phases.given import given_documents
from pipeline.phases.images import fetched_images, images, passed
from pipeline.phases.pages import pages
from pipeline.phases.pairs import negatives, pairs
from pipeline.phases.shards import shards
from pipeline.phases.slices import embeddings, slices
from pipeline.phases.text import scores, text
from pipeline.spec.loading import Spec
from pipeline.spec.sections import DocumentsSource


def documents(spec: Spec) -> Phase:
    """pages -> documents: extracted from the pages, or as the source gives them."""
    return given_documents(spec) if isinstance(spec.source, DocumentsSource) else extracted_documents(spec)


_MAKERS: tuple[Callable[[Spec], Phase], ...] = (
    pages,
    documents,
    scores,
    text,
    paragraphs,
    signatures,
    edges,
    candidate_pairs,
    similarities,
    clusters,
    fetched_images,
    images,
    passed,
    choose,
    shared_pictures,
    border,
    kept,
    slices,
    embeddings,
    pairs,
    negatives,
    shards,
)


def graph(spec: Spec) -> list[Phase]:
    """The phases of a build, inputs before those that read them."""
    return [make(spec) for make in _MAKERS]


def names() -> list[str]:
    """Phase names in order."""
    return [make.__name__ for make in _MAKERS]
