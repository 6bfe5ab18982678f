"""The demo on its three real sites: from nothing, with a step of training, and again with nothing to do."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from pipeline.corpus import Corpus
from tests.end_to_end.builds import run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_from_nothing_and_again(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    arguments = ("pipeline.demo", "--out", str(out), "--port", str(free_port()), "--steps", "2")
    first = run(*arguments, timeout=1400).check()
    assert "corpus demo, version" in first.out and "report" in first.out
    corpus = Corpus(str(out))
    counts = corpus.manifest.counts
    assert counts["documents.pages_fetched"] == 462, "sasview 304, pygame 76, pygame-ce 82"
    assert counts["shards.documents"] > 100 and counts["shards.images"] > 200
    assert counts["shards.matched_images"] == counts["shards.images"]
    assert counts["clusters.near_duplicates"] >= 3
    assert counts["shards.negatives"] > 3000
    evaluation = json.loads((out / "train" / "evaluation.json").read_text())
    assert {"before", "after"} <= set(evaluation)
    page = (out / "versions" / corpus.version / "report" / "index.html").read_text()
    assert "Structure loss" in page
    shards = {part.name: part.hash for part in corpus.manifest.shards}

    began = time.monotonic()
    again = run(*arguments, timeout=600).check()
    assert again.out.count("nothing to do") == 2, "the build and the training"
    assert {part.name: part.hash for part in Corpus(str(out)).manifest.shards} == shards
    assert time.monotonic() - began < 60
