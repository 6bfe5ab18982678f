"""Remove what no kept version needs: python -m pipeline.gc --corpus OUT [--keep N] [--dry-run]

Kept are the newest N versions and the one that `latest` names, with all their tables, and of the row stores the
folders of functions that any kept table was made with, plus everything that was fetched: fetches are what a corpus
cannot make again by itself. The newest build is kept too, with all it has made, so that one that was stopped goes on
where it was; what other builds left that made no kept version goes, and their records with it. Collect when no build
is running.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from pipeline.command import run_command
from pipeline.corpus.records import build_ids, newest_record, read_record
from pipeline.corpus.version import Corpus, latest, open_storage, version_manifest
from pipeline.engine.damage import Damaged
from pipeline.engine.keys import digest_json
from pipeline.engine.layout import BUILDS, version_folder, version_of
from pipeline.engine.mistake import UserMistake
from pipeline.engine.row_store import store_folder
from pipeline.engine.storage import HALF_WRITTEN, Storage

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
# Row stores that hold what came from outside.
_FETCHED = ("fetch_page", "fetch_image", "read_source", "generations")


def doomed(storage: Storage, keep: int) -> list[str]:
    """Objects that nothing kept refers to, sorted; Damaged when what is kept does not say what it needs."""
    newest = newest_record(storage)
    if not storage.names("versions") and newest is None:
        raise UserMistake(f"--corpus {storage}: no version there, nor a record of a build")
    published = latest(storage)
    kept = _newest_versions(storage, keep) | ({published} if published is not None else set())
    tables: set[str] = set()
    stores: set[str] = set()
    for version in sorted(kept):
        corpus = Corpus(storage.url, None if version == published else version)
        for phase, key in corpus.manifest.phases.items():
            tables.add(f"tables/{phase}/{key}")
            functions = corpus.phase_manifest(phase).ingredients.get("functions")
            if not isinstance(functions, dict):
                raise Damaged(f"tables/{phase}/{key}/manifest.json names no functions: delete it and build again")
            stores |= _stores(functions)
    folders = {version_folder(version) for version in kept}
    builds = {build for build in build_ids(storage) if _made(storage, build) in kept}
    if newest is not None:
        builds.add(newest.id)
        tables |= {f"tables/{phase}/{key}" for phase, key in newest.phases.items() if key}
        stores |= set(newest.stores)
        if shards := newest.phases.get("shards"):
            folders.add(version_folder(version_of(shards)))
    found = []
    for name in storage.walk("tables"):
        if _top(name, 3) not in tables or name.endswith(HALF_WRITTEN):
            found.append(name)
    for name in storage.walk("rows"):
        wanted = name.split("/")[1] in _FETCHED or _top(name, 3) in stores
        if not wanted or name.endswith(HALF_WRITTEN):
            found.append(name)
    for name in storage.walk("versions"):
        if _top(name, 2) not in folders or name.endswith(HALF_WRITTEN):
            found.append(name)
    for name in storage.walk(BUILDS):
        if name.split("/")[1].removesuffix(".json") not in builds or name.endswith(HALF_WRITTEN):
            found.append(name)
    return sorted(found)


def _newest_versions(storage: Storage, keep: int) -> set[str]:
    manifests = []
    for name in storage.names("versions"):
        manifest = version_manifest(storage, name)
        if manifest is None:
            continue  # a build that is under way, or was killed: its shards are found by its phase's receipts
        manifests.append(manifest)
    newest = sorted(manifests, key=lambda each: (str(each.run.get("built", "")), each.version))[-keep:]
    return {each.version for each in newest}


def _stores(functions: Mapping[str, Any]) -> set[str]:
    """Folders of row stores of functions, from their ingredients by name."""
    return {store_folder(name, digest_json(ingredients)) for name, ingredients in functions.items()}


def _made(storage: Storage, build: str) -> str | None:
    """The version that a build made."""
    record = read_record(storage, build)
    return record.version if record is not None else None


def _top(name: str, parts: int) -> str:
    """The folder that the first parts of a path name."""
    return "/".join(name.split("/")[:parts])


@app.command(help=(__doc__ or "").split("\n\n", 1)[1])
def collect(
    corpus: Annotated[str, typer.Option(help="The corpus folder or URL.")],
    keep: Annotated[int, typer.Option(min=1, help="Newest versions to keep.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")] = False,
) -> None:
    storage = open_storage(corpus)
    names = doomed(storage, keep)
    total = sum(storage.size(name) for name in names)
    stays = {name.split("/")[1] for name in set(storage.walk("versions")).difference(names)}
    versions = sorted({name.split("/")[1] for name in names if name.startswith("versions/")} - stays)
    named = f"; versions {', '.join(versions)}" if versions else ""
    if not dry_run:
        # Records and manifests go first: what is left of a killed collection is then no build and no table.
        for name in sorted(
            names, key=lambda each: (not each.startswith(f"{BUILDS}/"), not each.endswith("manifest.json"), each)
        ):
            storage.delete(name)
        for folder in ("versions", BUILDS):
            storage.prune(folder)
    print(f"{len(names):,} objects, {total / 1e6:.1f} MB {'would be removed' if dry_run else 'removed'}{named}")


if __name__ == "__main__":
    run_command(app)
