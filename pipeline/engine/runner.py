"""The runner: brings every phase of a build to a finished table, through Ray Data, surviving what kills workers."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy
from ray.data.context import DataContext, ShuffleStrategy

from pipeline.engine.adoption import SAMPLE, Probe, adopt, earlier
from pipeline.engine.key_range import WHOLE, KeyRange, evenly, left
from pipeline.engine.keys import digest_json
from pipeline.engine.moment import now
from pipeline.engine.phase import Part, Phase
from pipeline.engine.progress import Progress, Tally
from pipeline.engine.row_store import store_folder
from pipeline.engine.storage import Storage
from pipeline.engine.table import Table, newest_record
from pipeline.engine.work_folder import Receipt, WorkFolder
from pipeline.engine.worker import RANGE, Work, tell
from schemas.digests import BUCKETS
from schemas.manifest import PhaseRecord

_log = logging.getLogger(__name__)

# Ranges a processor, so that one that takes long does not hold up the rest; and how large their files may get.
RANGES_A_CPU = 2
FEWEST_RANGES = 4
PART_BYTES = 128_000_000
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


def finished(storage: Storage, phase: str, key: str, generation: int) -> PhaseRecord | None:
    """The record of a phase that is finished in this generation, else None; Damaged when its file is no record."""
    record = newest_record(storage, phase, key)
    return record if record is not None and holds(record, generation) else None


def holds(record: PhaseRecord, generation: int) -> bool:
    """Whether a record holds in a generation: one of an earlier one unless something in it failed that may pass."""
    return record.generation >= generation or not record.counts.get("retryable")


def reopen(folder: WorkFolder, record: PhaseRecord | None, receipts: Sequence[Receipt]) -> None:
    """Make a phase one of which these ranges are still to be made; `record` is there where it was finished."""
    if record is not None:
        folder.storage.delete(Table(folder.storage, record).record_name)
    for receipt in receipts:
        folder.forget(receipt)


def _is_lost(receipt: Receipt, lost: Sequence[str]) -> bool:
    return any(file.name in lost for file in receipt.files)


@dataclass(frozen=True)
class Resources:
    """What the runner may use; never part of a key."""

    cpus: float
    gpus: float
    encoder_workers: int | None = None


@dataclass
class Runner:
    """Runs phases in order; keeps the records of those that are finished."""

    storage: Storage
    resources: Resources
    progress: Progress
    tally: Any
    generation: int = 0
    sample: int = SAMPLE  # rows that are computed again where code changed, to see whether all of them have to be
    records: dict[str, PhaseRecord] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    # Where each phase met so far lies, from the corpus root: its record, or the folder of its receipts.
    places: dict[str, str] = field(default_factory=dict)
    # Folders of row stores that the phases met so far work with.
    stores: set[str] = field(default_factory=set)
    # Told before a phase makes the first range of a table that is not finished; it is among `places` by then.
    begun: Callable[[Runner], None] = lambda runner: None

    def table(self, phase: str) -> Table:
        return Table(self.storage, self.records[phase])

    def run(self, phase: Phase) -> PhaseRecord:
        """Bring one phase to a finished table and return its record; at once when it is there already."""
        ingredients = phase.ingredients({name: self.records[name].digest for name in phase.inputs})
        key = self.keys[phase.name] = digest_json(ingredients)
        self.stores |= {store_folder(name, digest_json(each)) for name, each in ingredients["functions"].items()}
        folder = WorkFolder(self.storage, phase.name, key, together=phase.units is not None)
        record = finished(self.storage, phase.name, key, self.generation)
        if record is not None and (lost := Table(self.storage, record).lost()):
            self.progress.say(f"{phase.name}: {len(lost)} of its files are lost, made again")
            reopen(folder, record, [receipt for receipt in folder.receipts(0) if _is_lost(receipt, lost)])
            record = None
        if record is not None:
            self._met(record)
            self.progress.cached(phase.name, record.rows)
            return record
        began = time.monotonic()
        self.places[phase.name] = folder.name
        self.begun(self)
        self.progress.begin(phase.name)
        resumed = len(folder.receipts(self.generation))
        if not resumed and (old := earlier(self.storage, phase.name, ingredients["functions"], self.sample)):
            self._adopt(phase, key, ingredients["functions"], old)
        tries = self._complete(phase, key, folder)
        receipts = folder.receipts(self.generation)
        counts: dict[str, int] = {}
        for receipt in receipts:
            for name, number in receipt.counts.items():
                counts[name] = counts.get(name, 0) + number
        looked_up, computed, _ = self._told(phase.name)
        table, digest = folder.finish(receipts, phase.schema)
        seconds = time.monotonic() - began
        record = PhaseRecord(
            phase=phase.name,
            key=key,
            generation=self.generation,
            table=table,
            digest=digest,
            rows=sum(receipt.part.rows for receipt in receipts),
            decisions=tuple(file for receipt in receipts for file in receipt.decisions),
            files=tuple(file for receipt in receipts for file in receipt.files),
            ingredients=ingredients,
            counts=dict(sorted(counts.items())),
            run={
                "seconds": round(seconds, 3),
                "finished": now(),
                "rows_remembered": looked_up,
                "rows_computed": computed,
                "ranges": len(receipts),
                "ranges_resumed": resumed,
                "tries": tries,
            },
        )
        self.storage.write(Table(self.storage, record).record_name, record.to_json().encode())
        self._met(record)
        remark = f"{looked_up:,} remembered" if looked_up else ""
        dropped = sum(file.rows for file in record.decisions)
        self.progress.end(phase.name, record.rows, dropped, seconds, remark)
        return record

    def _met(self, record: PhaseRecord) -> None:
        self.records[record.phase] = record
        self.places[record.phase] = Table(self.storage, record).record_name

    def _adopt(self, phase: Phase, key: str, functions: Mapping[str, Any], old: Mapping[str, str]) -> None:
        """Take over rows of functions whose key changed and whose results did not, and say so."""
        ranges = self._ranges(phase)
        probe = Probe(self.storage, old, max(1, self.sample // len(ranges)))
        work = self._work(phase, key, ranges, isolate=False, probe=probe)
        try:
            self._try(work, ranges, work.folder)
        except Exception as error:
            if _crash(error) is None:
                raise
            _log.warning("%s: a worker died while rows were compared: they are computed again", phase.name)
            return
        for name, (sampled, differing) in sorted(work.folder.take_comparisons().items()):
            what = f"{phase.name}: {name} is made by other code or libraries than before"
            if sampled and not differing:
                adopt(self.storage, name, functions[name], old[name])
                self.progress.say(f"{what}: {sampled:,} of its rows come out the same, all are kept")
            elif differing:
                self.progress.say(f"{what}: {differing:,} of {sampled:,} rows come out otherwise, all are made again")

    def _work(
        self, phase: Phase, key: str, ranges: Sequence[KeyRange], *, isolate: bool, probe: Probe | None = None
    ) -> Work:
        return Work(
            phase=phase,
            key=key,
            ranges=ranges,
            storage=self.storage,
            inputs={name: self.table(name) for name in phase.inputs},
            isolate=isolate,
            generation=self.generation,
            tally=self.tally,
            probe=probe,
        )

    def _told(self, phase: str) -> list[int]:
        return [0, 0, 0] if self.tally is None else told(self.tally, phase)

    def _ranges(self, phase: Phase) -> list[KeyRange]:
        """What the phase is cut into: by the processors at hand and the bytes of its inputs, unless it says how."""
        if phase.layout is not None:
            return list(phase.layout({name: self.records[name].counts for name in phase.inputs}))
        if phase.whole:
            return [WHOLE]
        size = max((sum(part.bytes for part in self.table(name).parts) for name in phase.inputs), default=0)
        wanted = max(FEWEST_RANGES, RANGES_A_CPU * math.ceil(self.resources.cpus), math.ceil(size / PART_BYTES))
        return evenly(min(BUCKETS, 1 << (wanted - 1).bit_length()))

    def _complete(self, phase: Phase, key: str, folder: WorkFolder) -> int:
        """Run until every range has a receipt in the folder; returns the number of tries it took."""
        ranges = self._ranges(phase)
        total = 0
        fruitless = 0
        before: tuple[int, int] | None = None
        while True:
            done = [receipt.keys for receipt in folder.receipts(self.generation)]
            pending = left(done, ranges) if phase.layout is None else [each for each in ranges if each not in done]
            if not pending:
                return total
            work = self._work(phase, key, pending, isolate=fruitless >= PLAIN_TRIES)
            total += 1
            try:
                self._try(work, ranges, folder)
            except Exception as error:
                crash = _crash(error)
                if crash is None:
                    raise
                after = len(folder.receipts(self.generation)), len(self.storage.walk("rows"))
                fruitless = fruitless + 1 if after == before else 1
                before = after
                _log.warning("%s: a worker died (%s), try %d", phase.name, crash, total)
                if fruitless >= MAX_TRIES:
                    raise PhaseFailed(
                        f"{phase.name}: workers died {fruitless} times without progress: {crash}"
                    ) from None

    def _try(self, work: Work, ranges: Sequence[KeyRange], folder: WorkFolder) -> None:
        phase = work.phase
        everything = range(len(work.ranges))
        if phase.exchange is None:
            self._drain(work, self._mapped(work, everything))
            return
        units = self._units(phase, ranges)
        if units:
            self._drain(work, self._exchanged(work, units))
        if work.probe is not None:
            return
        # Ranges to which no row came are made from no rows.
        done = {receipt.keys for receipt in folder.receipts(self.generation)}
        empty = [index for index in everything if work.ranges[index] not in done]
        if empty:
            self._drain(work, self._mapped(work, empty))

    def _units(self, phase: Phase, ranges: Sequence[KeyRange]) -> list[Any]:
        if phase.units is not None:
            return list(phase.units(_Scout(phase.name, self.storage, self.generation, self.tally, self.progress)))
        return list(ranges)

    def _drain(self, work: Work, dataset: ray.data.Dataset) -> None:
        for done, _ in enumerate(dataset.iter_rows(), start=1):
            self.progress.tick(done, len(work.ranges))

    def _mapped(self, work: Work, indices: Sequence[int]) -> ray.data.Dataset:
        def run(row: dict[str, Any]) -> dict[str, Any]:
            return work.run(int(row["index"]), None)

        run.__name__ = work.phase.name
        dataset = ray.data.from_items([{"index": i} for i in indices], override_num_blocks=len(indices))
        if work.phase.actors:
            return dataset.map_batches(
                _resident(work), fn_constructor_args=(work,), batch_size=1, batch_format="pyarrow", **self._pool()
            )
        return dataset.map(run, max_retries=0, **self._share(work.phase))

    def _exchanged(self, work: Work, units: Sequence[Any]) -> ray.data.Dataset:
        def emit(batch: dict[str, Any]) -> Iterator[pa.Table]:
            for index in batch["unit"]:
                rows = work.emit(units[int(index)])
                if rows.num_rows:
                    yield rows

        def run(block: pa.Table) -> pa.Table:
            return pa.Table.from_pylist(_run_block(work, block), schema=_SAID)

        # What Ray calls the operators, in its dashboard and its own words.
        emit.__name__, run.__name__ = f"{work.phase.name}.rows", work.phase.name
        dataset = ray.data.from_items([{"unit": i} for i in range(len(units))], override_num_blocks=len(units))
        rows = dataset.map_batches(emit, batch_size=None, max_retries=0)
        inner: list[int | float] = list(range(1, len(work.ranges)))
        met: ray.data.Dataset = rows.sort(RANGE, boundaries=inner) if inner else rows.repartition(1)
        if work.phase.actors:
            # The sort ends before its reader begins anyhow; seen through first, its tasks cannot wait for CPUs that
            # the actors hold.
            resident: ray.data.Dataset = met.materialize().map_batches(
                _resident(work), fn_constructor_args=(work,), batch_size=None, batch_format="pyarrow", **self._pool()
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
    generation: int
    tally: Any
    progress: Progress

    def each(self, units: Sequence[Any], visit: Callable[[Part, Any], dict[str, Any]]) -> list[dict[str, Any]]:
        """As pipeline.engine.phase.Scout has it."""
        phase, storage, generation, tally = self.phase, self.storage, self.generation, self.tally

        def told(found: int, made: int) -> None:
            tell(tally, phase, found, made, 0, seen=True)

        def run(row: dict[str, Any]) -> dict[str, Any]:
            part = Part(phase, "", WHOLE, storage, {}, generation=generation, tell=told)
            return visit(part, units[int(row["unit"])])

        dataset = ray.data.from_items([{"unit": i} for i in range(len(units))], override_num_blocks=len(units))
        answers = []
        for answer in dataset.map(run, max_retries=0).iter_rows():
            answers.append(answer)
            self.progress.tick(len(answers), len(units))
        return answers


_SAID = pa.schema([("range", pa.int64()), ("rows", pa.int64()), ("dropped", pa.int64())])


class _Resident:
    """A phase held by an actor, so that its models are loaded once."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self, block: pa.Table) -> pa.Table:
        if RANGE in block.column_names:
            said = _run_block(self._work, block)
        else:
            said = [self._work.run(int(i), None) for i in block.column("index").to_pylist()]
        return pa.Table.from_pylist(said, schema=_SAID)


def _resident(work: Work) -> type[_Resident]:
    """An actor's class, called after its phase."""
    return type(work.phase.name, (_Resident,), {})


def _run_block(work: Work, block: pa.Table) -> list[dict[str, int]]:
    """Every range of a block: one, unless the cluster packed several into it."""
    if not block.num_rows:
        return []
    said = []
    owners = block.column(RANGE)
    for index in sorted(set(owners.to_pylist())):
        mine = pa.compute.equal(owners, index)
        said.append(work.run(index, block.filter(mine).drop_columns([RANGE])))
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
