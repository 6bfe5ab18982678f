"""The demo on its three real sites: from nothing, with a step of training, and again with nothing to do."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from pipeline.corpus.version import Corpus
from pipeline.demo.__main__ import SITES
from tests.end_to_end.builds import ROOT, environment, run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_from_nothing_and_again(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    port = free_port()
    arguments = ("pipeline.demo", "--out", str(out), "--port", str(port), "--steps", "2")
    seeds = ", ".join(f"http://127.0.0.1:{port}/{name}/index.html" for name in SITES)
    too_early = ("--spec", "specs/demo.yaml", "--out", str(out), "--set", f"source.seeds=[{seeds}]")
    assert "not one page could be read" in run("pipeline.build", *too_early).failed(1)
    first = run(*arguments, timeout=1400).check()
    assert "once more, asking again for what could not be fetched" in first.out
    assert "corpus demo, version" in first.out and "report" in first.out
    corpus = Corpus(str(out))
    counts = corpus.manifest.counts
    assert counts["documents.pages_fetched"] == 462, "sasview 304, pygame 76, pygame-ce 82"
    # Which documents would leak, and are dropped, follows ids, and those the port.
    assert counts["shards.documents"] > 90 and counts["shards.images"] > 150
    assert counts["shards.matched_images"] == counts["shards.images"]
    assert counts["choose.near_duplicate"] >= 3
    assert counts["shards.negatives"] > 2500
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


def test_the_sites_are_served_for_builds_of_ones_own() -> None:
    port = free_port()
    command = [sys.executable, "-m", "pipeline.demo", "--serve", "--port", str(port)]
    # Where tests run in the background of a shell, Ctrl-C is ignored, and children inherit that.
    server = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert server.stdout is not None
        while (line := server.stdout.readline()) and "until you press Ctrl-C" not in line:
            pass
        assert f"http://127.0.0.1:{port}/" in line
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/sasview/index.html", timeout=10) as page:
            assert page.status == 200
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0
