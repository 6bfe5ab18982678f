from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.corpus import explanation as explaining
from pipeline.corpus.explanation import explain
from pipeline.corpus.version import Corpus
from pipeline.engine.mistake import UserMistake
from tests.pipeline.small_corpus import CONSENT, HOSTILE, SITE, VERSION, page, write


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write(str(tmp_path_factory.mktemp("corpus")))


def told(corpus: Corpus, url: str) -> str:
    return "\n".join(explain(corpus, url))


def test_a_kept_page_is_told_node_by_node(corpus: Corpus) -> None:
    text = told(corpus, f"{SITE}/cats")
    assert text.startswith(f"{SITE}/cats\n  crawl: HTTP 200, text/html, 1 link from the seeds\n")
    assert "extract: 2 paragraphs and 2 images" in text
    assert (
        f"result: in versions/{VERSION}/shards/train-00000-of-00001.arrow, row 0, train: 1 image (1 with a sentence)"
        in text
    )
    assert "   0 paragraph: kept\n       A tabby cat sleeps." in text
    assert "   1 image: kept, matched to a sentence, cosine 0.31" in text
    assert "   2 paragraph: dropped, too few or too many words: 2, accepted 4 to 1,000 [num_words]" in text
    assert "   3 image: dropped, too long and thin: 4.2, accepted 0.5 to 2 [aspect_ratio]" in text
    assert "image left out by extract: names no file [no_source]" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "/dogs-copy",
            "duplicates: dropped, nearly the same text as another page: 0.93, accepted at most 0.7 "
            f"[near_duplicate]; kept is {SITE}/dogs",
        ),
        ("/dogs-copy", "   0 paragraph: went with its document"),
        ("/old", "text filters: dropped, too few or too many pictures left: 0, accepted 1 to 30 [num_images]"),
        (
            "/private",
            "crawl: not used, refused by the site's robots.txt (Disallow: /private), by http://site.test/robots.txt",
        ),
        ("/private", "result: no document was made of it"),
        ("/down", "failed, the server answered with an error status (HTTP 503); may pass when it is tried again"),
    ],
)
def test_each_way_out_is_named(corpus: Corpus, path: str, said: str) -> None:
    assert said in told(corpus, f"{SITE}{path}")


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("http://site.test/robots.txt connection", "the connection was refused or broke"),
        ("http://site.test/robots.txt 503", "HTTP 503"),
    ],
)
def test_a_robots_file_that_is_out_of_reach_is_no_refusal(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, source: str, cause: str
) -> None:
    row = page(
        "/private",
        "refused",
        reason="robots",
        retryable=True,
        detail=f"{source}: nobody could say",
        consent={**CONSENT, "robots_allowed": False, "robots_source": source},
    )
    found = explaining._find
    monkeypatch.setattr(
        explaining, "_find", lambda corpus, phase, *rest: [row] if phase == "pages" else found(corpus, phase, *rest)
    )
    text = told(corpus, f"{SITE}/private")
    assert (
        f"  crawl: not used, robots.txt could not be reached (http://site.test/robots.txt: {cause}), and without its "
        "word nothing may be fetched (RFC 9309); may pass when it is tried again\n"
    ) in text
    assert "refused by" not in text and "nobody could say" not in text


def test_what_was_said_of_use_is_told_with_what_decided(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    signals = [{"signal": "content_signal", "said": "Content-Signal: search=yes"}]
    decided = {"decided_by": "ai_txt", "decided_rule": "Disallow: *.html", "decided_source": f"{SITE}/ai.txt 200"}
    said = {"x_robots_tag": "otherbot: noai\nnoarchive", "signals": signals, "license": f"{SITE}/terms"}
    row = page("/private", "refused", reason="ai_txt", detail="x", consent={**CONSENT, **decided, **said})
    found = explaining._find
    monkeypatch.setattr(
        explaining, "_find", lambda corpus, phase, *rest: [row] if phase == "pages" else found(corpus, phase, *rest)
    )
    lines = [line for line in told(corpus, f"{SITE}/private").splitlines() if line.startswith("  consent: ")]
    assert lines == [
        f"  consent: decided by Disallow: *.html [ai_txt], {SITE}/ai.txt 200",
        "  consent: told X-Robots-Tag: otherbot: noai; X-Robots-Tag: noarchive; Content-Signal: search=yes",
        f"  consent: licence {SITE}/terms",
    ]
    monkeypatch.undo()
    assert "consent:" not in told(corpus, f"{SITE}/cats")


def test_a_page_is_found_by_every_address_it_has(corpus: Corpus) -> None:
    assert told(corpus, f"{SITE}/moved").startswith(f"{SITE}/old\n")
    assert told(corpus, f"{SITE}/canonical-cats") == told(corpus, f"{SITE}/cats")
    assert told(corpus, "HTTP://Site.Test:80/x/../cats#part") == told(corpus, f"{SITE}/cats")


def test_an_image_is_told_with_every_place_it_stands_in(corpus: Corpus) -> None:
    kept = told(corpus, f"{SITE}/img/1.jpg")
    assert "fetched: jpeg, 480 x 320 pixels" in kept and "shown by 2 documents" in kept
    assert f"in {SITE}/dogs, node 1\n       in versions/{VERSION}/shards/train-00000-of-00001.arrow, row 1" in kept
    assert f"in {SITE}/dogs-copy, node 1\n       went with its document: duplicates" in kept
    assert "image filters: dropped, too long and thin: 4.2" in told(corpus, f"{SITE}/img/3.jpg")


def test_an_image_that_extraction_left_out_is_told_of(corpus: Corpus) -> None:
    lines = list(explain(corpus, HOSTILE))
    assert lines[1:] == [f"  in {SITE}/cats: left out by extract: names no file [no_source]"]


def test_an_unknown_url_names_the_nearest(corpus: Corpus) -> None:
    with pytest.raises(UserMistake, match=rf"the nearest known are {SITE}/cats"):
        told(corpus, f"{SITE}/cat")
    with pytest.raises(UserMistake, match=r"neither a page nor an image of this corpus$"):
        told(corpus, "zzz")


@pytest.mark.slow
def test_the_command_says_it_in_one_line_and_exits_2(corpus: Corpus) -> None:
    command = [sys.executable, "-m", "pipeline.explain", "--corpus", corpus.storage.url]
    root = Path(__file__).parents[2]
    good = subprocess.run([*command, "--url", f"{SITE}/dogs"], cwd=root, capture_output=True, text=True, check=False)
    assert good.returncode == 0 and good.stdout.startswith(
        f"version {VERSION}, built 2026-01-02T03:04:05Z\n{SITE}/dogs\n"
    )
    assert "kept, matched to a sentence, cosine 0.28" in good.stdout
    bad = subprocess.run([*command, "--url", f"{SITE}/dog"], cwd=root, capture_output=True, text=True, check=False)
    assert bad.returncode == 2 and bad.stdout == ""
    assert bad.stderr.startswith("error: --url ") and bad.stderr.count("\n") == 1
