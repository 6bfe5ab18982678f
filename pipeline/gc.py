"""Remove what no kept version needs: python -m pipeline.gc --corpus OUT [--keep N] [--dry-run]

Kept are the newest N versions and the one that `latest` names, with all their tables, and of the row stores the
folders of functions that any kept table was made with, plus everything that was fetched: fetches are what a corpus
cannot make again by itself. The newest build is kept too, with all it has made, so that one that was stopped goes on
where it was, and so is every build that is at work; what other builds left that made no kept version goes, and their
records with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import typer

from pipeline.builds.lease import at_work
from pipeline.command import run_command
from pipeline.corpus.records import build_ids, newest_build, read_build
from pipeline.corpus.version import Corpus, latest, open_storage, version_manifest
from pipeline.engine.damage import Damaged
from pipeline.engine.keys import digest_json
from pipeline.engine.layout import BUILDS, version_folder, version_of
from pipeline.engine.mistake import UserMistake
from pipeline.engine.row_store import LOOSE, linked, store_folder, superseded
from pipeline.engine.storage import HALF_WRITTEN, Storage
from pipeline.engine.table import Table, read_record, record_at
from pipeline.engine.work_folder import WorkFolder
from schemas.manifest import VERSION

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
# Row stores that hold what came from outside.
_FETCHED = ("fetch_page", "fetch_image", "fetch_sitemap", "origin_files", "read_source", "generations")


@dataclass
class Marked:
    """What is kept, named from the corpus root: objects, and folders with all that lies in them."""

    objects: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    stores: set[str] = field(default_factory=set)

    def record(self, storage: Storage, name: str) -> None:
        """Mark a finished phase; Damaged when it does not say what it needs."""
        if name in self.objects:
            return
        record = read_record(storage, name)
        if record is None:
            raise Damaged(f"{storage.path(name)} is missing: build again")
        functions = record.ingredients.get("functions")
        if not isinstance(functions, dict):
            raise Damaged(f"{storage.path(name)} names no functions: delete it and build again")
        for function, made_by in functions.items():
            self.stores |= set(linked(storage, store_folder(function, digest_json(made_by))))
        self.objects |= {name, record.table, *(file.name for file in record.decisions)}
        self.objects |= {part.name for part in Table(storage, record).parts}
        # Which key ranges there were: what is lost of a table is made again by itself.
        self.folders.add(WorkFolder(storage, record.phase, record.key).name)

    def unfinished(self, storage: Storage, place: str) -> None:
        """Mark what a phase has made so far that has no record yet."""
        self.folders.add(place)
        _, phase, key = place.split("/")
        for receipt in WorkFolder(storage, phase, key).receipts(0):
            self.objects |= {file.name for file in (receipt.part, *receipt.decisions)}

    def keeps(self, name: str) -> bool:
        """Whether an object under records, work or tables is marked."""
        return not name.endswith(HALF_WRITTEN) and (name in self.objects or _top(name, 3) in self.folders)


def doomed(storage: Storage, keep: int) -> list[str]:
    """Objects that nothing kept refers to, sorted; Damaged when what is kept does not say what it needs."""
    newest = newest_build(storage)
    if not storage.names("versions") and newest is None:
        raise UserMistake(f"--corpus {storage}: no version there, nor a record of a build")
    published = latest(storage)
    kept = _newest_versions(storage, keep) | ({published} if published is not None else set())
    marked = Marked()
    for version in sorted(kept):
        corpus = Corpus(storage.url, None if version == published else version)
        if version != published and corpus.manifest.manifest_version != VERSION:
            continue  # of an earlier release: its shards stay, and nothing here reads its tables
        for phase in corpus.phases:
            marked.record(storage, corpus.table(phase).record_name)
    folders = {version_folder(version) for version in kept}
    builds = {build for build in build_ids(storage) if _made(storage, build) in kept}
    working = list(at_work(storage))
    for build in (newest, *working):
        if build is None:
            continue
        builds.add(build.id)
        marked.stores |= {folder for store in build.stores for folder in linked(storage, store)}
        for place in filter(None, build.phases.values()):
            record = record_at(storage, place)
            if record is not None:
                marked.record(storage, Table(storage, record).record_name)
            else:
                marked.unfinished(storage, place)
        if shards := build.phases.get("shards"):
            folders.add(version_folder(version_of(shards.split("/")[2])))
    found = [name for top in ("records", "work", "tables") for name in storage.walk(top) if not marked.keeps(name)]
    rows = storage.walk("rows")
    gone = {name for name in rows if name.endswith(HALF_WRITTEN) or not _is_remembered(name, marked)}
    if not working:
        # What a killed compaction left; a build at work may hold on to it still.
        for store in sorted({_top(name, 3) for name in rows if LOOSE in name and name not in gone}):
            gone.update(superseded(storage, store))
    found += gone
    for name in storage.walk("versions"):
        if _top(name, 2) not in folders or name.endswith(HALF_WRITTEN):
            found.append(name)
    for name in storage.walk(BUILDS):
        if name.split("/")[1].removesuffix(".json") not in builds or name.endswith(HALF_WRITTEN):
            found.append(name)
    return sorted(found)


def _is_remembered(name: str, marked: Marked) -> bool:
    """Whether an object under rows is of a store that is kept."""
    return name.split("/")[1] in _FETCHED or _top(name, 3) in marked.stores


def _newest_versions(storage: Storage, keep: int) -> set[str]:
    manifests = []
    for name in storage.names("versions"):
        manifest = version_manifest(storage, name)
        if manifest is None:
            continue  # a build that is under way, or was killed: its shards are found by its phase's receipts
        manifests.append(manifest)
    newest = sorted(manifests, key=lambda each: (str(each.run.get("built", "")), each.version))[-keep:]
    return {each.version for each in newest}


def _made(storage: Storage, build: str) -> str | None:
    """The version that a build made."""
    record = read_build(storage, build)
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
        # What says that there is a build, a version, a phase or a range goes before what it is made of: what is left of
        # a killed collection is then none.
        order = (BUILDS, "versions", "records", "work")
        place = {name: order.index(top) if (top := name.split("/")[0]) in order else len(order) for name in names}
        for name in sorted(names, key=lambda each: (place[each], not each.endswith("manifest.json"), each)):
            storage.delete(name)
        for folder in ("versions", BUILDS):
            storage.prune(folder)
    print(f"{len(names):,} objects, {total / 1e6:.1f} MB {'would be removed' if dry_run else 'removed'}{named}")


if __name__ == "__main__":
    run_command(app)
