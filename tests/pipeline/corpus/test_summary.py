from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.corpus.summary import summarize
from pipeline.corpus.version import Corpus
from tests.pipeline.small_corpus import write


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write(str(tmp_path_factory.mktemp("corpus")))


def said(corpus: Corpus, **counts: int) -> dict[str, str]:
    """The summary's lines by what stands in their first column, with counts of the manifest changed (phase__name)."""
    changed = {name.replace("__", "."): count for name, count in counts.items()}
    opened = Corpus(corpus.storage.url)
    opened.manifest = replace(opened.manifest, counts={**opened.manifest.counts, **changed})
    lines = list(summarize(opened, seconds=3))
    return {line[2:19].strip(): line[19:] for line in lines[1:]} | {"all": "\n".join(lines)}


def test_pictures_in_the_shards_and_urls_that_were_asked_for_are_counted_apart(corpus: Corpus) -> None:
    lines = said(corpus, images__images=1177, images__images_ok=175)
    matched = "matched 67% by markup, 33% by similarity; captions matched to their own 2 of 2 (100%)"
    assert lines["images"] == f"3 in the shards, {matched}; 1,177 distinct URLs asked for, 175 gave a picture"


def test_one_is_not_several(corpus: Corpus) -> None:
    again = f"python -m pipeline.build --spec SPEC --out {corpus.storage} --retry-failed"
    one = said(corpus, choose__near_duplicate=1, choose__copies_kept=1)
    assert one["duplicates"] == "1 near-duplicate dropped, 0 of the same URL, 0 of the same text, for 1 document kept"
    assert f"\n  1 fetch or row failed in a way that may pass; try again with {again}\n" in one["all"]
    assert one["shards"].startswith("1 file, ")
    two = said(corpus, choose__near_duplicate=2, choose__copies_kept=2, pages__retryable=2)
    assert two["duplicates"].startswith("2 near-duplicates dropped,") and "for 2 documents kept" in two["duplicates"]
    assert f"\n  2 fetches and rows failed in a way that may pass; try again with {again}\n" in two["all"]


def test_a_corpus_without_a_held_out_part_says_how_to_get_one(corpus: Corpus) -> None:
    remedy = "nothing is held out: raise shard.held_out_fraction"
    assert said(corpus, shards__held_out=0)["documents"].endswith(f"(0 held out); {remedy}")
    assert said(corpus, shards__held_out=1)["documents"].endswith("(1 held out)")
    assert said(corpus, shards__held_out=0, shards__documents=0)["documents"].endswith("(0 held out)")


def test_a_split_that_drops_much_is_a_warning(corpus: Corpus) -> None:
    assert "leak" not in said(corpus, kept__leaking=10, kept__documents=90)["all"]
    assert (
        "\n  warning: 11 documents, 11% of what was left, would leak "
        in said(corpus, kept__leaking=11, kept__documents=89)["all"]
    )
