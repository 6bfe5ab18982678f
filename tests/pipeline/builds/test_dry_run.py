"""The dry run: finished, begun or stale, and why; without Ray."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pytest

import schemas.keys
from pipeline.builds.dry_run import describe, finished
from pipeline.engine import keys
from pipeline.engine.layout import LATEST, version_of
from pipeline.engine.storage import Storage
from pipeline.engine.table import Receipt, Table
from pipeline.phases.generation import Generation
from pipeline.phases.graph import graph, names
from pipeline.spec.loading import Spec, parse
from schemas.manifest import ListedFile, Manifest, VersionManifest
from stages.encoders import embed

SPEC = """
name: small
output: {url: OUT, partitions: 2}
source: {kind: site, seeds: ["http://site.test/"]}
embed: {shared: conse}
"""


def spec_of(out: Path, *overrides: str) -> Spec:
    return parse("small.yaml", SPEC.replace("OUT", str(out)), overrides)


def finish(spec: Spec, until: str | None = None, publish: bool = False) -> dict[str, str]:
    """Pretend that the phases ran: manifests under the keys that the spec gives them; phase -> key."""
    storage = Storage(spec.output.url)
    keys: dict[str, str] = {}
    for phase in graph(spec, Generation(storage, spec.source.snapshot).current()):
        ingredients = phase.ingredients(spec.output.partitions, keys)
        keys[phase.name] = phase.key(ingredients)
        table = Table(storage, phase.name, keys[phase.name])
        if table.manifest() is None:
            run = {"finished": f"2026-01-01T00:00:{len(storage.names(f'tables/{phase.name}')):02d}Z", "seconds": 1.5}
            table.finish(
                Manifest(phase.name, keys[phase.name], "x", 1, (ListedFile("p", 4, 0, ""),), (), ingredients, run=run)
            )
        if phase.name == until:
            break
    if publish:
        version = version_of(keys["shards"])
        storage.write(LATEST, f"{version}\n".encode())
        said = spec.model_dump(mode="json")
        manifest = VersionManifest("small", version, (), "shard", 1, keys, said, {"shards.documents": 40})
        storage.write(f"versions/{version}/manifest.json", manifest.to_json().encode())
    return keys


def states(spec: Spec) -> dict[str, str]:
    """phase -> the rest of its line."""
    lines = list(describe(spec))
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines[:-1]}


def test_an_empty_folder_would_run_everything(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "out")
    assert set(states(spec)) == set(names())
    assert all("never finished here" in rest for rest in states(spec).values())
    assert finished(spec) is None and not (tmp_path / "out").exists()
    assert list(describe(spec, until="documents"))[-1] == "2 of 2 phases would run; nothing was done"


def test_what_is_finished_is_said_with_rows_and_seconds(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    finish(spec, until="documents")
    found = states(spec)
    assert found["pages"] == "finished    4 rows, 1.5 s when it ran"
    assert found["unique_urls"].startswith("would run")
    assert finished(spec) is None


def test_a_begun_phase_says_how_far_it_is(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    keys = finish(spec, until="pages")
    phase = graph(spec, 0)[1]
    key = phase.key(phase.ingredients(spec.output.partitions, keys))
    Table(Storage(str(tmp_path)), "documents", key).put_receipt(1, Receipt([], [], [], {}))
    assert states(spec)["documents"] == "would run   1 of 2 parts are there; never finished here"


@pytest.mark.parametrize(
    ("override", "first", "reason"),
    [
        ("filter.document.num_words.min=50", "text", "settings.filter.document.num_words.min: 10.0 -> 50"),
        ("dedup.threshold=0.9", "clusters", "settings.dedup.threshold: 0.7 -> 0.9"),
        ("images.image_size=256", "images", "functions.decode_image.settings.image_size: 512 -> 256"),
        (
            "embed.image_primary=conse",
            "embeddings",
            "functions.embed_image.settings.primary: efficientnet_lite0 -> conse",
        ),
        ("mine.top_k=3", "negatives", "settings.mine.top_k: "),
        ("shard.compression=zstd", "shards", "settings.shard.compression: none -> zstd"),
        ("source.snapshot=later", "pages", "settings.source.snapshot: default -> later"),
    ],
)
def test_a_change_touches_what_follows_from_it_and_is_named(
    tmp_path: Path, override: str, first: str, reason: str
) -> None:
    finish(spec_of(tmp_path))
    found = states(spec_of(tmp_path, override))
    stale = [phase for phase in names() if found[phase].startswith("would run")]
    assert stale[0] == first
    assert reason.replace("10.0", "10") in found[first].replace('"', "").replace("10.0", "10")
    for phase in stale[1:]:
        assert "would change" in found[phase] or "settings." in found[phase], found[phase]


def test_weights_that_are_not_here_are_not_downloaded_to_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*given: object, **named: object) -> None:
        raise AssertionError("a dry run downloads nothing")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    finish(spec_of(tmp_path))
    other = ("embed.image_primary=hf:nobody/nothing", "embed.shared=open_clip:ViT-B-32/openai", "dedup.threshold=0.9")
    said = list(describe(spec_of(tmp_path, *other)))
    assert said[-2].split(maxsplit=2) == [
        "embeddings",
        "unknown",
        "hf:nobody/nothing, open_clip:ViT-B-32/openai: not on this machine yet, a build downloads it",
    ]
    assert said[-1] == "6 of 16 phases would run; those from embeddings on are not known; nothing was done"
    assert list(describe(spec_of(tmp_path, *other[:2]), until="slices"))[-1] == "nothing to do"


def test_resources_reports_and_prices_touch_nothing(tmp_path: Path) -> None:
    finish(spec_of(tmp_path))
    changed = (
        "resources.workers=1",
        "resources.block_megabytes=1",
        "report.documents=3",
        "prices.cpu_hour=1",
        "name=x",
        "crawl.concurrency=3",
        "crawl.per_host_delay=5",
        "schedule={cron: 0 6 * * *, start: 2026-11-28, retention: 3}",
    )
    assert list(describe(spec_of(tmp_path, *changed)))[-1] == "nothing to do"


@pytest.mark.parametrize(
    ("changed", "phase"),
    [
        (("code", "pipeline.phases.sources"), "pages"),
        (("code", "pipeline.phases.fetching"), "pages"),
        (("code", "pipeline.engine.memo"), "pages"),
        (("code", "stages.text.scores"), "scores"),
        (("code", "stages.dedup.near"), "signatures"),
        (("code", "stages.mining.search"), "negatives"),
        (("library", "fastwarc"), "pages"),
        (("library", "selectolax"), "pages"),
        (("library", "py3langid"), "scores"),
        (("library", "datasketch"), "signatures"),
        (("library", "numba"), "clusters"),
        (("library", "torch"), "embeddings"),
        (("weights", "efficientnet_lite0"), "embeddings"),
        (("columns", "kept"), "kept"),
    ],
)
def test_code_libraries_weights_and_columns_make_tables_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: tuple[str, str], phase: str
) -> None:
    spec = spec_of(tmp_path)
    before = finish(spec)
    what, name = changed
    if what == "code":
        parsed = schemas.keys._parsed
        monkeypatch.setattr(
            schemas.keys, "_parsed", lambda each: ("other", parsed(each)[1]) if each == name else parsed(each)
        )
    elif what == "library":
        version = importlib.metadata.version
        monkeypatch.setattr(importlib.metadata, "version", lambda each: "0" if each == name else version(each))
    elif what == "weights":
        monkeypatch.setattr(embed, "weights_hash", lambda each, modality: "other")
    keys.code_key.cache_clear()
    now: dict[str, str] = {}
    for each in graph(spec, 0):
        if what == "columns" and each.name == name:
            each = replace(each, schema=each.schema.append(pa.field("more", pa.int8())))
        now[each.name] = each.key(each.ingredients(spec.output.partitions, now))
    keys.code_key.cache_clear()
    stale = [each for each in names() if now[each] != before[each]]
    # Code is known by modules, and phases that share one are stale together.
    assert phase in stale if what == "code" else phase == stale[0]


def test_the_last_run_is_what_a_change_is_measured_against(tmp_path: Path) -> None:
    finish(spec_of(tmp_path))
    finish(spec_of(tmp_path, "mine.top_k=5"))
    assert "settings.mine.top_k: 5 -> 7" in states(spec_of(tmp_path, "mine.top_k=7"))["negatives"]
    assert list(describe(spec_of(tmp_path)))[-1] == "nothing to do", "going back finds the older tables"


def test_finished_only_when_latest_names_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(tmp_path)
    keys = finish(spec, publish=True)
    done = finished(spec)
    assert done is not None and done.version == version_of(keys["shards"])
    assert finished(spec_of(tmp_path, "mine.top_k=7")) is None
    for change, line in (
        ("expect.documents.min=41", "expect.documents.min: 1.0 -> 41.0"),
        ("report.documents=3", "report.documents: "),
        ("name=other", "name: small -> other"),
    ):
        assert finished(spec_of(tmp_path, change)) is None, "it must be published again"
        last = list(describe(spec_of(tmp_path, change)))[-1]
        assert last.startswith(f"card and report would be written again: {line}")
    assert finished(spec_of(tmp_path, "resources.workers=1")) is not None
    finish(spec_of(tmp_path, "mine.top_k=9"))
    assert "settings.mine.top_k: 8 -> 7" in states(spec_of(tmp_path, "mine.top_k=7"))["negatives"], (
        "from what is latest"
    )
    finish(spec_of(tmp_path, "mine.top_k=7"), publish=True)
    assert finished(spec) is None, "latest has moved on"


def test_a_retry_makes_the_fetching_phases_stale(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    finish(spec)
    Generation(Storage(str(tmp_path)), spec.source.snapshot).advance()
    found = states(spec)
    assert "generation: 0 -> 1" in found["pages"] and "generation: 0 -> 1" in found["fetched_images"]
