"""The dry run: what is finished, what would run, and which input or setting is to blame. Starts no Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipeline.builds.reached import out_of_reach
from pipeline.corpus.expectations import unmet
from pipeline.corpus.version import Corpus, latest, version_manifest
from pipeline.engine.damage import Damaged
from pipeline.engine.keys import differences
from pipeline.engine.layout import LATEST, version_of
from pipeline.engine.mistake import UserMistake
from pipeline.engine.storage import Storage, StorageError
from pipeline.engine.table import Table
from pipeline.phases.generation import Generation
from pipeline.phases.graph import graph
from pipeline.spec.loading import Spec
from schemas.manifest import Manifest, VersionManifest
from stages.encoders.embed import to_download

# Sections that shape the card and the report, and no shard.
_SAID = ("name", "report", "prices", "expect")


def describe(spec: Spec, until: str | None = None) -> Iterator[str]:
    """Lines for people: a phase a line, in order."""
    try:
        storage = Storage(spec.output.url)
        storage.ask(LATEST)
    except StorageError as error:
        raise UserMistake(f"output: {error}") from None
    generation = Generation(storage, spec.source.snapshot).current()
    there = version_manifest(storage, version) if (version := latest(storage)) else None
    published = there.phases if there else {}
    keys: dict[str, str] = {}
    stale = 0
    for phase in graph(spec, generation):
        # A key needs the weights' hash, and a dry run downloads nothing.
        if phase.name == "embeddings" and (absent := to_download(spec.embed)):
            yield f"  {phase.name:<18} unknown     {', '.join(absent)}: not on this machine yet, a build downloads it"
            yield f"{stale} of {len(keys)} phases would run; those from {phase.name} on are not known; nothing was done"
            return
        ingredients = phase.ingredients(spec.output.partitions, keys)
        key = phase.key(ingredients)
        keys[phase.name] = key
        table = Table(storage, phase.name, key)
        manifest = table.manifest()
        if lost := table.lost():
            stale += 1
            yield f"  {phase.name:<18} would run   files of {len(lost)} of {spec.output.partitions} parts are lost"
        elif manifest is not None:
            rows = sum(part.rows for part in manifest.parts)
            yield f"  {phase.name:<18} finished    {rows:,} rows, {manifest.run.get('seconds', 0):.1f} s when it ran"
        else:
            stale += 1
            parts = len(table.receipts())
            begun = f"{parts} of {spec.output.partitions} parts are there; " if parts else ""
            why = _why(storage, phase.name, ingredients, published.get(phase.name))
            yield f"  {phase.name:<18} would run   {begun}{why}"
        if phase.name == until:
            break
    said = [] if stale or until is not None else _said_otherwise(spec, storage, version_of(keys["shards"]))
    if said:
        yield f"card and report would be written again: {'; '.join(said)}"
    elif stale:
        yield f"{stale} of {len(keys)} phases would run; nothing was done"
    else:
        yield "nothing to do"


def _said_otherwise(spec: Spec, storage: Storage, version: str) -> list[str]:
    manifest = version_manifest(storage, version)
    return [] if manifest is None else restated(spec, manifest)


def restated(spec: Spec, published: VersionManifest) -> list[str]:
    """What the spec says otherwise of a published version without changing its shards, a line each."""
    now = spec.model_dump(mode="json")
    return [line for name in _SAID for line in differences(published.spec.get(name), now[name], name)]


def finished(spec: Spec) -> Corpus | None:
    """The published version that the spec stands for, when `latest` names it already; seen without a Ray."""
    keys = _finished_keys(spec, None)
    if keys is None or version_of(keys["shards"]) != latest(Storage(spec.output.url)):
        return None
    corpus = Corpus(spec.output.url)
    # What is no part of a key: expectations that do not hold for what is there, a report asked for otherwise.
    return None if unmet(spec.expect, corpus.manifest.counts) or restated(spec, corpus.manifest) else corpus


def finished_until(spec: Spec, until: str) -> bool:
    """Whether every phase up to one, and that one, is finished, and of the pages one was got; seen without a Ray."""
    keys = _finished_keys(spec, until)
    if keys is None:
        return False
    pages = Table(Storage(spec.output.url), "pages", keys["pages"])
    return out_of_reach(pages.read_all(), again="") is None


def _finished_keys(spec: Spec, until: str | None) -> dict[str, str] | None:
    """Keys of the phases, up to one, if all of them are finished."""
    try:
        storage = Storage(spec.output.url)
        latest(storage)
    except Exception:  # not there, or not to be read: the build finds out which, and says so
        return None
    keys: dict[str, str] = {}
    for phase in graph(spec, Generation(storage, spec.source.snapshot).current()):
        keys[phase.name] = phase.key(phase.ingredients(spec.output.partitions, keys))
        table = Table(storage, phase.name, keys[phase.name])
        if table.manifest() is None or table.lost():
            return None
        if phase.name == until:
            break
    return keys


def _why(storage: Storage, phase: str, ingredients: dict[str, Any], published: str | None) -> str:
    """What differs from the published run of the phase, where there is one, else from the most recent finished one."""
    finished: list[Manifest] = []
    for key in storage.names(f"tables/{phase}"):
        try:
            manifest = Table(storage, phase, key).manifest()
        except Damaged:
            continue  # of another spec or another version of this program: it explains nothing
        if manifest is not None:
            finished.append(manifest)
    if not finished:
        return "never finished here"
    last = max(finished, key=lambda manifest: (manifest.key == published, str(manifest.run.get("finished", ""))))
    # Ingredients as JSON has them, or tuples would differ from lists.
    changed = differences(last.ingredients, json.loads(json.dumps(ingredients, default=str)))
    inputs = sorted(each.split(" ")[0].removeprefix("inputs.") for each in changed if each.startswith("inputs."))
    own = [each for each in changed if not each.startswith("inputs.")]
    reasons = own[:3] + ([f"{len(own) - 3} more"] if len(own) > 3 else [])
    if inputs:
        reasons.append(f"input {', '.join(inputs)} would change")
    return "; ".join(reasons) or "its manifest is gone"
