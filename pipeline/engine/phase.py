"""Phases: the steps of a build, as data. What a phase is made of is what its key is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from pipeline.engine import memo
from pipeline.engine.adoption import Probe
from pipeline.engine.key_range import KeyRange
from pipeline.engine.keys import code_key, function_ingredients, settings_json
from pipeline.engine.row_store import ROW_KEY
from pipeline.engine.storage import Storage
from pipeline.engine.table import Table, described
from schemas.contract import identity, table_from_rows
from schemas.decision import DECISION
from schemas.keys import digest, library_versions
from schemas.manifest import ListedFile
from stages.row_function import RowFunction

# What every table goes through: who makes a part, remembers its rows and spreads them.
_EVERY_MODULE = tuple(
    f"pipeline.engine.{name}" for name in ("key_range", "memo", "packs", "phase", "row_store", "worker")
)
_EVERY_LIBRARY = ("numpy", "pyarrow", "xxhash")


@dataclass
class Part:
    """One key range of one phase at work: what its code may see and say. Lives in a worker."""

    phase: str
    key: str
    keys: KeyRange
    storage: Storage
    inputs: Mapping[str, Table]
    isolate: bool = False
    generation: int = 0  # how often failures that may pass have been asked for again
    tell: Callable[[int, int], None] = lambda looked_up, computed: None
    # Where earlier rows are only compared: function -> [rows computed again, of these otherwise].
    probe: Probe | None = None
    compared: dict[str, list[int]] = field(default_factory=dict)
    decisions: list[pa.Table] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    files: list[ListedFile] = field(default_factory=list)

    @property
    def counted(self) -> dict[str, dict[str, int]]:
        """What the inputs' records count, by phase."""
        return {name: table.record.counts for name, table in self.inputs.items()}

    def read(self, phase: str) -> pa.Table:
        """The same key range of an input table, by key."""
        return self.inputs[phase].read(self.keys)

    def read_all(self, phase: str) -> Iterator[pa.Table]:
        """All of an input table, a file after the other."""
        return self.inputs[phase].read_all()

    def apply(self, function: RowFunction, rows: pa.Table, *, owner: str, key: Sequence[str]) -> pa.Table:
        """Memoised results of a row function, aligned with `rows`, its input columns.

        `owner` is the key column of this table, `key` the columns that decide a result. Locator columns
        reach the function as bytes; large_binary columns of the result come as locators. What failed in a way that may
        pass says so in the column `retryable`, and is counted under that name.
        """
        keyed = rows.append_column(ROW_KEY, memo.row_keys(rows, owner, key))
        if self.probe is not None:
            return self.probe.apply(function, keyed, self.keys, self.compared)
        found = memo.apply(
            function,
            keyed,
            storage=self.storage,
            within=self.keys,
            isolate=self.isolate,
            generation=self.generation,
            progress=self.tell,
        )
        self.add_true("retryable", found.column(memo.RETRYABLE.name))
        return found

    def blobs(self, locators: pa.ChunkedArray | pa.Array) -> list[bytes | None]:
        """Bytes behind locators; None where there is none."""
        column = memo.load_blobs(self.storage, pa.table({"body": locators})).column(0)
        found: list[bytes | None] = column.to_pylist()
        return found

    def put_file(self, name: str, data: bytes, rows: int) -> None:
        """Write a file outside the table's folder, named from the corpus root, and list it in the manifest."""
        self.storage.write(name, data)
        self.files.append(described(name, data, rows))

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


class Scout(Protocol):
    """How the listing of a phase's units gets work done on the cluster before the phase itself begins."""

    def each(self, units: Sequence[Any], visit: Callable[[Part, Any], dict[str, Any]]) -> list[dict[str, Any]]:
        """What `visit` answers for every unit, in any order; the part it sees covers the whole key space."""


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
    functions: tuple[RowFunction, ...] = ()
    modules: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    exchange: Exchange | None = None
    # Listed by the driver before the phase runs (crawl levels, WARC files); what they stand for is in `settings`.
    units: Callable[[Scout], Sequence[Any]] | None = None
    # Model phases hold their weights in a fixed pool of actors.
    actors: bool = False
    # Steps that compute on a GPU where the cluster has one; all others see none.
    gpu: bool = False
    # Steps that ask the network for what it has now.
    network: bool = False
    # Global steps run once, on all of the key space.
    whole: bool = False
    # Where ranges are no matter of processors: cut by what the inputs' records count, by phase (shards).
    layout: Callable[[Mapping[str, Mapping[str, int]]], Sequence[KeyRange]] | None = None

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
            "functions": {function.name: function_ingredients(function) for function in self.functions},
            "code": {each: code_key(each) for each in sorted({*_EVERY_MODULE, *self.modules, module})},
            "libraries": library_versions((*_EVERY_LIBRARY, *self.libraries)),
            "inputs": {each: digests[each] for each in self.inputs},
        }
