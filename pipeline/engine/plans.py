"""The plans of a phase as Ray Data runs them: what streams into row stores, what is exchanged, what makes the parts.

Operators are called after what they do: `Read<table>`, `<function>.ask`, `<function>`, `<phase>.rows`, `<phase>`.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray.data
from ray.data.context import DataContext, ShuffleStrategy

from pipeline.engine import warm
from pipeline.engine.key_range import KeyRange, overlapping
from pipeline.engine.phase import Step
from pipeline.engine.resources import RETRIES, Resources
from pipeline.engine.table_source import TableSource
from pipeline.engine.worker import RANGE, Work, hide_unasked_gpus
from stages.row_function import PreparedFunction

# What a model sees comes in blocks of this size, so that its first batch is soon there and few wait in memory.
MODEL_BLOCK_BYTES = 16_000_000
SAID = pa.schema([pa.field(RANGE, pa.int64()), pa.field("rows", pa.int64()), pa.field("dropped", pa.int64())])


def stream(work: Work, step: Step) -> ray.data.Dataset | None:
    """The rows of a step's table, of the ranges at work; None where there are none."""
    assert step.table is not None
    table = work.inputs[step.table]
    there = [part for part in table.parts if part.rows]
    touched = overlapping([KeyRange(part.first, part.last) for part in there], work.ranges)
    parts = list(itertools.compress(there, touched))
    if not parts:
        return None
    read: ray.data.Dataset = ray.data.read_datasource(
        TableSource(table, parts),
        override_num_blocks=len(parts),
        ray_remote_args={"max_retries": RETRIES},
    )
    return read


def warmed(work: Work, step: Step, rows: ray.data.Dataset, resources: Resources) -> ray.data.Dataset:
    """Rows of a table or an exchange through a step's function into its store; rows of warm.TOLD come out."""
    function = step.function
    name = function.name

    def mapped(
        dataset: ray.data.Dataset, run: Callable[..., Any], shown: str, given_to: str, batch_size: int | None = None
    ) -> ray.data.Dataset:
        def over(block: pa.Table) -> Any:
            hide_unasked_gpus()
            return run(work, step, block)

        given = {"batch_size": batch_size, "batch_format": "pyarrow", **resources.task(given_to)}
        made: ray.data.Dataset = dataset.map_batches(_called(over, shown), **given)
        return made

    # What asks takes what follows it does, so that Ray makes them one task: rows go through no object store between.
    before, kept = f"{name}.prepare", f"{name}.keep"
    asked = mapped(rows, warm.ask, f"{name}.ask", before if step.model else name)
    if not step.model:
        return _shown(mapped(asked, warm.compute, name, name), work, name)
    asked.context.target_max_block_size = MODEL_BLOCK_BYTES
    if isinstance(function, PreparedFunction):
        asked = mapped(asked, warm.prepare, before, before)
    made: ray.data.Dataset = asked.map_batches(
        type(name, (warm.Model,), {}),
        fn_constructor_args=(work, step),
        batch_size=work.batch_size(function),
        batch_format="pyarrow",
        **resources.pool(name),
    )
    return _shown(mapped(made, warm.keep, kept, kept, warm.KEPT_ROWS), work, name)


def brought(work: Work, met: ray.data.Dataset, resources: Resources) -> ray.data.Dataset:
    """The rows of an exchange through the phase's errand, what it brings into its store; rows of warm.TOLD come out."""
    errand = work.phase.errand
    assert errand is not None
    members = min(len(work.ranges), resources.crew(errand.name, errand.concurrency))
    made: ray.data.Dataset = met.map_batches(
        type(errand.name, (warm.Errands,), {}),
        fn_constructor_args=(work, max(1, errand.concurrency // members)),
        batch_size=None,
        batch_format="pyarrow",
        **resources.errand(errand.name, members, len(work.ranges)),
    )
    return _shown(made, work, errand.name)


def exchanged(work: Work, units: Sequence[Any], resources: Resources) -> ray.data.Dataset:
    """Rows of an exchange, every range in one block."""

    def emit(batch: dict[str, Any]) -> Iterator[pa.Table]:
        for index in batch["unit"]:
            rows = work.emit(units[int(index)])
            if rows.num_rows:
                yield rows

    operator = f"{work.phase.name}.rows"
    dataset = ray.data.from_items([{"unit": i} for i in range(len(units))], override_num_blocks=len(units))
    rows = dataset.map_batches(_called(emit, operator), batch_size=None, **resources.task(operator))
    inner: list[int | float] = list(range(1, len(work.ranges)))
    return _shown(rows.sort(RANGE, boundaries=inner) if inner else rows.repartition(1), work, "rows")


def assembled(
    work: Work, indices: Sequence[int], rows: ray.data.Dataset | None, resources: Resources
) -> ray.data.Dataset:
    """Parts of the ranges with these indices, or of those that exchanged rows belong to; rows of SAID come out."""
    share = resources.task(work.phase.name, gpu=work.phase.gpu)

    def make(block: pa.Table) -> pa.Table:
        if RANGE in block.column_names:
            said = [work.run(index, mine) for index, mine in warm.by_range(block)]
        else:
            said = [work.run(int(index), None) for index in block.column("index").to_pylist()] if block.num_rows else []
        return pa.Table.from_pylist(said, schema=SAID)

    if rows is None:
        rows = ray.data.from_items([{"index": i} for i in indices], override_num_blocks=len(indices))
    made = rows.map_batches(_called(make, work.phase.name), batch_size=None, batch_format="pyarrow", **share)
    return _shown(made, work, "parts")


def _shown(plan: ray.data.Dataset, work: Work, what: str) -> ray.data.Dataset:
    """The plan under the name that Ray's dashboard shows it by."""
    plan.set_name(f"{work.phase.name}_{what}")
    return plan


def _called(run: Callable[..., Any], operator: str) -> Callable[..., Any]:
    """The function under the name that Ray calls its operator by."""
    run.__name__ = operator
    return run


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
