"""The runner: brings every phase of a build to a finished table, through Ray Data, surviving what kills workers."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy
from ray.data.context import DataContext, ShuffleStrategy

from pipeline.engine.keys import digest_json
from pipeline.engine.phase import Part, Phase
from pipeline.engine.progress import Progress, Tally
from pipeline.engine.row_store import store_folder
from pipeline.engine.storage import Storage
from pipeline.engine.table import Table
from pipeline.engine.worker import PARTITION, Work, tell
from schemas.manifest import Manifest

_log = logging.getLogger(__name__)

# Failures in a row without one new row, part or file: two plain tries, then two with every batch in its own process.
PLAIN_TRIES = 2
MAX_TRIES = 4
_CRASHES = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.ActorDiedError,
    ray.exceptions.ActorUnavailableError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.OwnerDiedError,
    ray.exceptions.LocalRayletDiedError,
)


class PhaseFailed(RuntimeError):
    """A phase did not finish; the message names it and the cause in one line."""


@dataclass(frozen=True)
class Resources:
    """What the runner may use; never part of a key."""

    cpus: float
    gpus: float
    encoder_workers: int | None = None


@dataclass
class Runner:
    """Runs phases in order; keeps the keys of those that are finished."""

    storage: Storage
    num_partitions: int
    resources: Resources
    progress: Progress
    tally: Any
    generation: int = 0
    keys: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    # Folders of row stores that the phases met so far work with.
    stores: set[str] = field(default_factory=set)
    # Told before a phase makes the first part of a table that is not finished; its key is among `keys` by then.
    begun: Callable[[Runner], None] = lambda runner: None

    def table(self, phase: str) -> Table:
        return Table(self.storage, phase, self.keys[phase])

    def run(self, phase: Phase) -> Manifest:
        """Bring one phase to a finished table and return its manifest; at once when it is there already."""
        ingredients = phase.ingredients(self.num_partitions, self.keys)
        key = phase.key(ingredients)
        self.keys[phase.name] = key
        self.stores |= {store_folder(name, digest_json(each)) for name, each in ingredients["functions"].items()}
        table = self.table(phase.name)
        if lost := table.lost():
            self.progress.say(f"{phase.name}: files of {len(lost)} of {self.num_partitions} parts are lost, made again")
            table.reopen(lost)
        manifest = table.manifest()
        if manifest is not None:
            self.manifests[phase.name] = manifest
            self.progress.cached(phase.name, sum(part.rows for part in manifest.parts))
            return manifest
        began = time.monotonic()
        self.begun(self)
        self.progress.begin(phase.name)
        resumed = len(table.receipts())
        tries = self._complete(phase, key, table)
        receipts = table.receipts()
        counts: dict[str, int] = {}
        for receipt in receipts.values():
            for name, number in receipt.counts.items():
                counts[name] = counts.get(name, 0) + number
        looked_up, computed, _ = self._told(phase.name)
        seconds = time.monotonic() - began
        finished = [receipts[index] for index in sorted(receipts)]
        parts = tuple(part for receipt in finished for part in receipt.parts)
        decisions = tuple(part for receipt in finished for part in receipt.decisions)
        manifest = Manifest(
            phase=phase.name,
            key=key,
            schema=ingredients["schema"].split("/")[0],
            schema_version=int(ingredients["schema"].split("/")[1]),
            parts=parts,
            decisions=decisions,
            files=tuple(part for receipt in finished for part in receipt.files),
            ingredients=ingredients,
            counts=dict(sorted(counts.items())),
            run={
                "seconds": round(seconds, 3),
                "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "rows_remembered": looked_up,
                "rows_computed": computed,
                "parts_resumed": resumed,
                "tries": tries,
            },
        )
        table.finish(manifest)
        self.manifests[phase.name] = manifest
        remark = f"{looked_up:,} remembered" if looked_up else ""
        self.progress.end(phase.name, sum(p.rows for p in parts), sum(d.rows for d in decisions), seconds, remark)
        return manifest

    def _told(self, phase: str) -> list[int]:
        return [0, 0, 0] if self.tally is None else told(self.tally, phase)

    def _complete(self, phase: Phase, key: str, table: Table) -> int:
        """Run until every partition has a receipt; returns the number of tries it took."""
        total = 0
        fruitless = 0
        before: tuple[int, int] | None = None
        while True:
            complete = table.receipts()
            pending = [i for i in range(self.num_partitions) if i not in complete]
            if not pending:
                return total
            work = Work(
                phase=phase,
                key=key,
                num_partitions=self.num_partitions,
                storage=self.storage,
                input_keys={name: self.keys[name] for name in phase.inputs},
                isolate=fruitless >= PLAIN_TRIES,
                generation=self.generation,
                tally=self.tally,
            )
            total += 1
            try:
                self._try(work, pending)
            except Exception as error:
                crash = _crash(error)
                if crash is None:
                    raise
                after = len(table.receipts()), len(self.storage.walk("rows"))
                fruitless = fruitless + 1 if after == before else 1
                before = after
                _log.warning("%s: a worker died (%s), try %d", phase.name, crash, total)
                if fruitless >= MAX_TRIES:
                    raise PhaseFailed(
                        f"{phase.name}: workers died {fruitless} times without progress: {crash}"
                    ) from None

    def _try(self, work: Work, pending: Sequence[int]) -> None:
        phase = work.phase
        if phase.spread_by is not None:
            self._drain(work, self._mapped(work, [0]), len(pending))
        elif phase.exchange is None:
            self._drain(work, self._mapped(work, pending), len(pending))
        else:
            units = self._units(phase)
            if units:
                self._drain(work, self._exchanged(work, units, set(pending)), len(pending))
            # Partitions to which no row came are made from no rows.
            complete = work.table().receipts()
            left = [index for index in pending if index not in complete]
            if left:
                self._drain(work, self._mapped(work, left), len(left))

    def _units(self, phase: Phase) -> list[Any]:
        if phase.units is not None:
            return list(phase.units(_Scout(phase.name, self.storage, self.tally, self.progress)))
        return list(range(self.num_partitions))

    def _drain(self, work: Work, dataset: ray.data.Dataset, parts: int) -> None:
        for done, _ in enumerate(dataset.iter_rows(), start=1):
            self.progress.tick(done, parts)

    def _mapped(self, work: Work, indices: Sequence[int]) -> ray.data.Dataset:
        def run(row: dict[str, Any]) -> dict[str, Any]:
            return work.run(int(row["index"]), None)

        dataset = ray.data.from_items([{"index": i} for i in indices], override_num_blocks=len(indices))
        if work.phase.actors:
            return dataset.map_batches(
                _Resident, fn_constructor_args=(work,), batch_size=1, batch_format="pyarrow", **self._pool()
            )
        return dataset.map(run, max_retries=0, **self._share(work.phase))

    def _exchanged(self, work: Work, units: Sequence[Any], pending: set[int]) -> ray.data.Dataset:
        def emit(batch: dict[str, Any]) -> Iterator[pa.Table]:
            for index in batch["unit"]:
                rows = work.emit(units[int(index)])
                if rows.num_rows:
                    yield rows

        schema = pa.schema([("partition", pa.int64()), ("rows", pa.int64()), ("dropped", pa.int64())])

        def run(block: pa.Table) -> pa.Table:
            return pa.Table.from_pylist(_run_block(work, block, pending), schema=schema)

        dataset = ray.data.from_items([{"unit": i} for i in range(len(units))], override_num_blocks=len(units))
        rows = dataset.map_batches(emit, batch_size=None, max_retries=0)
        inner: list[int | float] = list(range(1, self.num_partitions))
        met: ray.data.Dataset = rows.sort(PARTITION, boundaries=inner) if inner else rows.repartition(1)
        if work.phase.actors:
            # The sort ends before its reader begins anyhow; seen through first, its tasks cannot wait for CPUs that
            # the actors hold.
            resident: ray.data.Dataset = met.materialize().map_batches(
                _Resident, fn_constructor_args=(work, pending), batch_size=None, batch_format="pyarrow", **self._pool()
            )
            return resident
        made: ray.data.Dataset = met.map_batches(
            run, batch_size=None, batch_format="pyarrow", max_retries=0, **self._share(work.phase)
        )
        return made

    def _share(self, phase: Phase) -> dict[str, Any]:
        """What a task of a phase asks for besides its CPU: a GPU of its own, where the phase uses one and one is."""
        return {"num_gpus": min(1.0, self.resources.gpus)} if phase.gpu and self.resources.gpus else {}

    def _pool(self) -> dict[str, Any]:
        """A fixed pool; its CPUs stay below the total, or the tasks that feed it never start."""
        gpus = self.resources.gpus
        size = self.resources.encoder_workers or max(1, int(gpus) if gpus else int(self.resources.cpus))
        cpus = min(1.0, max(0.25, (self.resources.cpus - 0.5) / size))
        return {
            "compute": ActorPoolStrategy(size=size),
            "num_cpus": cpus,
            "num_gpus": min(1.0, gpus / size) if gpus else 0,
            "max_restarts": 0,
            "max_task_retries": 0,
        }


@dataclass(frozen=True)
class _Scout:
    """Units of a phase that has not begun, visited by tasks of their own."""

    phase: str
    storage: Storage
    tally: Any
    progress: Progress

    def each(self, units: Sequence[Any], visit: Callable[[Part, Any], dict[str, Any]]) -> list[dict[str, Any]]:
        """As pipeline.engine.phase.Scout has it."""
        phase, storage, tally = self.phase, self.storage, self.tally

        def told(found: int, made: int) -> None:
            tell(tally, phase, found, made, 0, seen=True)

        def run(row: dict[str, Any]) -> dict[str, Any]:
            return visit(Part(phase, "", 0, 1, storage, {}, tell=told), units[int(row["unit"])])

        dataset = ray.data.from_items([{"unit": i} for i in range(len(units))], override_num_blocks=len(units))
        answers = []
        for answer in dataset.map(run, max_retries=0).iter_rows():
            answers.append(answer)
            self.progress.tick(len(answers), len(units))
        return answers


class _Resident:
    """A phase held by an actor, so that its models are loaded once."""

    def __init__(self, work: Work, pending: set[int] | None = None) -> None:
        self._work = work
        self._pending = pending

    def __call__(self, block: pa.Table) -> pa.Table:
        if self._pending is not None:
            said = _run_block(self._work, block, self._pending)
        else:
            said = [self._work.run(int(i), None) for i in block.column("index").to_pylist()]
        schema = pa.schema([("partition", pa.int64()), ("rows", pa.int64()), ("dropped", pa.int64())])
        return pa.Table.from_pylist(said, schema=schema)


def _run_block(work: Work, block: pa.Table, pending: set[int]) -> list[dict[str, int]]:
    """Every pending partition of a block: one, unless the cluster packed several into it."""
    if not block.num_rows:
        return []
    said = []
    owners = block.column(PARTITION)
    for index in sorted(set(owners.to_pylist()) & pending):
        mine = pa.compute.equal(owners, index)
        said.append(work.run(index, block.filter(mine).drop_columns([PARTITION])))
    return said


def _crash(error: BaseException | None) -> str | None:
    """One line when a worker, actor or node died under the phase; None when its own code raised."""
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, _CRASHES):
            return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
        error, seen = error.__cause__ or error.__context__ or getattr(error, "cause", None), seen + 1
    return None


def configure_ray_data(block_megabytes: float | None = None) -> None:
    """Settings that Ray Data needs to use few CPUs well, and to be silent: progress is ours."""
    context = DataContext.get_current()
    if block_megabytes is not None:
        context.target_max_block_size = max(1, int(block_megabytes * (1 << 20)))
    context.op_resource_reservation_enabled = False
    # What a worker raised says what to do about it; Ray Data would hand on only its own name for it.
    context.raise_original_map_exception = True
    # The default shuffle starts actors for every exchange: 7 s on 2 CPUs where the sort by tasks takes .3 s.
    # A partition leaves this sort as one block whatever its size; Ray's newer one cuts it at target_max_block_size, and
    # a part made from each piece would overwrite the others.
    context.shuffle_strategy = ShuffleStrategy.SORT_SHUFFLE_PULL_BASED
    # Ray would run a task whose worker dies again for ever; max_retries has no other way in yet.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A dead worker is handled, and said in one line, by the runner; Ray Data would print its whole stack first.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def start_tally() -> Any:
    """The actor that workers tell their progress to; when it is killed it begins again from zero."""
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tally).remote()


def told(tally: Any, phase: str) -> list[int]:
    """Rows looked up, computed and dropped in a phase so far, as the tally was told."""
    try:
        numbers: list[int] = ray.get(tally.get.remote(phase), timeout=30)
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        return [0, 0, 0]  # only for the eyes: a build does not fail for it
    return numbers
