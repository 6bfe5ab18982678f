"""What held-out documents ask a model, and what is right: from the pages alone, before any model has answered.

Three directions: a picture asks for what its page says of it (trainer/data/gold.py), that text asks for its picture,
and the text before a picture, in its context, asks for the picture that follows.

What a page says of a picture is asked only where it tells the picture from others: a text that pages of several groups
give to pictures of theirs ("Fig. 9 Default plot", "Fig. 12 Default plot") is no question and no answer. A group is what
was drawn independently of the rest: documents of one near-duplicate cluster, or with a picture in common. Groups are
what tests and intervals call pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from trainer.data.gold import gold_pairs, statement
from trainer.data.rows import Row
from trainer.data.shards import ShardCorpus

DIRECTIONS = {
    "image_to_sentence": ("pictures", "texts"),
    "sentence_to_image": ("texts", "pictures"),
    "context_to_image": ("contexts", "pictures"),
}


@dataclass(frozen=True)
class Item:
    """A picture, a text that a page gives to a picture, or a slice in its context."""

    document: int  # index in the corpus
    slice: int  # of a text that is no sentence of the document: of the picture it is given to
    content: str  # sha256 of a picture, else the text


@dataclass(frozen=True)
class Direction:
    """Queries and candidates by their indices in `Questions`: every item of `among` is a candidate of every query."""

    asks: str  # "pictures" | "texts" | "contexts"
    among: str  # "pictures" | "texts"
    queries: tuple[int, ...]
    right: tuple[tuple[int, ...], ...]  # of each query, at least one
    pages: tuple[int, ...]  # page of each query


@dataclass(frozen=True)
class Questions:
    """All that is asked of the held-out documents; `page_of`: page of each of them, by index in the corpus."""

    pictures: tuple[Item, ...]
    texts: tuple[Item, ...]
    contexts: tuple[Item, ...]
    directions: dict[str, Direction]
    page_of: dict[int, int]

    def items(self, name: str) -> tuple[Item, ...]:
        """Those of a name in a Direction."""
        return {"pictures": self.pictures, "texts": self.texts, "contexts": self.contexts}[name]

    def stored(self, corpus: ShardCorpus) -> dict[str, Any]:
        """As plain JSON values."""
        found: dict[str, Any] = {
            name: [
                {
                    "document_id": corpus.document(item.document).document_id,
                    "slice": item.slice,
                    "content": item.content,
                }
                for item in self.items(name)
            ]
            for name in ("pictures", "texts", "contexts")
        }
        return {**found, "directions": {name: asdict(direction) for name, direction in self.directions.items()}}


def page_groups(corpus: ShardCorpus, documents: Sequence[int]) -> dict[int, int]:
    """Number of each document's group, 0 .. G - 1: joined by cluster and by pictures of the same bytes."""
    clusters = corpus.column("cluster_id")
    holders: dict[str, list[int]] = {}
    for place, index in enumerate(documents):
        document = corpus.document(index)
        pictures = {document.image_hash(document.image_of(i)) for i, s in enumerate(document.slices) if s.is_image}
        for key in (f"cluster {clusters[index]}", *sorted(pictures)):
            holders.setdefault(key, []).append(place)
    edges = [edge for places in holders.values() for edge in pairwise(places)]
    rows, columns = [a for a, _ in edges], [b for _, b in edges]
    graph = coo_array(([1] * len(edges), (rows, columns)), shape=(len(documents), len(documents)))
    labels = connected_components(graph, directed=False)[1].tolist() if documents else []
    return dict(zip(documents, labels, strict=True))


def ask(corpus: ShardCorpus, documents: Sequence[int], segments: Sequence[Row], most: int) -> Questions:
    """Questions of held-out documents, in their order; at most `most` of a direction.

    Contexts are those of the segments: a sentence right before a picture.
    """
    page_of = page_groups(corpus, documents)
    pairs = _telling(corpus, documents, page_of)
    pictures = dict(list(_first((image.content, image) for image, _ in pairs).items())[:most])
    texts = _first((statement(text.content), text) for image, text in pairs if image.content in pictures)
    texts = dict(list(texts.items())[:most])
    contexts, following = _contexts(corpus, segments)
    contexts, following = contexts[:most], following[:most]
    pictures.update({image.content: image for image in following if image.content not in pictures})
    picture_at = {content: i for i, content in enumerate(pictures)}
    text_at = {said: i for i, said in enumerate(texts)}
    texts_of: dict[int, set[int]] = {}
    pictures_of: dict[int, set[int]] = {}
    for image, text in pairs:
        if image.content in pictures and (said := statement(text.content)) in texts:
            texts_of.setdefault(picture_at[image.content], set()).add(text_at[said])
            pictures_of.setdefault(text_at[said], set()).add(picture_at[image.content])
    after = {i: {picture_at[image.content]} for i, image in enumerate(following)}
    found = Questions(tuple(pictures.values()), tuple(texts.values()), contexts, {}, page_of)
    for (name, (asks, among)), right in zip(DIRECTIONS.items(), (texts_of, pictures_of, after), strict=True):
        queries = sorted(right)[:most]
        found.directions[name] = Direction(
            asks,
            among,
            tuple(queries),
            tuple(tuple(sorted(right[query])) for query in queries),
            tuple(page_of[found.items(asks)[query].document] for query in queries),
        )
    return found


def _first(items: Iterable[tuple[str, Item]]) -> dict[str, Item]:
    """By key, the first of each."""
    found: dict[str, Item] = {}
    for key, item in items:
        found.setdefault(key, item)
    return found


def _telling(corpus: ShardCorpus, documents: Sequence[int], page_of: dict[int, int]) -> list[tuple[Item, Item]]:
    """(picture, text) of all gold pairs whose text is given within one group of pages alone."""
    pairs: list[tuple[Item, Item]] = []
    groups: dict[str, set[int]] = {}
    for index in documents:
        document = corpus.document(index)
        for pair in gold_pairs(document):
            place = pair.image if pair.sentence is None else pair.sentence
            picture = Item(index, pair.image, document.image_hash(document.image_of(pair.image)))
            pairs.append((picture, Item(index, place, pair.text)))
            groups.setdefault(statement(pair.text), set()).add(page_of[index])
    return [(image, text) for image, text in pairs if len(groups[statement(text.content)]) == 1]


def _contexts(corpus: ShardCorpus, segments: Sequence[Row]) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Slices right before a picture of the same segment, and those pictures."""
    before, pictures = [], []
    for row in segments:
        document = corpus.document(row.document)
        for place in range(row.segment.first + 1, row.segment.last):
            if document.slices[place].is_image and not document.slices[place - 1].is_image:
                before.append(Item(row.document, place - 1, document.sentence(place - 1)))
                pictures.append(Item(row.document, place, document.image_hash(document.image_of(place))))
    return tuple(before), tuple(pictures)
