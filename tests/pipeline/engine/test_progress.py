from __future__ import annotations

import io

from pipeline.corpus.words import drop_words, row_words
from pipeline.engine.progress import Progress
from pipeline.phases.graph import graph
from pipeline.spec.loading import parse
from tests.pipeline.small_corpus import SPEC


def test_a_finished_phase_says_what_it_counts() -> None:
    stream = io.StringIO()
    words = {"rows_are": row_words, "drops_are": drop_words}
    with Progress(lambda phase: [0, 0, 0], stream, live=False, **words) as progress:
        progress.end("documents", 1, 12, 3.25)
        progress.end("paragraphs", 11614, 0, 0.2)
        progress.end("edges", 1, 0, 0.1, "2 remembered")
        progress.cached("images", 33)
    assert [" ".join(line.split()) for line in stream.getvalue().splitlines()] == [
        "documents 1 document 3.2 s 12 dropped (pages, paragraphs, images)",
        "paragraphs 11,614 repeated paragraphs 0.2 s",
        "edges 1 pair of documents 0.1 s 2 remembered",
        "images 33 image URLs unchanged",
    ]


def test_phases_that_words_speak_of_exist() -> None:
    names = {phase.name for phase in graph(parse("small", SPEC))}
    others = {name for name in names if row_words(name, 2) != "documents"}
    near = {"edges", "candidate_pairs", "similarities"}
    pictures = {"fetched_images", "images", "shared_pictures"}
    assert others == {"pages", "paragraphs", *near, *pictures, "border", "embeddings", "pairs"}
    assert all(row_words(name, 1) != row_words(name, 2) for name in names)
    assert {"documents", "text", "passed", "choose", "kept", "pairs"} <= {name for name in names if drop_words(name)}
