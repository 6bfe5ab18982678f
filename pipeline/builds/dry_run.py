"""The dry run: what is finished, what would run, and which input or setting is to blame. Starts no Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.builds.reached import fails_too_often, out_of_reach
from pipeline.corpus.expectations import unmet
from pipeline.corpus.version import Corpus, latest, version_manifest
from pipeline.engine.keys import differences, digest_json
from pipeline.engine.layout import LATEST, version_of
from pipeline.engine.mistake import UserMistake
from pipeline.engine.phase import Phase
from pipeline.engine.storage import Storage, StorageError
from pipeline.engine.table import Table, finished, holds, records_of
from pipeline.engine.work_folder import WorkFolder
from pipeline.phases.generation import Generation
from pipeline.phases.graph import graph
from pipeline.spec.loading import Spec
from schemas.manifest import PhaseRecord, VersionManifest
from stages.encoders.embed import to_download

# Sections that shape the card and the report, and no shard.
_SAID = ("name", "report", "prices", "expect")


def describe(spec: Spec, until: str | None = None) -> Iterator[str]:
    """Lines for people: a phase a line, in order.

    cached: finished, and nothing that it reads would change. runs: it has to. looks: it has to, and asks the network.
    runs if X changes: only if X, which would run, comes out otherwise than it did.
    """
    try:
        storage = Storage(spec.output.url)
        storage.ask(LATEST)
    except StorageError as error:
        raise UserMistake(f"output: {error}") from None
    generation = Generation(storage, spec.source.snapshot).current()
    there = version_manifest(storage, version) if (version := latest(storage)) else None
    published = there.phases if there else {}
    digests: dict[str, str | None] = {}  # None: not known before it has run
    stale = 0
    for phase in graph(spec):
        # A key needs the weights' hash, and a dry run downloads nothing.
        if phase.name == "embeddings" and (absent := to_download(spec.embed)):
            yield f"  {phase.name:<18} unknown     {', '.join(absent)}: not on this machine yet, a build downloads it"
            known = f"{stale} of {len(digests)} phases would run; those from {phase.name} on are not known"
            yield f"{known}; nothing was done"
            return
        record, line = _state(storage, phase, digests, generation, published.get(phase.name))
        digests[phase.name] = record.digest if record is not None else None
        stale += record is None
        yield f"  {phase.name:<18} {line}"
        if phase.name == until:
            break
    shards = record.key if record is not None and until is None else None
    said = _said_otherwise(spec, storage, version_of(shards)) if shards is not None else []
    if said:
        yield f"card and report would be written again: {'; '.join(said)}"
    elif stale:
        yield f"{stale} of {len(digests)} phases would run, or may have to; nothing was done"
    else:
        yield "nothing to do"


def _state(
    storage: Storage, phase: Phase, digests: Mapping[str, str | None], generation: int, published: str | None
) -> tuple[PhaseRecord | None, str]:
    """The phase's record where it is finished, and what to say of it; `published`: its record in what is latest."""
    unknown = [name for name in phase.inputs if digests[name] is None]
    ingredients = _as_json(phase.ingredients({name: digests[name] or "" for name in phase.inputs}))
    verb = "looks " if phase.network else "runs  "
    if unknown:
        own = {**ingredients, "inputs": None}
        alike = [each for each in records_of(storage, phase.name) if {**each.ingredients, "inputs": None} == own]
        if alike and holds(max(alike, key=_when), generation):
            return None, f"runs if {' or '.join(unknown)} changes"
        return None, f"{verb}      {_why(storage, phase.name, ingredients, unknown, published)}"
    key = digest_json(ingredients)
    record = finished(storage, phase.name, key, generation)
    if record is not None:
        if lost := Table(storage, record).lost():
            return None, f"runs        {len(lost)} of its files are lost"
        return record, f"cached      {record.rows:,} rows, {record.run.get('seconds', 0):.1f} s when it ran"
    done = len(WorkFolder(storage, phase.name, key, together=phase.units is not None).receipts(generation))
    begun = f"{done} of its key ranges are there; " if done else ""
    return None, f"{verb}      {begun}{_why(storage, phase.name, ingredients, unknown, published)}"


def _as_json(ingredients: dict[str, Any]) -> dict[str, Any]:
    """Ingredients as a record has them, or tuples would differ from lists."""
    found: dict[str, Any] = json.loads(json.dumps(ingredients, default=str))
    return found


def _said_otherwise(spec: Spec, storage: Storage, version: str) -> list[str]:
    manifest = version_manifest(storage, version)
    return [] if manifest is None else restated(spec, manifest)


def restated(spec: Spec, published: VersionManifest) -> list[str]:
    """What the spec says otherwise of a published version without changing its shards, a line each."""
    now = spec.model_dump(mode="json")
    return [line for name in _SAID for line in differences(published.spec.get(name), now[name], name)]


def version_at_hand(spec: Spec) -> Corpus | None:
    """The published version that the spec stands for, when `latest` names it already; seen without a Ray."""
    records = _finished_records(spec, None)
    if records is None or version_of(records["shards"].key) != latest(Storage(spec.output.url)):
        return None
    corpus = Corpus(spec.output.url)
    corpus.remember(records.values())
    # What is no part of a key: expectations that do not hold for what is there, a report asked for otherwise.
    if unmet(spec.expect, corpus.manifest.counts) or _fails_too_often(spec, records):
        return None
    return None if restated(spec, corpus.manifest) else corpus


def finished_until(spec: Spec, until: str) -> bool:
    """Whether every phase up to one, and that one, is finished, and enough of the pages was got; seen without a Ray."""
    records = _finished_records(spec, until)
    if records is None:
        return False
    pages = Table(Storage(spec.output.url), records["pages"])
    return out_of_reach(pages.read_all(), again="") is None and not _fails_too_often(spec, records)


def _fails_too_often(spec: Spec, records: Mapping[str, PhaseRecord]) -> bool:
    return any(fails_too_often(record, spec.crawl.max_failed) for record in records.values())


def _finished_records(spec: Spec, until: str | None) -> dict[str, PhaseRecord] | None:
    """Records of the phases, up to one, if all of them are finished."""
    try:
        storage = Storage(spec.output.url)
        latest(storage)
    except Exception:  # not there, or not to be read: the build finds out which, and says so
        return None
    generation = Generation(storage, spec.source.snapshot).current()
    records: dict[str, PhaseRecord] = {}
    for phase in graph(spec):
        key = digest_json(phase.ingredients({name: records[name].digest for name in phase.inputs}))
        record = finished(storage, phase.name, key, generation)
        if record is None or Table(storage, record).lost():
            return None
        records[phase.name] = record
        if phase.name == until:
            break
    return records


def _why(storage: Storage, phase: str, ingredients: dict[str, Any], unknown: list[str], published: str | None) -> str:
    """What differs from the run of the phase that is most like this one; of several the published, or most recent."""
    compared = [
        ([each for each in differences(record.ingredients, ingredients) if _input(each) not in unknown], record)
        for record in records_of(storage, phase)
    ]
    if not compared:
        return "never finished here"
    changed, _ = max(
        compared,
        key=lambda found: (-len(found[0]), Table(storage, found[1]).record_name == published, _when(found[1])),
    )
    inputs = sorted(name for each in changed if (name := _input(each)) is not None)
    own = [each for each in changed if _input(each) is None]
    reasons = own[:3] + ([f"{len(own) - 3} more"] if len(own) > 3 else [])
    if inputs:
        reasons.append(f"{', '.join(inputs)} changed")
    return "; ".join(reasons) or "what failed is asked for again"


def _when(record: PhaseRecord) -> str:
    """When the phase was finished; sorts by time."""
    return str(record.run.get("finished", ""))


def _input(difference: str) -> str | None:
    """The input that a line of `differences` is about."""
    return difference.split(" ")[0].removeprefix("inputs.") if difference.startswith("inputs.") else None
