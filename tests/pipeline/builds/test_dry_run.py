"""The dry run: finished, begun or stale, and why; without Ray."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pytest

import schemas.keys
from pipeline.builds.dry_run import describe, finished_until, version_at_hand
from pipeline.engine import keys
from pipeline.engine.key_range import KeyRange
from pipeline.engine.keys import digest_json
from pipeline.engine.layout import LATEST, version_of
from pipeline.engine.phase import Phase
from pipeline.engine.storage import Storage
from pipeline.engine.table import Table, newest_record
from pipeline.engine.work_folder import WorkFolder
from pipeline.phases.generation import Generation
from pipeline.phases.graph import graph, names
from pipeline.spec.loading import Spec, parse
from schemas.decision import DECISION
from schemas.manifest import ListedFile, PhaseRecord, VersionManifest
from stages.encoders import embed

SPEC = """
name: small
output: {url: OUT}
source: {kind: site, seeds: ["http://site.test/"]}
embed: {shared: conse}
"""


def spec_of(out: Path, *overrides: str) -> Spec:
    return parse("small.yaml", SPEC.replace("OUT", str(out)), overrides)


def key_of(phase: Phase, digests: dict[str, str]) -> str:
    return digest_json(phase.ingredients({name: digests[name] for name in phase.inputs}))


def finish(
    spec: Spec,
    until: str | None = None,
    publish: bool = False,
    retryable: Collection[str] = (),
    alike: Collection[str] = (),
) -> dict[str, str]:
    """Pretend that the phases ran: records under the keys that the spec gives them; phase -> key.

    What a phase made follows its key, and so differs when anything before it does; of those `alike` it is ever the
    same. In those `retryable` something failed that may pass.
    """
    storage = Storage(spec.output.url)
    generation = Generation(storage, spec.source.snapshot).current()
    keys: dict[str, str] = {}
    digests: dict[str, str] = {}
    records: dict[str, str] = {}
    for phase in graph(spec):
        key = keys[phase.name] = key_of(phase, digests)
        record = newest_record(storage, phase.name, key)
        if record is None:
            files: tuple[ListedFile, ...] = ()
            if phase.name == "shards":
                files = (ListedFile(f"versions/{version_of(key)}/shards/train-00000-of-00001.arrow", 4, 2, ""),)
                storage.write(files[0].name, b"ab")
            record = PhaseRecord(
                phase=phase.name,
                key=key,
                generation=generation,
                table=f"tables/{phase.name}/x.json",
                digest=digest_json(phase.name) if phase.name in alike else key,
                rows=4,
                decisions=(),
                ingredients=phase.ingredients({name: digests[name] for name in phase.inputs}),
                files=files,
                counts={"retryable": 1} if phase.name in retryable else {},
                run={
                    "finished": f"2026-01-01T00:00:{len(storage.names(f'records/{phase.name}')):02d}Z",
                    "seconds": 1.5,
                },
            )
            storage.write(Table(storage, record).record_name, record.to_json().encode())
        digests[phase.name] = record.digest
        records[phase.name] = Table(storage, record).record_name
        if phase.name == until:
            break
    if publish:
        version = version_of(keys["shards"])
        storage.write(LATEST, f"{version}\n".encode())
        said = spec.model_dump(mode="json")
        manifest = VersionManifest("small", version, (), "shard", 1, records, said, {"shards.documents": 40})
        storage.write(f"versions/{version}/manifest.json", manifest.to_json().encode())
    return keys


def states(spec: Spec) -> dict[str, str]:
    """phase -> the rest of its line."""
    lines = list(describe(spec))
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines[:-1]}


@pytest.mark.slow
def test_an_empty_folder_would_run_everything(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "out")
    found = states(spec)
    assert set(found) == set(names())
    for phase in graph(spec):
        assert found[phase.name] == f"{'looks' if phase.network else 'runs ':<12}never finished here"
    assert [phase.name for phase in graph(spec) if phase.network] == ["pages", "fetched_images"]
    assert version_at_hand(spec) is None and not (tmp_path / "out").exists()
    last = "2 of 2 phases would run, or may have to; nothing was done"
    assert list(describe(spec, until="documents"))[-1] == last


def test_pages_of_a_folder_are_not_looked_for_on_the_network(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "a.html").write_text("<p>words")
    source = f"source={{kind: html, path: {tmp_path / 'pages'}, base_url: 'http://site.test/'}}"
    assert states(spec_of(tmp_path / "out", source))["pages"] == "runs        never finished here"


def test_what_is_finished_is_cached_and_said_with_rows_and_seconds(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    finish(spec, until="documents")
    found = states(spec)
    assert found["pages"] == found["documents"] == "cached      4 rows, 1.5 s when it ran"
    assert found["scores"] == "runs        never finished here"
    assert list(describe(spec, until="documents"))[-1] == "nothing to do"
    assert version_at_hand(spec) is None


def test_a_begun_phase_says_how_far_it_is(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    keys = finish(spec, until="pages")
    phase = graph(spec)[1]
    folder = WorkFolder(Storage(str(tmp_path)), "documents", key_of(phase, keys))
    said = DECISION.empty_table()
    folder.put(KeyRange(0, (1 << 16) - 1), 0, phase.schema.empty_table(), phase.schema, said, [], {})
    assert states(spec)["documents"] == "runs        1 of its key ranges are there; never finished here"


def test_what_follows_a_change_runs_only_if_that_comes_out_otherwise(tmp_path: Path) -> None:
    finish(spec_of(tmp_path), alike=("images",))
    other = spec_of(tmp_path, "images.image_size=256")
    found = states(other)
    assert found["images"] == "runs        functions.decode_image.settings.image_size: 512 -> 256"
    inputs = {phase.name: phase.inputs for phase in graph(other)}
    after = names()[names().index("images") + 1 :]
    behind = {"images"}
    for phase in after:
        if unknown := [name for name in inputs[phase] if name in behind]:
            behind.add(phase)
            assert found[phase] == f"runs if {' or '.join(unknown)} changes"
        else:
            assert found[phase].startswith("cached ")
    assert {"kept", "pairs", "shards"} <= behind and all(found[each].startswith("cached ") for each in names()[:10])
    assert list(describe(other))[-1].startswith(f"{len(behind)} of {len(names())} phases would run, or may have to")
    # It came out as it was: nothing that follows has to run.
    finish(other, until="images", alike=("images",))
    assert list(describe(other))[-1] == "nothing to do"
    # It came out otherwise: what reads it runs for certain.
    third = spec_of(tmp_path, "images.image_size=128")
    finish(third, until="images")
    readers = [name for name in after if "images" in inputs[name]]
    found = states(third)
    assert found[readers[0]] == "runs        images changed" and found["shards"].startswith("runs if ")


def test_shards_that_are_lost_are_made_again(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    version = version_of(finish(spec, publish=True)["shards"])
    shard = tmp_path / "versions" / version / "shards" / "train-00000-of-00001.arrow"
    for damage in (lambda: shard.write_bytes(b"a"), shard.unlink):
        assert version_at_hand(spec) is None or damage is not shard.unlink
        damage()
        assert states(spec)["shards"] == "runs        1 of its files are lost"
        assert version_at_hand(spec) is None and finished_until(spec, "shards") is False


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
    stale = [phase for phase in names() if not found[phase].startswith("cached ")]
    assert stale[0] == first and found[first].startswith("looks " if first == "pages" else "runs  ")
    assert reason.replace("10.0", "10") in found[first].replace('"', "").replace("10.0", "10")
    for phase in stale[1:]:
        assert found[phase].startswith("runs if ") or "settings." in found[phase], found[phase]


@pytest.mark.slow
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
    assert said[-1] == "9 of 18 phases would run; those from embeddings on are not known; nothing was done"
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


def forget() -> None:
    """Code and libraries are looked at anew."""
    keys.code_key.cache_clear()
    schemas.keys.library_version.cache_clear()


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
        (("library", "numba"), "signatures"),
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
    forget()
    now: dict[str, str] = {}
    for each in graph(spec):
        if what == "columns" and each.name == name:
            each = replace(each, schema=each.schema.append(pa.field("more", pa.int8())))
        now[each.name] = key_of(each, now)
    forget()
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
    done = version_at_hand(spec)
    assert done is not None and done.version == version_of(keys["shards"])
    assert version_at_hand(spec_of(tmp_path, "mine.top_k=7")) is None
    for change, line in (
        ("expect.documents.min=41", "expect.documents.min: 1.0 -> 41.0"),
        ("report.documents=3", "report.documents: "),
        ("name=other", "name: small -> other"),
    ):
        assert version_at_hand(spec_of(tmp_path, change)) is None, "it must be published again"
        last = list(describe(spec_of(tmp_path, change)))[-1]
        assert last.startswith(f"card and report would be written again: {line}")
    assert version_at_hand(spec_of(tmp_path, "resources.workers=1")) is not None
    finish(spec_of(tmp_path, "mine.top_k=9"))
    assert "settings.mine.top_k: 8 -> 7" in states(spec_of(tmp_path, "mine.top_k=7"))["negatives"], (
        "from what is latest"
    )
    finish(spec_of(tmp_path, "mine.top_k=7"), publish=True)
    assert version_at_hand(spec) is None, "latest has moved on"


def test_a_retry_makes_those_phases_stale_in_which_something_failed(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    finish(spec, retryable=("pages", "fetched_images"))
    assert list(describe(spec))[-1] == "nothing to do"
    Generation(Storage(str(tmp_path)), spec.source.snapshot).advance()
    found = states(spec)
    assert found["pages"] == found["fetched_images"] == "looks       what failed is asked for again"
    assert found["documents"] == "runs if pages changes"


def test_a_retry_of_what_did_not_fail_is_nothing_to_do(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    finish(spec)
    Generation(Storage(str(tmp_path)), spec.source.snapshot).advance()
    assert list(describe(spec))[-1] == "nothing to do"


def test_what_is_cached_needs_no_table_of_a_damaged_record(tmp_path: Path) -> None:
    """A record of another release explains nothing, and stands in nobody's way."""
    spec = spec_of(tmp_path, "mine.top_k=5")
    keys = finish(spec)
    Storage(str(tmp_path)).write(f"records/negatives/{keys['negatives']}/00000.json", b'{"record_version": 1}')
    assert states(spec_of(tmp_path, "mine.top_k=7"))["negatives"] == "runs        never finished here"
