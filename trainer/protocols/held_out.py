"""Held-out evaluation: perplexity, retrieval three ways, label-alignment error, one picture's generated text.

Label-alignment error is the structure loss's distance on those documents: how far cosines of retrieval vectors of
drawn positions are from their labels, by the recipe's own objective.

Only documents whose shard says split = "held_out" are read: whole near-duplicate clusters, none of whose pictures is in
training, so nothing here was seen there. What is asked, and what is right, comes from the pages alone
(trainer/protocols/questions.py) and is the same for every model. image_to_sentence and sentence_to_image use a picture
or a text by itself; context_to_image asks, from the state of the sentence before an image, for that image among all
pictures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from schemas.keys import digest
from trainer.data.collate import PackedSequence, pack, segment_sequence, text_sequence, view_sequence
from trainer.data.features import ImageSource
from trainer.data.gold import gold_pairs
from trainer.data.layout import Vocabulary, sentence_ids
from trainer.data.pack_plan import seeded
from trainer.data.positions import PositionBuilder
from trainer.data.rows import Row
from trainer.data.shards import ShardCorpus
from trainer.errors import CorruptRecordError, NotFiniteError
from trainer.model.interleaved import InterleavedForCausalLM
from trainer.model.writing import write
from trainer.objective.labels import label_lengths, label_rows, pair_weights
from trainer.objective.structure import similarity_statistics
from trainer.parallel.ranks import Ranks
from trainer.parallel.stop import Stop
from trainer.protocols.questions import Direction, Item, Questions, ask
from trainer.protocols.retrieval_metrics import chance, claim_against_chance, intervals, standings, summarize
from trainer.protocols.significance import mean_interval
from trainer.recipe import Recipe

Tensor = torch.Tensor

READ = 4  # times the queries: pictures whose documents are read for questions


@dataclass(frozen=True)
class HeldOut:
    """What is evaluated: the same before and after training, chosen by the corpus and the recipe alone."""

    segments: tuple[Row, ...]  # for perplexity and context states, up to the recipe's tokens
    questions: Questions
    documents: int
    tokens: int


def choose(corpus: ShardCorpus, rows: Sequence[Row], recipe: Recipe) -> HeldOut:
    """Segments and questions of the held-out rows, in an order drawn from the document ids."""
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
    most = recipe.evaluation.queries
    read = {row.document for row in segments}
    pictures = 0
    for row in held:
        if pictures < READ * most:
            read.add(row.document)
            pictures += row.images
    documents = [index for index in dict.fromkeys(row.document for row in held) if index in read]
    return HeldOut(tuple(segments), ask(corpus, documents, segments, most), len({row.document for row in held}), tokens)


@dataclass
class Evaluator:
    """Everything an evaluation needs; `run` may be called as often as wished.

    The ranks share the packs and meet after every one, so that none waits long for another, or misses a stop.
    """

    corpus: ShardCorpus
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
        spent, contexts, drawn, builder = self._segments(model)
        result: dict[str, Any] = {
            "questions": self.questions["digest"],
            "held_out_documents": self.held_out.documents,
            "perplexity": self._perplexity(spent),
            "retrieval": self._retrieval(model, contexts),
            "generation": self._generate(model) if self.peers.first else None,
            "label_alignment": self._label_alignment(builder, drawn),
        }
        model.train(training)
        return result

    @cached_property
    def questions(self) -> dict[str, Any]:
        """What is asked and what is right as plain JSON values: figures of two runs compare where `digest` is equal."""
        segments = [
            [row.document_id, row.segment.first, row.segment.last, row.tokens] for row in self.held_out.segments
        ]
        found = {**self.held_out.questions.stored(self.corpus), "segments": segments}
        return {"digest": digest(json.dumps(found, sort_keys=True)), **found}

    def _autocast(self) -> torch.autocast:
        """Around the model's own work alone: bfloat16 cosines would round different scores to ties."""
        return torch.autocast(self.peers.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _groups(
        self, sequences: Sequence[PackedSequence], pages: Sequence[int]
    ) -> list[tuple[int, list[PackedSequence]]]:
        """(page, sequences) in order, as many of one page to a pack as fit."""
        groups: list[tuple[int, list[PackedSequence]]] = []
        room = 0
        for sequence, page in zip(sequences, pages, strict=True):
            size = len(sequence.encoded.ids)
            if not groups or size > room or page != groups[-1][0]:
                groups.append((page, []))
                room = max(self.recipe.data.pack_tokens, size)
            groups[-1][1].append(sequence)
            room -= size
        return groups

    def _vectors(
        self, model: InterleavedForCausalLM, sequences: Sequence[PackedSequence], pages: Sequence[int]
    ) -> tuple[dict[int, tuple[float, int]], Tensor]:
        """((summed cross-entropy, targets) by page, retrieval vectors in order) of sequences of these pages."""
        groups, world = self._groups(sequences, pages), self.peers.world
        mine: list[tuple[float, int, Tensor]] = []
        for first in range(0, len(groups), world):
            problem: Exception | None = None
            try:
                for _, group in groups[first + self.peers.rank : first + self.peers.rank + 1]:
                    tensors = pack(group, self.vocabulary, self.images)
                    with self._autocast():
                        output = model.forward_packed(tensors.to(self.peers.device))
                    mine.append((float(output.loss_sum), len(tensors.target_ids), output.retrieval.cpu()))
            except CorruptRecordError as error:
                problem = error
            self.stop.agree(problem)
        by_rank = self.peers.gather(mine)
        found = [by_rank[number % world][number // world] for number in range(len(groups))]
        spent: dict[int, tuple[float, int]] = {}
        for (page, _), (loss, targets, _) in zip(groups, found, strict=True):
            before = spent.get(page, (0.0, 0))
            spent[page] = (before[0] + loss, before[1] + targets)
        vectors = torch.cat([torch.zeros(0, self.recipe.model.retrieval_dim), *(rows for _, _, rows in found)])
        if not all(math.isfinite(loss) for loss, _ in spent.values()) or not bool(vectors.isfinite().all()):
            # Of all ranks' packs, so every rank raises.
            raise NotFiniteError("on held-out documents the model gives numbers that are not finite")
        return spent, vectors

    @property
    def _limit(self) -> int:
        return self.recipe.data.document_tokens - 2

    def _segments(
        self, model: InterleavedForCausalLM
    ) -> tuple[dict[int, tuple[float, int]], Tensor, Tensor, PositionBuilder]:
        """((loss, targets) by page, vectors of contexts, vectors of drawn positions, those positions)."""
        asked: dict[tuple[int, int], int] = {}
        for number, item in enumerate(self.held_out.questions.contexts):
            asked[item.document, item.slice] = number
        sequences, pages, order = [], [], []
        builder = PositionBuilder(self.recipe.objective)
        is_drawn: list[bool] = []
        for row in self.held_out.segments:
            document = self.corpus.document(row.document)
            inside = range(row.segment.first, row.segment.last)
            contexts = [place for place in inside if (row.document, place) in asked]
            drawn = builder.add(document, row, (), self.recipe.seed, 0)
            order += [asked[row.document, place] for place in contexts]
            is_drawn += [False] * len(contexts) + [True] * len(drawn)
            sequences.append(segment_sequence(document, row, self.vocabulary, self._limit, (*contexts, *drawn)))
            pages.append(self.held_out.questions.page_of[row.document])
        spent, vectors = self._vectors(model, sequences, pages)
        chosen = torch.tensor(is_drawn, dtype=torch.bool)
        return spent, vectors[~chosen][torch.tensor(order, dtype=torch.int64).argsort()], vectors[chosen], builder

    def _perplexity(self, spent: dict[int, tuple[float, int]]) -> dict[str, Any]:
        """exp of the mean loss of a target with its interval over pages, and each page's sums."""
        by_page = [pair for _, pair in sorted(spent.items()) if pair[1]]
        losses, targets = [loss for loss, _ in by_page], [count for _, count in by_page]
        loss = sum(losses) / sum(targets) if targets else None
        low, high = mean_interval(np.asarray(losses, dtype=np.float64), np.asarray(targets, dtype=np.float64))
        return {
            "loss": loss,
            "perplexity": None if loss is None else _exp(loss),
            "interval": [_exp(low), _exp(high)],
            "target_tokens": sum(targets),
            "segments": len(self.held_out.segments),
            "page_losses": losses,
            "page_targets": targets,
        }

    def _label_alignment(self, builder: PositionBuilder, vectors: Tensor) -> dict[str, Any]:
        """Statistics of similarities and labels as of a training step; `label_error` is the label-alignment error."""
        objective = self.recipe.objective
        positions, slices = builder.finish()
        labels = label_rows(positions, 0, len(positions), slices, objective, self.recipe.seed)
        weights = pair_weights(positions, objective)
        pairs = int(weights.sum() - weights.diagonal().sum())
        found = similarity_statistics(vectors, 0, labels, weights, label_lengths(positions, objective)) if pairs else {}
        return {"positions": len(positions), "pairs": pairs, **found}

    def _bare(self, model: InterleavedForCausalLM, items: Sequence[Item], pictures: bool) -> Tensor:
        sequences = [
            view_sequence(self.corpus.document(item.document), item.slice, self.vocabulary, self._limit)
            if pictures
            else text_sequence(item.content, self.vocabulary, self._limit)
            for item in items
        ]
        return self._vectors(model, sequences, [0] * len(items))[1]

    def _retrieval(self, model: InterleavedForCausalLM, contexts: Tensor) -> dict[str, Any]:
        questions = self.held_out.questions
        vectors = {
            "pictures": self._bare(model, questions.pictures, True),
            "texts": self._bare(model, questions.texts, False),
            "contexts": contexts,
        }
        return {name: self._direction(name, found, vectors) for name, found in questions.directions.items()}

    def _direction(self, name: str, direction: Direction, vectors: dict[str, Tensor]) -> dict[str, Any]:
        candidates, pages = vectors[direction.among], direction.pages
        queries = vectors[direction.asks][list(direction.queries)]
        found = standings(queries, candidates, direction.right)
        tested = claim_against_chance(found, len(candidates), pages, self.recipe.evaluation.minimum_queries)
        return {
            "direction": name,
            "n": len(found),
            "candidates": len(candidates),
            "pages": len(set(pages)),
            **asdict(summarize(found, len(candidates))),
            "intervals": asdict(intervals(found, len(candidates), pages)),
            "chance": asdict(chance([len(answers) for answers in direction.right], len(candidates))),
            "ahead": asdict(tested),
            "claim": tested.claim,
            "ranks": [one.rank for one in found],
            "aheads": [one.ahead for one in found],
            "examples": self._examples(direction, queries @ candidates.T, [one.rank for one in found]),
        }

    def _examples(self, direction: Direction, scores: Tensor, ranks: Sequence[float]) -> list[dict[str, Any]]:
        """Some queries with their best answers, the same ones every time."""
        questions = self.held_out.questions
        asked = [questions.items(direction.asks)[query] for query in direction.queries]
        order = sorted(range(len(asked)), key=lambda i: (seeded("example", asked[i].document, asked[i].content), i))
        examples = []
        for query in order[: self.recipe.evaluation.examples]:
            row, right = scores[query].tolist(), direction.right[query]
            best = sorted(range(len(row)), key=lambda i: (-row[i], i))[:5]
            answers = questions.items(direction.among)
            examples.append(
                {
                    "query": self._describe(asked[query], direction.asks == "pictures"),
                    "rank": ranks[query],
                    "right": len(right),
                    "top": [
                        {
                            **self._describe(answers[i], direction.among == "pictures"),
                            "score": round(row[i], 4),
                            "right": i in right,
                        }
                        for i in best
                    ],
                }
            )
        return examples

    def _describe(self, item: Item, is_picture: bool) -> dict[str, Any]:
        document = self.corpus.document(item.document)
        found: dict[str, Any] = {"document_id": document.document_id, "url": document.url, "slice": item.slice}
        if is_picture:
            return {**found, "kind": "image", "image": document.image_of(item.slice), "sha256": item.content}
        return {**found, "kind": "sentence", "text": item.content[:300]}

    def _generate(self, model: Any) -> dict[str, Any] | None:
        """Greedy text after one held-out picture, the first asked about, beside what its page says of it."""
        questions = self.held_out.questions
        if not questions.pictures:
            return None
        picture = questions.pictures[0]
        document = self.corpus.document(picture.document)
        place = picture.slice
        ids = sentence_ids(document, place, self.vocabulary, self._limit)
        pictures, _ = self.images.image(document, document.image_of(place))
        with self._autocast():
            text = write(model, self.tokenizer, ids, pictures[None], self.recipe.evaluation.generated_tokens)
        said = [pair.text for pair in gold_pairs(document) if pair.image == place]
        return {"image": self._describe(picture, True), "said": said[:1], "text": text}


def _exp(loss: float) -> float:
    """exp of a loss, finite for the losses of broken models, NaN for NaN."""
    return math.exp(50.0 if loss > 50.0 else loss)
