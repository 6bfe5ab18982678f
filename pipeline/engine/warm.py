"""What warm plans do in Ray's workers: rows that no store answers stream through a row function into its store.

The store is their only effect, and it takes a row any number of times; whatever stops a plan, the next one asks about
the rows that are still missing. Parts are made afterwards, from the store alone.

    ask      a block of a table or of an exchange -> the rows that are not computed yet
    compute  these -> the store, where the function needs no model
    prepare  these -> what the model sees (decoded and resized pictures), on CPUs
    Model    that -> results, in actors that hold the model
    keep     these -> the store
    Errands  what the world outside is asked for -> the store, in actors that are at many ranges at once
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipeline.engine import memo
from pipeline.engine.key_range import KeyRange, hull, places
from pipeline.engine.phase import Step
from pipeline.engine.row_store import GENERATION, ROW_KEY
from pipeline.engine.worker import RANGE, Work
from schemas.contract import key_of
from stages.row_function import PreparedFunction, RowFunction, limits_of

# A killed worker loses at most this much work.
FLUSH_SECONDS = 5.0
FLUSH_ROWS = 4096
# Results of a model that are kept at a time.
KEPT_ROWS = 1024
# Seconds that a model took, beside the first of the rows that it took them for.
SECONDS = "seconds"
# Which of a pool's actors made a row.
ACTOR = "actor"
# What a plan tells the driver: rows computed, how many of them came out otherwise than before, seconds of models; and
# in rows of zeros, further actors at work.
TOLD = pa.schema(
    [
        pa.field("rows", pa.int64()),
        pa.field("differing", pa.int64()),
        pa.field(SECONDS, pa.float64()),
        pa.field(ACTOR, pa.string()),
    ]
)


def ask(work: Work, step: Step, block: pa.Table) -> pa.Table:
    """Rows of a block that the step's function has to compute, by key, each once: ROW_KEY and its input columns."""
    found: list[pa.Table] = []
    for keys, held, rows in _ranges(work, step, block):
        part = work.part(keys)
        if step.table is not None:
            part.held[step.table] = held
        part.rows = rows
        asked = step.rows(part)
        keyed = asked.append_column(ROW_KEY, memo.row_keys(asked, step.owner, step.key))
        if work.probe is not None:
            found.append(work.probe.drawn(step.function, keyed, keys))
            continue
        missing, there = memo.unanswered(
            step.function, keyed, storage=work.storage, within=keys, generation=work.generation
        )
        part.tell(there, 0)
        found.append(missing)
    return pa.concat_tables(found) if found else pa.table({ROW_KEY: pa.array([], pa.string())})


def _ranges(work: Work, step: Step, block: pa.Table) -> Iterator[tuple[KeyRange, pa.Table, pa.Table | None]]:
    """The key ranges of a block: of an exchange those that it was cut by, of a table the one from first to last row."""
    if not block.num_rows:
        return
    if step.table is None:
        for index, rows in by_range(block):
            yield work.ranges[index], rows, work.ordered(rows)
        return
    yield hull(block.column(key_of(block.schema))), block, None


def by_range(block: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """Every range of an exchanged block: one, unless the cluster packed several into it."""
    if block.num_rows:
        owners = block.column(RANGE)
        for index in sorted(set(owners.to_pylist())):
            yield index, block.filter(pc.equal(owners, index)).drop_columns([RANGE])


def compute(work: Work, step: Step, asked: pa.Table) -> pa.Table:
    """Run the function over its rows, its own number at a time, and store what it makes of them; a row of TOLD."""
    desk = _Desk(work, step.function, within=hull(asked.column(ROW_KEY)) if asked.num_rows else None)
    size = work.batch_size(step.function)
    for start in range(0, asked.num_rows, size):
        rows = asked.slice(start, size)
        desk.take(rows.column(ROW_KEY), _made(work, step.function, rows))
    return desk.told()


def _inputs(work: Work, rows: pa.Table) -> pa.Table:
    """What a function sees of rows that are asked about: without their keys, and bytes in place of locators."""
    return memo.load_blobs(work.storage, rows.drop_columns([ROW_KEY]))


def _made(work: Work, function: RowFunction, rows: pa.Table) -> pa.Table:
    """Results of a batch that is asked about; rows that the function fails on are rows with an error."""
    alone = work.isolate or limits_of(function) is not None
    return (memo.compute_isolated if alone else memo.compute)(function, _inputs(work, rows))


def prepare(work: Work, step: Step, asked: pa.Table) -> Iterator[pa.Table]:
    """What the step's model sees of its rows, a batch of it after the other, always in the same order."""
    function = step.function
    assert isinstance(function, PreparedFunction)
    size = work.batch_size(function)
    for start in range(0, asked.num_rows, size):
        rows = asked.slice(start, size)
        yield function.prepare(_inputs(work, rows)).append_column(ROW_KEY, rows.column(ROW_KEY))


class _Forward:
    """A function behind its preparation, as a row function is run."""

    limits = None

    def __init__(self, function: PreparedFunction) -> None:
        self._function = function
        self.name = function.name
        self.output = function.output

    def __call__(self, rows: pa.Table) -> pa.Table:
        return self._function.forward(rows)


class Model:
    """A step's function held by an actor, so that what it loads is loaded once."""

    def __init__(self, work: Work, step: Step) -> None:
        function = step.function
        self._function = cast(RowFunction, _Forward(function)) if isinstance(function, PreparedFunction) else function
        self._work = work
        self._name = ray.get_runtime_context().get_actor_id()

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Rows of the function's output, with their ROW_KEY, and in the first of them the seconds that all took."""
        began = time.monotonic()
        made = _made(self._work, self._function, rows)
        seconds = [time.monotonic() - began, *[0.0] * (rows.num_rows - 1)][: rows.num_rows]
        made = made.append_column(ROW_KEY, rows.column(ROW_KEY)).append_column(SECONDS, pa.array(seconds, pa.float64()))
        return made.append_column(ACTOR, pa.array([self._name] * rows.num_rows, pa.string()))


class Errands:
    """A phase's errand in an actor."""

    def __init__(self, work: Work, concurrency: int) -> None:
        assert work.phase.errand is not None
        self._run = work.phase.errand.open(concurrency)
        self._work = work

    def __call__(self, block: pa.Table) -> pa.Table:
        """Everything that the ranges of an exchanged block ask for; a row of TOLD."""
        brought = 0
        for index, rows in by_range(block):
            part = self._work.part(self._work.ranges[index])
            part.rows = self._work.ordered(rows)
            brought += self._run(part)
        return pa.Table.from_pylist([{"rows": brought, "differing": 0, SECONDS: 0.0, ACTOR: None}], schema=TOLD)


def keep(work: Work, step: Step, made: pa.Table) -> pa.Table:
    """Store what a model made; a row of TOLD."""
    desk = _Desk(work, step.function)
    if made.num_rows:
        made = made.sort_by(ROW_KEY)
        desk.seconds = float(pc.sum(made.column(SECONDS)).as_py() or 0.0)
        desk.actors = pc.unique(made.column(ACTOR)).to_pylist()
        desk.take(made.column(ROW_KEY), made.select(step.function.output.names).cast(step.function.output))
    return desk.told()


@dataclass
class _Desk:
    """Where results go: into the store of their function, or beside those that an earlier store has."""

    work: Work
    function: RowFunction
    # Range of all rows that this call is to take, where no other takes rows of it.
    within: KeyRange | None = None
    rows: int = 0
    differing: int = 0
    seconds: float = 0.0
    actors: list[str] = field(default_factory=list)
    waiting: list[pa.Table] = field(default_factory=list)
    flushed: float = field(default_factory=time.monotonic)

    def take(self, keys: pa.ChunkedArray, made: pa.Table) -> None:
        """Results of rows, by key."""
        self.rows += made.num_rows
        if self.work.probe is not None:
            self.differing += self.work.probe.differing(self.function, keys, made)
            return
        made = memo.judged(made.append_column(memo.RETRYABLE, pa.nulls(made.num_rows, pa.bool_())))
        made = made.add_column(0, ROW_KEY, keys)
        generation = pa.array([self.work.generation] * made.num_rows, pa.int32())
        self.waiting.append(made.add_column(1, GENERATION, generation))
        late = time.monotonic() - self.flushed > FLUSH_SECONDS
        if late or self.work.isolate or sum(table.num_rows for table in self.waiting) >= FLUSH_ROWS:
            self._flush()

    def _flush(self, *, last: bool = False) -> None:
        if self.waiting:
            rows = pa.concat_tables(self.waiting)
            store = memo.store_of(self.function, self.work.storage)
            if last and self.within is not None:
                # Whoever is alone at a range puts its rows where they stay.
                store.compact(self.within, rows, wanted=())
            else:
                # A file for each range: who compacts a range can then drop it.
                at = pa.array(places(rows.column(ROW_KEY), self.work.ranges))
                for index in pc.unique(at).to_pylist():
                    mine = rows.filter(pc.equal(at, index))
                    store.append(mine, hull(mine.column(ROW_KEY)))
            self.work.told(0, rows.num_rows)
            self.waiting.clear()
        self.flushed = time.monotonic()

    def told(self) -> pa.Table:
        """The end of a call: everything is stored, and the driver is told how much it was."""
        self._flush(last=True)
        said: dict[str, Any] = {"rows": self.rows, "differing": self.differing, SECONDS: self.seconds}
        others = [{"rows": 0, "differing": 0, SECONDS: 0.0, ACTOR: actor} for actor in self.actors[1:]]
        return pa.Table.from_pylist([{**said, ACTOR: next(iter(self.actors), None)}, *others], schema=TOLD)
