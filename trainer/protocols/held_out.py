"""Held-out evaluation: perplexity, retrieval three ways, label-alignment error, one picture's generated text.

Label-alignment error is the structure loss's distance on those documents: how far cosines of retrieval vectors of
drawn positions are from their labels, by the recipe's own objective.

Only documents whose shard says split = "held_out" are read: whole near-duplicate clusters, joined by shared image
hashes, so nothing here was seen in training. Queries are the pipeline's matched pairs: an image and the sentence it
was matched to. image_to_sentence and sentence_to_image use bare slices; context_to_image asks, from the state of
the slice before an image, for that image among all held-out images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from trainer.data.collate import PackedSequence, pack, segment_sequence, view_sequence
from trainer.data.features import ImageSource
from trainer.data.layout import Vocabulary, sentence_ids
from trainer.data.pack_plan import seeded
from trainer.data.positions import PositionBuilder
from trainer.data.rows import Row
from trainer.data.shards import Corpus, Document
from trainer.errors import CorruptRecordError, NotFiniteError
from trainer.model.interleaved import InterleavedForCausalLM
from trainer.model.writing import write
from trainer.objective.labels import label_lengths, label_rows, pair_weights
from trainer.objective.structure import similarity_statistics
from trainer.parallel.ranks import Ranks
from trainer.parallel.stop import Stop
from trainer.protocols.retrieval_metrics import chance, claim_against_chance, ranks, summarize
from trainer.recipe import Recipe

Tensor = torch.Tensor


@dataclass(frozen=True)
class Place:
    """A slice of a corpus document."""

    document: int
    slice: int


@dataclass(frozen=True)
class HeldOut:
    """What is evaluated: the same before and after training, chosen by the corpus and the recipe alone."""

    segments: tuple[Row, ...]  # for perplexity and context states, up to the recipe's tokens
    pairs: tuple[tuple[Place, Place], ...]  # image, matched sentence
    contexts: tuple[tuple[int, Place, Place], ...]  # segment index, slice before an image, the image
    documents: int
    tokens: int


def choose(corpus: Corpus, rows: Sequence[Row], recipe: Recipe) -> HeldOut:
    """Segments, pairs and contexts of the held-out rows, in an order drawn from the document ids."""
    held = sorted(
        (row for row in rows if row.split == "held_out"),
        # Segments with images first: they hold the contexts that are asked about, and tokens are limited.
        key=lambda row: (not row.images, seeded("held_out", row.document_id), row.segment.first),
    )
    segments: list[Row] = []
    tokens = 0
    for row in held:
        if segments and tokens + row.tokens > recipe.evaluation.tokens:
            continue
        segments.append(row)
        tokens += row.tokens
    pairs = [(Place(r.document, image), Place(r.document, sentence)) for r in held for image, sentence, _ in r.pairs]
    contexts = []
    for number, row in enumerate(segments):
        document = corpus.document(row.document)
        for piece in range(row.segment.first + 1, row.segment.last):
            if document.slices[piece].is_image and not document.slices[piece - 1].is_image:
                contexts.append((number, Place(row.document, piece - 1), Place(row.document, piece)))
    limit = recipe.evaluation.queries
    return HeldOut(
        tuple(segments), tuple(pairs[:limit]), tuple(contexts[:limit]), len({r.document for r in held}), tokens
    )


@dataclass
class Evaluator:
    """Everything an evaluation needs; `run` may be called as often as wished.

    The ranks share the packs and meet after every one, so that none waits long for another, or misses a stop.
    """

    corpus: Corpus
    held_out: HeldOut
    vocabulary: Vocabulary
    images: ImageSource
    tokenizer: Any
    recipe: Recipe
    dtype: torch.dtype
    peers: Ranks
    stop: Stop

    @torch.no_grad()
    def run(self, model: InterleavedForCausalLM) -> dict[str, Any]:
        """Figures, ranks per query and examples as plain JSON values, the same on every rank but for the text that
        the first alone generates; the model is left in its mode.

        Raises on all ranks Terminated after SIGTERM to any, and NotFiniteError for a model that answers with NaN.
        """
        training = model.training
        model.train(False)
        loss, targets, contexts, drawn, builder = self._segments(model)
        result: dict[str, Any] = {
            "held_out_documents": self.held_out.documents,
            "perplexity": {
                "loss": loss / targets if targets else None,
                "perplexity": math.exp(min(50.0, loss / targets)) if targets else None,
                "target_tokens": targets,
                "segments": len(self.held_out.segments),
            },
            "retrieval": self._retrieval(model, contexts),
            "generation": self._generate(model) if self.peers.first else None,
            "label_alignment": self._label_alignment(builder, drawn),
        }
        model.train(training)
        return result

    def _autocast(self) -> torch.autocast:
        """Around the model's own work alone: bfloat16 cosines would round different scores to ties."""
        return torch.autocast(self.peers.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _groups(self, sequences: Sequence[PackedSequence]) -> list[list[PackedSequence]]:
        """Sequences in order, as many to a pack as fit."""
        groups: list[list[PackedSequence]] = []
        room = 0
        for sequence in sequences:
            size = len(sequence.encoded.ids)
            if size > room or not groups:
                groups.append([])
                room = max(self.recipe.data.pack_tokens, size)
            groups[-1].append(sequence)
            room -= size
        return groups

    def _vectors(self, model: InterleavedForCausalLM, sequences: Sequence[PackedSequence]) -> tuple[float, int, Tensor]:
        """(summed cross-entropy, targets, retrieval vectors in order) of sequences."""
        groups, world = self._groups(sequences), self.peers.world
        mine: list[tuple[float, int, Tensor]] = []
        for first in range(0, len(groups), world):
            problem: Exception | None = None
            try:
                for group in groups[first + self.peers.rank : first + self.peers.rank + 1]:
                    tensors = pack(group, self.vocabulary, self.images)
                    with self._autocast():
                        output = model.forward_packed(tensors.to(self.peers.device))
                    mine.append((float(output.loss_sum), len(tensors.target_ids), output.retrieval.cpu()))
            except CorruptRecordError as error:
                problem = error
            self.stop.agree(problem)
        by_rank = self.peers.gather(mine)
        found = [by_rank[number % world][number // world] for number in range(len(groups))]
        loss = sum((loss for loss, _, _ in found), 0.0)
        vectors = torch.cat([torch.zeros(0, self.recipe.model.retrieval_dim), *(rows for _, _, rows in found)])
        if not math.isfinite(loss) or not bool(vectors.isfinite().all()):
            # Of all ranks' packs, so every rank raises.
            raise NotFiniteError("on held-out documents the model gives numbers that are not finite")
        return loss, sum(targets for _, targets, _ in found), vectors

    @property
    def _limit(self) -> int:
        return self.recipe.data.document_tokens - 2

    def _segments(self, model: InterleavedForCausalLM) -> tuple[float, int, Tensor, Tensor, PositionBuilder]:
        """(summed cross-entropy, targets, vectors of contexts, vectors of drawn positions, those positions)."""
        asked: dict[int, list[int]] = {}
        for number, place, _ in self.held_out.contexts:
            asked.setdefault(number, []).append(place.slice)
        sequences = []
        builder = PositionBuilder(self.recipe.objective)
        is_drawn: list[bool] = []
        for number, row in enumerate(self.held_out.segments):
            document = self.corpus.document(row.document)
            contexts = asked.get(number, [])
            drawn = builder.add(document, row, (), self.recipe.seed, 0)
            is_drawn += [False] * len(contexts) + [True] * len(drawn)
            sequences.append(segment_sequence(document, row, self.vocabulary, self._limit, (*contexts, *drawn)))
        loss, targets, vectors = self._vectors(model, sequences)
        chosen = torch.tensor(is_drawn, dtype=torch.bool)
        return loss, targets, vectors[~chosen], vectors[chosen], builder

    def _label_alignment(self, builder: PositionBuilder, vectors: Tensor) -> dict[str, Any]:
        """Statistics of similarities and labels as of a training step; `label_error` is the label-alignment error."""
        objective = self.recipe.objective
        positions, slices = builder.finish()
        labels = label_rows(positions, 0, len(positions), slices, objective, self.recipe.seed)
        weights = pair_weights(positions, objective)
        pairs = int(weights.sum() - weights.diagonal().sum())
        found = similarity_statistics(vectors, 0, labels, weights, label_lengths(positions, objective)) if pairs else {}
        return {"positions": len(positions), "pairs": pairs, **found}

    def _bare(self, model: InterleavedForCausalLM, places: Sequence[Place]) -> Tensor:
        sequences = [
            view_sequence(self.corpus.document(place.document), place.slice, self.vocabulary, self._limit)
            for place in places
        ]
        return self._vectors(model, sequences)[2]

    def _content(self, place: Place) -> str:
        """What makes two slices the same candidate: an image's hash, a sentence's text."""
        document = self.corpus.document(place.document)
        if document.slices[place.slice].is_image:
            return document.image_hash(document.image_of(place.slice))
        return document.sentence(place.slice)

    def _retrieval(self, model: InterleavedForCausalLM, contexts: Tensor) -> dict[str, Any]:
        pairs = self.held_out.pairs
        images: dict[str, Place] = {}
        sentences: dict[str, Place] = {}
        for image, sentence in pairs:
            images.setdefault(self._content(image), image)
            sentences.setdefault(self._content(sentence), sentence)
        asked: dict[str, Place] = dict(images)
        for _, _, image in self.held_out.contexts:
            asked.setdefault(self._content(image), image)
        image_vectors = self._bare(model, list(asked.values()))
        sentence_vectors = self._bare(model, list(sentences.values()))
        image_at = {content: i for i, content in enumerate(asked)}
        sentence_at = {content: i for i, content in enumerate(sentences)}
        # One query an (image, sentence) content pair: a picture repeated on ten pages is one question.
        distinct = {(self._content(i), self._content(s)): (i, s) for i, s in reversed(pairs)}
        keys = list(reversed(distinct))
        result = {
            "image_to_sentence": self._direction(
                "image_to_sentence",
                image_vectors[[image_at[i] for i, _ in keys]],
                sentence_vectors,
                [sentence_at[s] for _, s in keys],
                [[sentence_at[t] for j, t in keys if j == i and t != s] for i, s in keys],
                [distinct[key][0] for key in keys],
                list(sentences.values()),
            ),
            "sentence_to_image": self._direction(
                "sentence_to_image",
                sentence_vectors[[sentence_at[s] for _, s in keys]],
                image_vectors[: len(images)],
                [image_at[i] for i, _ in keys],
                [[image_at[j] for j, t in keys if t == s and j != i] for i, s in keys],
                [distinct[key][1] for key in keys],
                list(images.values()),
            ),
            "context_to_image": self._direction(
                "context_to_image",
                contexts,
                image_vectors,
                [image_at[self._content(image)] for _, _, image in self.held_out.contexts],
                [[] for _ in self.held_out.contexts],
                [place for _, place, _ in self.held_out.contexts],
                list(asked.values()),
            ),
        }
        return result

    def _direction(
        self,
        name: str,
        queries: Tensor,
        candidates: Tensor,
        targets: list[int],
        also: list[list[int]],
        asked: list[Place],
        places: list[Place],
    ) -> dict[str, Any]:
        found = ranks(queries, candidates, targets, also)
        order = sorted(range(len(found)), key=lambda i: (seeded("example", asked[i].document, asked[i].slice), i))
        examples = []
        for query in order[: self.recipe.evaluation.examples]:
            scores = queries[query] @ candidates.T
            best = sorted(range(len(places)), key=lambda i: (-float(scores[i]), i))[:5]
            examples.append(
                {
                    "query": self._describe(asked[query]),
                    "target": self._describe(places[targets[query]]),
                    "rank": found[query],
                    "top": [{**self._describe(places[i]), "score": round(float(scores[i]), 4)} for i in best],
                }
            )
        return {
            "direction": name,
            **asdict(summarize(found, len(places))),
            "chance": asdict(chance(len(found), len(places))),
            "claim": claim_against_chance(found, len(places), self.recipe.evaluation.minimum_queries),
            "ranks": found,
            "examples": examples,
        }

    def _describe(self, place: Place) -> dict[str, Any]:
        document: Document = self.corpus.document(place.document)
        found: dict[str, Any] = {"document_id": document.document_id, "url": document.url, "slice": place.slice}
        if document.slices[place.slice].is_image:
            image = document.image_of(place.slice)
            return {**found, "kind": "image", "image": image, "sha256": document.image_hash(image)}
        return {**found, "kind": "sentence", "text": document.sentence(place.slice)[:300]}

    def _generate(self, model: Any) -> dict[str, Any] | None:
        """Greedy text after one held-out picture, the first pair in the order drawn from document ids."""
        if not self.held_out.pairs:
            return None
        image, sentence = self.held_out.pairs[0]
        document = self.corpus.document(image.document)
        ids = sentence_ids(document, image.slice, self.vocabulary, self._limit)
        pictures, _ = self.images.image(document, document.image_of(image.slice))
        with self._autocast():
            text = write(model, self.tokenizer, ids, pictures[None], self.recipe.evaluation.generated_tokens)
        return {"image": self._describe(image), "matched": self._describe(sentence), "text": text}
