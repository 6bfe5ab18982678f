from __future__ import annotations

from dataclasses import replace

import yaml
from markdown_it import MarkdownIt

from pipeline.corpus.card import CardSummary, Frequent, card, front_matter
from pipeline.corpus.funnel import FunnelRow

SUMMARY = CardSummary(
    name="demo",
    version="3f2a",
    spec="name: demo\nsource:\n  kind: site\n# ``` a fence inside\n",
    documents=1234,
    images=2000,
    sentences=30000,
    matches=[("by markup, its own caption", 1490), ("by similarity", 500)],
    distances=[("1", 1600), ("9 and more", 390)],
    own_captions="1,490 of 1,500 (99%)",
    negatives=16000,
    image_bytes=123456789,
    shards=4,
    shard_bytes=130000000,
    splits={"train": 1100, "held_out": 134},
    languages={"en": 1200, "de": 30, None: 4},
    licenses=Frequent([(None, 1000), ("http://l/|<script>alert(1)</script>", 234)]),
    hosts=Frequent([(f"h{index}.example", 60 - index) for index in range(15)], others=5, rest=215),
    funnel=[FunnelRow("decide", "num_words", "document", "drop", 77)],
    encoders={"primary image": "dinov2_base 0123"},
    libraries={"pyarrow": "26.0.1"},
    limits=["Only *one* host."],
    robots_checked=True,
)


def rendered(text: str) -> str:
    body = text.split("---\n", 2)[2]
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(body)


def test_front_matter_is_what_the_hub_reads() -> None:
    text = card(SUMMARY)
    assert text.startswith("---\n") and text.endswith("\n") and not text.endswith("\n\n")
    block = yaml.safe_load(text.split("---\n", 2)[1])
    assert block == front_matter(SUMMARY)
    assert block["language"] == ["de", "en"] and block["size_categories"] == ["1K<n<10K"]
    train, held_out = ({"split": split, "path": f"shards/{split}-*.arrow"} for split in ("train", "held_out"))
    assert block["configs"] == [{"config_name": "default", "data_files": [train, held_out]}]
    # A pattern without a file would keep the other split from loading.
    one = front_matter(replace(SUMMARY, splits={"train": 0, "held_out": 9}))
    assert one["configs"][0]["data_files"] == [held_out]
    assert "configs" not in front_matter(replace(SUMMARY, splits={}))
    assert front_matter(replace(SUMMARY, documents=999))["size_categories"] == ["n<1K"]
    assert "language" not in front_matter(replace(SUMMARY, languages={None: 3}))


def test_numbers_funnel_and_spec_are_there() -> None:
    html = rendered(card(SUMMARY))
    for cell in (
        "1,234",
        "2,000",
        "1,490",
        "1,490 of 1,500 (99%)",
        "390",
        "77",
        "num_words",
        "held_out",
        "dinov2_base 0123",
        "5 more",
        "26.0.1",
    ):
        assert f"<td>{cell}</td>" in html or cell in html, cell
    assert "# ``` a fence inside" in html and html.count("<pre>") == 2


def test_it_shows_how_to_load_the_splits_that_are_there() -> None:
    assert 'train = corpus["train"]\nheld_out = corpus["held_out"]\n```' in card(SUMMARY)
    assert 'corpus["held_out"]' not in card(replace(SUMMARY, splits={"train": 3}))
    assert "load_dataset" not in card(replace(SUMMARY, documents=0, splits={}))


def test_words_of_pages_stay_words() -> None:
    html = rendered(card(replace(SUMMARY, name="<img src=x onerror=1> [a](b) `c` | d", hosts=Frequent([("a|b", 1)]))))
    assert "<script" not in html and "<img" not in html and "<a " not in html
    assert "|&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<h1>&lt;img src=x onerror=1&gt; [a](b) `c` | d</h1>" in html
    assert "<td>a|b</td>" in html
    assert "Only *one* host." in html


def test_a_local_source_claims_no_robots_verdict() -> None:
    assert "robots.txt (RFC 9309)" in card(SUMMARY)
    local = card(replace(SUMMARY, robots_checked=False, funnel=[], limits=[], libraries={}))
    assert "no robots verdict was asked for" in local and "Known limits" not in local
    assert "| none |  |  |  |" in local


def test_what_was_kept_to_and_what_it_left_out_is_told() -> None:
    assert "Kept to besides" not in card(SUMMARY) and "refused by" not in card(SUMMARY)
    refused = [
        FunnelRow("pages", "ai_txt", "page", "refuse", 5),
        FunnelRow("documents", "kept_back", "image", "refuse", 9),
    ]
    html = rendered(card(replace(SUMMARY, signals=["ai.txt", "TDMRep"], funnel=[*SUMMARY.funnel, *refused])))
    assert "Kept to besides were ai.txt, TDMRep." in html
    told = html[html.index("<th>refused by</th>") :]
    assert "ai.txt forbids training on it" in told and "keeps its pictures back" in told and "<td>9</td>" in told
    assert "<td>77</td>" not in told


def test_the_card_depends_on_its_summary_alone() -> None:
    assert card(SUMMARY) == card(replace(SUMMARY, languages=dict(reversed(SUMMARY.languages.items()))))
