"""Publishing: a version's manifest, card and report, and last of all `latest`, which names it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from pipeline.builds.dry_run import restated
from pipeline.corpus.card import card
from pipeline.corpus.card_facts import summary
from pipeline.corpus.expectations import unmet
from pipeline.corpus.version import Corpus, latest, version_manifest
from pipeline.engine.layout import LATEST, REPORT, version_folder, version_of
from pipeline.engine.runner import PhaseFailed, Runner
from pipeline.report import write_report
from pipeline.spec.loading import Spec
from schemas.contract import identity
from schemas.manifest import ListedFile, VersionManifest
from schemas.shard import SHARD


def total_counts(runner: Runner) -> dict[str, int]:
    """Counts of all phases; each name is used by one phase."""
    counts: dict[str, int] = {}
    for name, manifest in runner.manifests.items():
        counts |= {f"{name}.{key}": number for key, number in manifest.counts.items()}
    return counts


def publish(spec: Spec, runner: Runner, seconds: float) -> Corpus:
    """Make the version exist; `latest` moves to it unless an expectation of the spec is not met (PhaseFailed)."""
    storage = runner.storage
    version = version_of(runner.keys["shards"])
    folder = version_folder(version)
    schema, schema_version = identity(SHARD)
    files = runner.manifests["shards"].files
    resolved: dict[str, Any] = spec.model_dump(mode="json")
    manifest = VersionManifest(
        name=spec.name,
        version=version,
        shards=tuple(ListedFile(p.name.removeprefix(f"{folder}/"), p.rows, p.bytes, p.hash) for p in files if p.rows),
        schema=schema,
        schema_version=schema_version,
        phases=dict(runner.keys),
        spec=resolved,
        counts=total_counts(runner),
        run={
            "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(seconds, 1),
            "cpus": runner.resources.cpus,
            "gpus": runner.resources.gpus,
        },
    )
    there = version_manifest(storage, version)
    if there is None:
        storage.write(f"{folder}/manifest.json", manifest.to_json().encode())
    elif restated(spec, there):
        # The same shards, said otherwise: what made them, and when, stays. Card and report go first: if this is where
        # it ends, the next build finds them missing.
        for name in ("README.md", REPORT):
            storage.delete(f"{folder}/{name}")
        restatement = replace(there, name=spec.name, spec=resolved)
        storage.write(f"{folder}/manifest.json", restatement.to_json().encode())
    corpus = Corpus(storage.url, version)
    if not storage.exists(f"{folder}/README.md"):
        storage.write(f"{folder}/README.md", card(summary(corpus)).encode())
    if not storage.exists(f"{folder}/{REPORT}"):
        write_report(corpus)
    if failures := unmet(spec.expect, manifest.counts):
        raise PhaseFailed(f"expect: {'; '.join(failures)}; see {storage}/{folder}/{REPORT}; latest stays where it was")
    if latest(storage) != version:
        storage.write(LATEST, f"{version}\n".encode())
    return corpus
