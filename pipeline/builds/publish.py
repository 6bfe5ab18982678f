"""Publishing: a version's manifest, card and report, and last of all `latest`, which names it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.builds.dry_run import restated
from pipeline.corpus.card import card
from pipeline.corpus.card_facts import summary
from pipeline.corpus.expectations import unmet
from pipeline.corpus.version import Corpus, latest, manifest_of, version_manifest
from pipeline.engine.layout import LATEST, REPORT, version_folder
from pipeline.engine.moment import now
from pipeline.engine.runner import PhaseFailed, Runner
from pipeline.report import write_report
from pipeline.spec.loading import Spec


def make_version(spec: Spec, runner: Runner, seconds: float) -> Corpus:
    """Make the version of finished phases exist, or say otherwise what it is."""
    storage = runner.storage
    resolved: dict[str, Any] = spec.model_dump(mode="json")
    run = {
        "built": now(),
        "seconds": round(seconds, 1),
        "cpus": runner.resources.cpus,
        "gpus": runner.resources.gpus,
    }
    manifest = manifest_of(resolved, [runner.table(phase) for phase in runner.records], run)
    folder = version_folder(manifest.version)
    there = version_manifest(storage, manifest.version)
    if there is None:
        storage.write(f"{folder}/manifest.json", manifest.to_json().encode())
    elif restated(spec, there):
        # The same shards, said otherwise: what made them, and when, stays. Card and report go first: if this is where
        # it ends, the next build finds them missing.
        for name in ("README.md", REPORT):
            storage.delete(f"{folder}/{name}")
        restatement = replace(there, name=spec.name, spec=resolved)
        storage.write(f"{folder}/manifest.json", restatement.to_json().encode())
    return Corpus(storage.url, manifest.version)


def publish(spec: Spec, corpus: Corpus) -> None:
    """Write card and report; `latest` moves to the version unless an expectation is not met (PhaseFailed)."""
    storage = corpus.storage
    if not storage.exists(f"{corpus.folder}/README.md"):
        storage.write(f"{corpus.folder}/README.md", card(summary(corpus)).encode())
    if not storage.exists(corpus.report):
        write_report(corpus)
    if failures := unmet(spec.expect, corpus.manifest.counts):
        raise PhaseFailed(f"expect: {'; '.join(failures)}; see {storage}/{corpus.report}; latest stays where it was")
    if latest(storage) != corpus.version:
        storage.write(LATEST, f"{corpus.version}\n".encode())
