"""Phases: the steps of a build, as data. What a phase is made of is what its key is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from pipeline.engine import memo
from pipeline.engine.key_range import KeyRange
from pipeline.engine.keys import code_key, function_ingredients, settings_json
from pipeline.engine.storage import Storage
from pipeline.engine.table import Table
from schemas.contract import identity, table_from_rows
from schemas.decision import DECISION
from schemas.keys import digest, library_versions
from stages.row_function import RowFunction

# What every table goes through: who makes a part, remembers its rows and spreads them.
_EVERY_MODULE = tuple(
    f"pipeline.engine.{name}" for name in ("key_range", "memo", "packs", "phase", "row_store", "warm", "worker")
)
_EVERY_LIBRARY = ("numpy", "pyarrow", "xxhash")


@dataclass(frozen=True)
class File:
    """A file that a group function makes beside its table's rows; the engine writes and lists it."""

    name: str  # from the corpus root
    data: bytes
    rows: int


@dataclass
class Part:
    """One key range of one phase at work: what its code may see and say. Lives in a worker.

    What it reads is read for it: a group function knows rows, and no storage.
    """

    phase: str
    key: str
    keys: KeyRange
    # Only for phases whose rows come from outside: sources and fetches, which store what they read at once.
    storage: Storage
    inputs: Mapping[str, Table]
    rows: pa.Table | None = None  # what the exchange brought to this range
    generation: int = 0  # how often failures that may pass have been asked for again
    tell: Callable[[int, int], None] = lambda looked_up, computed: None
    decisions: list[pa.Table] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)
    # Input rows of this range that are at hand.
    held: dict[str, pa.Table] = field(default_factory=dict)

    @property
    def counted(self) -> dict[str, dict[str, int]]:
        """What the inputs' records count, by phase."""
        return {name: table.record.counts for name, table in self.inputs.items()}

    def read(self, phase: str) -> pa.Table:
        """The same key range of an input table, by key."""
        if phase not in self.held:
            self.held[phase] = self.inputs[phase].read(self.keys)
        return self.held[phase]

    def read_all(self, phase: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All of an input table, or some of its columns, a file after the other."""
        return self.inputs[phase].read_all(columns)

    def answers(self, step: Step) -> tuple[pa.Table, pa.Table]:
        """(The rows that a step of this phase asks about, what its function made of each, in the same order.)

        large_binary results are locators. What failed in a way that may pass says so in the column `retryable`, and is
        counted under that name. memo.Unanswered when the store lacks a row.
        """
        asked = step.rows(self)
        keys = memo.row_keys(asked, step.owner, step.key)
        found = memo.answers(step.function, keys, storage=self.storage, within=self.keys)
        self.add_true("retryable", found.column(memo.RETRYABLE.name))
        return asked, found

    def blobs(self, locators: pa.ChunkedArray | pa.Array) -> list[bytes | None]:
        """Bytes behind locators; None where there is none."""
        column = memo.load_blobs(self.storage, pa.table({"body": locators})).column(0)
        found: list[bytes | None] = column.to_pylist()
        return found

    def put_file(self, name: str, data: bytes, rows: int) -> None:
        """A file outside the table's folder, named from the corpus root, to be written and listed in the manifest."""
        self.files.append(File(name, data, rows))

    def decide(self, rows: pa.Table | Sequence[Mapping[str, Any]]) -> None:
        """Log decisions; the phase's name is filled in."""
        if isinstance(rows, pa.Table):
            if not rows.num_rows:
                return
            table = rows.set_column(0, "phase", pa.array([self.phase] * rows.num_rows, pa.string()))
        elif rows:
            table = table_from_rows([{**row, "phase": self.phase} for row in rows], DECISION)
        else:
            return
        self.decisions.append(table)

    def add(self, name: str, number: int) -> None:
        """Count something for the manifest."""
        self.counts[name] = self.counts.get(name, 0) + number

    def add_true(self, name: str, flags: pa.ChunkedArray) -> None:
        """Count a column's true values for the manifest; null is not true."""
        self.add(name, int(pc.sum(flags).as_py() or 0))


@dataclass(frozen=True)
class Step:
    """A row function of a phase, and the rows that it is asked about.

    They stream through it before the phase's parts are made, each row once ever; `rows` gives those of one range:
    the function's input columns (locators reach it as bytes), `owner`, the key column of this table, and `key`, the
    columns that decide a result.
    """

    function: RowFunction
    rows: Callable[[Part], pa.Table]
    owner: str
    key: tuple[str, ...]
    # The input table whose rows stream; None where they are those of the exchange.
    table: str | None = None
    # Whether it holds a model: it then lives in a pool of actors, on GPUs where there are any.
    model: bool = False


class Errand(Protocol):
    """What the rows of a phase's exchange need that only the world outside can give, as fetches do.

    Actors run it, each for many parts at once, before the phase's parts are made; what they bring they store, and
    whatever stops them, the next try asks for what is still missing.
    """

    @property
    def name(self) -> str:
        """The operator's name."""

    @property
    def concurrency(self) -> int:
        """Requests in flight at a time, over all actors."""

    def open(self, concurrency: int) -> Messenger:
        """An actor's share of it, with so many requests in flight."""


class Messenger(Protocol):
    """What an actor holds of an errand."""

    def __call__(self, part: Part) -> int:
        """Have stored what a part asks for and no store has; how many rows. Threads call it for parts of theirs."""


class Crew(Protocol):
    """Actors among which the key space is shared out, and which remember what they have seen."""

    @property
    def ranges(self) -> Sequence[KeyRange]:
        """What of the key space each member has."""

    def ask(self, questions: Mapping[int, Any]) -> list[Any]:
        """What the members with these indices, each asked at the same time, answer to their questions."""


class Scout(Protocol):
    """How the listing of a phase's units gets work done on the cluster before the phase itself begins."""

    def crew(
        self, member: Callable[[Part, int], Callable[[Any], Any]], requests: int, keys: int | None = None
    ) -> AbstractContextManager[Crew]:
        """Actors for so many requests in flight, each one `member(its part, how many they are)`, for the time of the
        block; no more than `keys`, where it is known that they will be asked about no more."""


@dataclass(frozen=True)
class Exchange:
    """Re-keying: `emit` turns a unit into rows, which meet again by the key range of their `key` column.

    Units are key ranges of the phase's inputs, or what the phase's `units` lists. Rows arrive sorted by `order`,
    whatever the cluster's blocks were; `order` must therefore determine them fully.
    """

    key: str
    order: tuple[str, ...]
    schema: pa.Schema
    # (part, unit): the unit is None where units are key ranges
    emit: Callable[[Part, Any], pa.Table]


@dataclass(frozen=True)
class Phase:
    """One step: `run(part, rows)` makes one part of its table; `rows` come from the exchange, else None."""

    name: str
    schema: pa.Schema
    run: Callable[[Part, pa.Table | None], pa.Table]
    inputs: tuple[str, ...] = ()
    settings: Mapping[str, BaseModel | str | int | float | bool | None] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    modules: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    exchange: Exchange | None = None
    # Listed by the driver before the phase runs (crawl levels, WARC files); what they stand for is in `settings`.
    units: Callable[[Scout], Sequence[Any]] | None = None
    # Rows that a unit stands for, where that is known before it is read.
    rows_of_unit: Callable[[Any], int] | None = None
    errand: Errand | None = None
    # Phases whose parts are computed on a GPU where the cluster has one; all others see none.
    gpu: bool = False
    # Steps that ask the network for what it has now.
    network: bool = False
    # Global steps run once, on all of the key space.
    whole: bool = False
    # Where ranges are no matter of processors: cut by what the inputs' records count, by phase (shards).
    layout: Callable[[Mapping[str, Mapping[str, int]]], Sequence[KeyRange]] | None = None

    @property
    def operators(self) -> list[str]:
        """Names under which Ray runs its work, and `resources.operators` of a spec may give each what it takes."""
        steps = [
            f"{step.function.name}{part}"
            for step in self.steps
            for part in (("", ".prepare", ".keep") if step.model else ("",))
        ]
        outside = [self.errand.name] if self.errand else [self.look] if self.network and self.units else []
        return [*steps, *outside, *([f"{self.name}.rows"] if self.exchange else []), self.name]

    @property
    def asks_exchanged(self) -> bool:
        """Whether a row function, or the world outside, is asked about the rows of its exchange."""
        return self.errand is not None or any(step.table is None for step in self.steps)

    @property
    def look(self) -> str:
        """The operator that looks around for its units."""
        return f"{self.name}.look"

    def ingredients(self, digests: Mapping[str, str]) -> dict[str, Any]:
        """Everything that shapes the table, by name; its digest is the phase key. `digests`: of the inputs' tables."""
        name, version = identity(self.schema)
        module = self.run.__module__
        return {
            "phase": self.name,
            "schema": f"{name}/{version}",
            "columns": digest(*map(str, self.schema)),
            "settings": {
                key: settings_json(value) if isinstance(value, BaseModel) else value
                for key, value in self.settings.items()
            },
            "functions": {step.function.name: function_ingredients(step.function) for step in self.steps},
            "code": {each: code_key(each) for each in sorted({*_EVERY_MODULE, *self.modules, module})},
            "libraries": library_versions((*_EVERY_LIBRARY, *self.libraries)),
            "inputs": {each: digests[each] for each in self.inputs},
        }
