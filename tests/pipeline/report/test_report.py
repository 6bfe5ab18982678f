from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from pipeline.corpus.version import Corpus
from pipeline.corpus.words import bounds_words, counted, curve_words, duration, guard_words, number, rule_words
from pipeline.report import charts, write_report
from pipeline.report.collect import collect
from pipeline.report.data import Chart, Curve, Direction, Histogram, Ranks, ReportData, Retrieval, Retrieved, Thread
from pipeline.report.gallery import MISSES
from pipeline.report.pictures import thumbnail
from pipeline.report.render import render
from pipeline.report.scores import SCALES, Score, draw
from tests.pipeline.small_corpus import HOSTILE, SITE, VERSION, picture, write
from tests.servers import static_site

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write(str(tmp_path_factory.mktemp("corpus")))


@pytest.fixture(scope="module")
def data(corpus: Corpus) -> ReportData:
    return replace(
        collect(corpus),
        charts=[
            Chart(
                "Loss",
                "nats",
                [Curve("generative", [(0, 3.0), (10, 2.0)]), Curve(HOSTILE, [(0, 1.0), (10, float("nan"))])],
            )
        ],
        retrieval=[
            Direction(
                HOSTILE,
                54,
                53,
                HOSTILE,
                [
                    Ranks("chance", 27.5, 0.08, {"1": 0.02, "5": None}),
                    Ranks(
                        HOSTILE, None, None, {"1": 1.0, "5": 1.0}, (12.5, 118), (0.02, 0.31), {"1": (0, 1), "5": None}
                    ),
                ],
                [
                    Retrieval(
                        HOSTILE,
                        None,
                        [Retrieved("a", thumbnail(picture(1), 90), 0.4, True), Retrieved(HOSTILE, None, 0.2, False)],
                    )
                ],
                27,
            )
        ],
    )


class Elements(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_corpus_becomes_numbers_rules_and_documents(data: ReportData) -> None:
    assert [(step.label, step.count) for step in data.steps] == [
        ("pages asked for", 6),
        ("pages read", 4),
        ("documents", 4),
        ("text passed", 3),
        ("pictures passed", 3),
        ("without copies", 2),
        ("without leaks", 2),
        ("in the shards", 2),
    ]
    assert [(row.phase, row.kind, row.rule, row.action, row.dropped) for row in data.funnel] == [
        ("documents", "image", "no_source", "drop", 1),
        ("documents", "page", "http_status", "drop", 1),
        ("documents", "page", "robots", "refuse", 1),
        ("text", "document", "num_images", "drop", 1),
        ("text", "paragraph", "num_words", "drop", 1),
        ("passed", "image", "aspect_ratio", "drop", 1),
        ("choose", "document", "near_duplicate", "drop", 1),
    ]
    assert ("3", "images") in data.figures and ("67%", "images matched by markup, its own caption") in data.figures
    assert ("2 of 2 (100%)", "images with a caption, matched to it") in data.figures
    assert {document.title for document in data.documents} == {HOSTILE, "Dogs"}
    assert data.built == "2026-01-02 03:04:05 UTC" and "min_similarity: 0.15" in data.spec
    assert [(guard.guard, guard.pairs) for guard in data.guards] == [("cluster", 4)]
    (note,) = data.notes
    assert note.startswith(
        "1 fetch or row failed in a way that may pass. To try again: python -m pipeline.build --spec "
    )
    assert note.endswith(" --retry-failed")


def test_scores_show_what_was_kept_and_what_a_rule_dropped_with_its_bounds(data: ReportData) -> None:
    by_title = {chart.title: chart for chart in data.histograms}
    pair = by_title["An image and its sentence"]
    assert (sum(pair.kept), pair.low) == (3, 0.15)
    assert sum(by_title["An image and the other sentences"].kept) == 3
    shape = by_title["Shape of an image"]
    assert (sum(shape.kept), sum(shape.dropped), shape.low, shape.high) == (3, 1, 0.5, 2.0)
    words = by_title["Words of a paragraph"]
    assert (sum(words.kept), sum(words.dropped), words.low, words.high) == (2, 1, 4.0, 1000.0)
    assert sum(by_title["Function words in a paragraph"].kept) == 2 and sum(by_title["Words of a document"].kept) == 2
    near = by_title["A dropped document and the nearest to it"]
    assert (sum(near.dropped), near.high) == (1, 0.7)
    images = by_title["Images of a document"]
    assert (sum(images.kept), sum(images.dropped)) == (2, 1)


def test_the_gallery_has_pairs_and_their_near_misses(data: ReportData) -> None:
    dogs = next(document for document in data.documents if document.title == "Dogs")
    paragraph, first, second = dogs.blocks
    assert [(span.text, span.match) for span in paragraph.spans] == [
        ("A dog runs over the meadow.", 1),
        (" ", None),
        (HOSTILE, 2),
    ]
    assert (first.match, second.match) == (1, 2) and first.similarity == pytest.approx(0.28)
    assert first.size == "240 × 160, was 480 × 320" and first.picture is not None
    assert [near.text for near in first.misses.sentences] == ["It dreams of mice."]
    assert [near.url for near in first.misses.pictures] == [f"{SITE}/cats"] and first.misses.pictures[0].picture
    assert (first.misses.sentences_mined, first.misses.pictures_mined) == (1, 1)
    assert dogs.threads == [
        Thread("sentence", 6, 1),
        Thread("sentence", 7, 2),
        Thread("image", 0, 1),
        Thread("image", 0, 2),
    ]
    (cluster,) = data.clusters
    (copy,) = cluster.copies
    assert (cluster.kept_url, copy.url, copy.value) == (f"{SITE}/dogs", f"{SITE}/dogs-copy", 0.93)
    assert (
        copy.pictures == "1 picture, 1 of them the same" and copy.rule == "" and data.more_clusters == cluster.more == 0
    )
    (row,) = copy.comparison.rows
    assert [(piece.text, piece.changed) for piece in row.right] == [
        ("A dog runs over the meadow.", False),
        ("It barks.", True),
    ]
    assert row.left[0].text == "A dog runs over the meadow." and row.left[1].changed


def test_samples_tell_where_and_show_dropped_pictures(data: ReportData) -> None:
    by_rule = {item.rule: item for item in data.samples}
    words = by_rule["num_words"].samples[0]
    assert (words.subject, words.detail, words.value) == (f"{SITE}/cats", "Buy now!", 2.0)
    copy = by_rule["near_duplicate"].samples[0]
    assert copy.detail == f"kept {SITE}/dogs"
    assert by_rule["aspect_ratio"].samples[0].picture is not None


def test_words_of_pages_are_escaped_and_nothing_is_requested(data: ReportData) -> None:
    page = render(data)
    elements = Elements(page)
    assert page.count("<script") == 0 and elements.text.count("<script>alert(1)</script>") >= 8
    for tag, attributes in elements.found:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert tag not in ("script", "iframe", "object", "embed", "form")
        for name in ("src", "srcset", "poster", "data", "background", "action"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
        if "href" in attributes:
            allowed = r"#|https?://" if tag == "a" else r"data:,$"
            assert re.match(allowed, attributes["href"] or ""), (tag, attributes)
    assert "url(" not in re.sub(r'"data:[^"]*"', "", page) and "@import" not in page
    assert (
        "meta",
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    ) in [(tag, attributes.get("content")) for tag, attributes in elements.found]


def test_a_script_behind_a_link_is_no_link(data: ReportData) -> None:
    bad = replace(data.documents[0], url="javascript:alert(1)")
    page = render(replace(data, documents=[bad]))
    assert "javascript:alert(1)" in page and 'href="javascript' not in page


def test_every_section_is_linked_and_empty_ones_are_left_out(data: ReportData) -> None:
    elements = Elements(render(data))
    ids = [attributes["id"] for tag, attributes in elements.found if tag == "section"]
    links = [
        attributes["href"]
        for tag, attributes in elements.found
        if tag == "a" and (attributes["href"] or "").startswith("#")
    ]
    assert [f"#{name}" for name in ids] == links and len(ids) == 11
    nothing = ReportData("empty", "v", "", 0, [], [], [], [], [], [], [], [], [], "")
    assert [tag for tag, _ in Elements(render(nothing)).found if tag == "section"] == []


def test_a_link_bears_the_heading_that_it_leads_to(data: ReportData) -> None:
    page = render(data)
    links = dict(re.findall(r'<a href="#(\w+)">([^<]+)</a>', page))
    headings = dict(re.findall(r'<section id="(\w+)">\s*<h2>([^<]+)</h2>', page))
    assert links == headings and len(links) == 11


def test_near_misses_that_are_not_shown_are_told_of(data: ReportData) -> None:
    assert not re.search(r"the nearest \d", render(data))
    assert re.findall(r"the nearest \d+ of \d+", render(with_many_misses(data))) == ["the nearest 6 of 8"]


def test_words_of_the_programs_own_are_not_shown(data: ReportData) -> None:
    curves = [Curve(name, [(0, 3.0), (10, 2.0)]) for name in ("loss", "effective_rank")]
    page = render(replace(data, charts=[Chart("Vectors", "dimensions", curves)]))
    text = Elements(page).text
    # A page refused by robots.txt is there; its rule says so already.
    assert ("page", "refuse") in [(row.kind, row.action) for row in data.funnel] and ">refuse<" not in page
    assert "effective rank" in text and "effective_rank" not in text and "near 1 all are alike" in text
    assert ">steps</text>" in page and ("machine", "2 CPUs, no GPU") in data.facts
    assert "its document has nearly the same text" in text
    assert "6 pages" in text and "3 documents" in text


def with_many_misses(data: ReportData) -> ReportData:
    """The first pair of the dogs with as many near misses as a page shows at most, and a large number dropped."""
    documents = []
    for document in data.documents:
        blocks = list(document.blocks)
        if document.title == "Dogs":
            misses = blocks[1].misses
            blocks[1] = replace(
                blocks[1], misses=replace(misses, pictures=list(misses.pictures) * MISSES, pictures_mined=8)
            )
        documents.append(replace(document, blocks=blocks))
    samples = [replace(item, dropped=1234567) for item in data.samples]
    return replace(data, documents=documents, samples=samples)


@pytest.mark.slow
def test_the_page_stays_under_its_size(data: ReportData) -> None:
    many = replace(data, documents=list(data.documents) * 20)
    assert len(render(many).encode()) > 250_000
    small = render(many, max_bytes=250_000)
    assert len(small.encode()) <= 250_000
    assert "of the gallery are left out to keep this page under 0.25 MB" in small
    assert Elements(small).found.count(("article", {"class": "document"})) >= 1


@pytest.mark.slow
def test_the_same_corpus_gives_the_same_page(corpus: Corpus) -> None:
    name = write_report(corpus)
    assert name == f"versions/{VERSION}/report/index.html"
    first = corpus.storage.read(name)
    write_report(corpus)
    assert corpus.storage.read(name) == first
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "pipeline.report", "--corpus", corpus.storage.url]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip() == corpus.storage.path(name)
    missing = subprocess.run([*command, "--version", "x"], cwd=root, capture_output=True, text=True, check=False)
    assert missing.returncode == 2 and missing.stderr == (
        f"error: --corpus {corpus.storage.url}: no version 'x'; there are: {VERSION}\n"
    )


def test_bars_end_at_the_bounds_and_count_everything() -> None:
    score = Score("s", "", "cosine")
    edges, _ = SCALES["cosine"]
    score.kept[1200:1500] = 2
    score.dropped[1100:1150] = 1
    drawn = draw(score, 0.15, None)
    assert drawn is not None and 0.15 in [pytest.approx(edge) for edge in drawn.edges]
    assert sum(drawn.kept) == 600 and sum(drawn.dropped) == 50 and len(drawn.kept) <= 60
    below = [i for i, edge in enumerate(drawn.edges[1:]) if edge <= 0.15 + 1e-9]
    assert sum(drawn.dropped[i] for i in below) == 50 and sum(drawn.kept[i] for i in below) == 0
    assert draw(Score("s", "", "size"), None, None) is None
    assert len(edges) == len(score.kept) + 1


@pytest.mark.parametrize("values", [[0.3], [-0.999, 0.999], [1.0, 1.0]])
def test_few_values_still_make_a_chart(values: list[float]) -> None:
    score = Score("s", "", "cosine")
    for value in values:
        score.kept[min(int((value + 1) * 1000), 1999)] += 1
    drawn = draw(score, None, None)
    assert drawn is not None and sum(drawn.kept) == len(values)
    assert "NaN" not in charts.histogram(drawn) and "nan" not in charts.histogram(drawn)


def test_a_chart_says_its_bounds_and_reads_aloud() -> None:
    svg = charts.histogram(Histogram(HOSTILE, "", [0, 1, 2], [3, 0], [0, 1], low=None, high=1.0))
    assert '<line class="bound"' in svg and ">1</text>" in svg and "<script" not in svg
    assert 'aria-label="&lt;script&gt;' in svg and "3 kept, 1 dropped" in svg


def test_one_of_a_thousand_can_be_seen() -> None:
    svg = charts.histogram(Histogram("", "", [0, 1, 2], [1000, 1], [0, 1]))
    heights = [float(tall) for tall in re.findall(r'class="(?:kept|lost)".*?height="([0-9.]+)"', svg)]
    assert len(heights) == 3 and min(heights) == charts.SHORTEST


def test_numbers_and_rules_in_words() -> None:
    assert [counted(n, "fetch", "fetches") for n in (0, 1, 2000)] == ["0 fetches", "1 fetch", "2,000 fetches"]
    assert guard_words("cluster") == "its document has nearly the same text"
    assert (curve_words("generative"), curve_words("a_new_one")) == ("next word", "a new one")
    assert [number(v) for v in (None, 0.0, 0.14999, 1234.0, 1234.5, 0.5)] == ["", "0", "0.15", "1,234", "1,234", "0.5"]
    assert bounds_words(0.5, 2) == "0.5 to 2" and bounds_words(None, 0.0) == "must not occur"
    assert [duration(v) for v in (0.44, 59, 200, 120, 7500)] == ["0.4 s", "59 s", "3 min 20 s", "2 min", "2 h 5 min"]
    assert rule_words("image", "aspect_ratio") == "too long and thin"
    assert rule_words("page", "a_new_rule") == "a new rule"


def test_pictures_that_cannot_be_drawn_are_none() -> None:
    small = thumbnail(picture(0), 80, "alt")
    assert (
        small is not None
        and (small.width, small.height) == (80, 53)
        and small.uri.startswith("data:image/jpeg;base64,")
    )
    assert (
        thumbnail(b"not a picture", 80) is None
        and thumbnail(picture(0)[:300], 80) is None
        and thumbnail(None, 80) is None
    )


@pytest.mark.slow
@pytest.mark.skipif(
    CHROMIUM is None and "INTERLOOM_REQUIRE_CHROMIUM" not in os.environ,
    reason="no Chromium on this machine: the page is not laid out",
)
@pytest.mark.parametrize("width", [390, 1300])
def test_a_browser_lays_it_out_without_overflow_and_draws_all_pictures(
    data: ReportData, tmp_path: Path, width: int
) -> None:
    # The page itself runs no script; the copy that measures it does, and asks the server for what it saw.
    probe = (
        "<script>addEventListener('load', () => { for (const d of document.querySelectorAll('details')) d.open = true;"
        "const images = [...document.images]; images.forEach(i => i.loading = 'eager');"
        "Promise.all(images.map(i => i.decode().catch(() => 0))).then(() => fetch('/seen?' + encodeURIComponent("
        "JSON.stringify({wide: document.documentElement.scrollWidth, window: innerWidth, "
        "height: document.body.scrollHeight, images: images.length, "
        "broken: images.filter(i => !i.naturalWidth).length, "
        "cut: [...document.querySelectorAll('.tray')].filter(t => t.scrollWidth > t.clientWidth).length, "
        "numbers: document.querySelectorAll('summary b').length, "
        "split: [...document.querySelectorAll('summary b')].filter(b => b.offsetHeight > 30).length })))) })</script>"
    )
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', probe, render(with_many_misses(data)), count=1)
    (tmp_path / "probe.html").write_text(page, encoding="utf-8")
    # A window of a headless browser is never as narrow as a phone; a frame is.
    frame = f'<iframe src="probe.html" style="width:{width}px;height:800px;border:0"></iframe>'
    (tmp_path / "frame.html").write_text(frame)
    with static_site(tmp_path) as site, open(tmp_path / "browser.log", "wb") as log:
        command = [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--no-proxy-server",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width + 200},900",
            f"{site.url}/frame.html",
        ]
        browser = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            until = time.monotonic() + 120
            while not (answers := [path for path in site.paths() if path.startswith("/seen?")]):
                words = (tmp_path / "browser.log").read_text(errors="replace")[-500:]
                assert browser.poll() is None and time.monotonic() < until, words
                time.sleep(0.05)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
    seen = json.loads(unquote(answers[0].removeprefix("/seen?")))
    assert seen["images"] >= 9 and seen["broken"] == 0
    assert seen["window"] == width and seen["wide"] <= width and seen["height"] > 2000
    assert seen["numbers"] >= 7 and seen["split"] == 0
    # On a phone the pictures are pushed along; where there is room, none is cut.
    assert (seen["cut"] > 0) == (width < 500)


def test_retrieval_is_shown_with_its_pages_and_intervals(tmp_path: Path) -> None:
    corpus = write(str(tmp_path / "out"))
    (tmp_path / "out" / "train").mkdir()
    item = {"document_id": "d", "url": "http://a/b", "slice": 1, "kind": "sentence", "text": "words of a page"}
    figures = {
        "n": 40,
        "candidates": 53,
        "pages": 27,
        "median_rank": 18.5,
        "mrr": 0.21,
        "recall": {"1": 0.1},
        "claim": "not distinguishable from chance",
        "intervals": {"median_rank": [12.0, 24.5], "mrr": [0.11, 0.32], "recall": {"1": [None, None]}},
        "chance": {"median_rank": 27.0, "mrr": 0.08, "recall": {"1": 0.02}},
        "examples": [{"query": item, "rank": 2, "top": [{**item, "score": 0.4, "right": True}]}],
    }
    evaluation: dict[str, Any] = {
        "after": {"retrieval": {"context_to_image": figures}},
        "change": {"context_to_image": {"claim": "no change that the pages can show"}},
        "run": {"corpus": {"version": VERSION}},
    }
    (tmp_path / "out" / "train" / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    text = render(collect(corpus))
    assert "40 queries of 27 pages among 53: not distinguishable from chance; before to after: no change" in text
    assert "18.5<small>12.0 to 24.5</small>" in text and ".21<small>.11 to .32</small>" in text
    assert "<td>.10</td>" in text and "<td>27.0</td>" in text  # no interval: too few pages; chance has none
    assert "(best right answer at rank 2)" in text and '<li class="right">' in text
    for asked, shown in (("other", ["chance", "after"]), ("same", ["chance", "before", "after"])):
        evaluation["after"]["questions"] = "same"
        evaluation["before"] = {"questions": asked, "retrieval": {"context_to_image": figures}}
        (tmp_path / "out" / "train" / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
        assert [each.label for each in collect(corpus).retrieval[0].ranks] == shown


def test_a_run_is_shown_with_the_version_it_was_trained_on(tmp_path: Path) -> None:
    corpus = write(str(tmp_path / "out"))
    run = tmp_path / "out" / "train"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 0, "loss": 3.0}\n{"step": 1, "loss": 2.0}\n', encoding="utf-8")
    asked = {"n": 0, "candidates": 0, "median_rank": None, "mrr": None, "recall": {}}
    after = {"retrieval": {"image_to_sentence": {**asked, "chance": asked, "claim": "no claim"}}}

    def shown(evaluation: dict[str, object]) -> tuple[int, int, list[str]]:
        (run / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
        found = collect(corpus)
        return len(found.charts), len(found.retrieval), [line for line in found.notes if "train/" in line]

    assert shown({"after": after, "run": {"corpus": {"version": VERSION}}}) == (1, 1, [])
    charts, retrieval, (line,) = shown({"after": after, "run": {"corpus": {"version": "another"}}})
    assert (charts, retrieval) == (0, 0) and "on version another, not on this one" in line
    # Under way: its end, and with it its corpus, is not known.
    charts, retrieval, (line,) = shown({"before": after})
    assert (charts, retrieval) == (0, 0) and "is not finished" in line
