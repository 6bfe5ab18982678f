"""Recovery: phases run in order, and what is found damaged on the way is made again where that can be done."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from ray.exceptions import RayTaskError

from pipeline.engine.damage import Damaged, can_be_made_again, damaged
from pipeline.engine.phase import Phase
from pipeline.engine.runner import PhaseFailed, Runner, reopen
from pipeline.engine.storage import Storage, StorageError, StorageFull
from pipeline.engine.table import newest_record, read_listed
from pipeline.engine.work_folder import Receipt, WorkFolder
from schemas.page import LOCATOR
from stages.row_function import CannotRun


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from; of one that Ray handed on, what the worker itself raised."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if not isinstance(error, RayTaskError):  # its text is the worker's traceback
            yield error
        context = None if error.__suppress_context__ else error.__context__
        error = getattr(error, "cause", None) or error.__cause__ or context


def line_for_people(error: BaseException) -> str | None:
    """The line of an error that says by itself what to do, wherever it was raised; None for any other."""
    for each in causes(error):
        if isinstance(each, StorageFull) or (isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT)):
            return f"{each.strerror}: {each.filename!r}" if each.filename else each.strerror
        if isinstance(each, StorageError | CannotRun | Damaged | PhaseFailed):
            return str(each).splitlines()[0]  # Ray Data puts lines of its own below
        # What Ray itself could not write is told in its words alone.
        if full := re.search(r"\[Errno 28\] (.*)", str(each)):
            return full[1].strip()
    return None


def run_phases(runner: Runner, phases: Sequence[Phase], after: Callable[[Phase], None]) -> None:
    """Bring every phase to a finished table; `after` is told of each.

    Where an object is found damaged that a phase before can make again, that phase and those that point to the object
    make their parts again, and the build goes on; Damaged where nothing can, or where it does not help.
    """
    met: set[str] = set()
    index = 0
    while index < len(phases):
        try:
            runner.run(phases[index])
            after(phases[index])
            index += 1
        except Exception as error:
            damage = next((each for each in causes(error) if isinstance(each, Damaged)), None)
            if damage is None:
                raise
            if damage.name is None or damage.name in met or not can_be_made_again(damage.name):
                raise damage from None
            met.add(damage.name)
            runner.storage.delete(damage.name)
            reopened = _reopened(runner, phases[: index + 1], damage.name)
            if not reopened:
                raise damage from None
            runner.progress.say(f"{damage.name} is damaged: made again, with what points to it")
            index = min(reopened)


def _reopened(runner: Runner, phases: Sequence[Phase], name: str) -> list[int]:
    """Take back that ranges are finished which hold the object or point to it; the places of their phases."""
    found = []
    for place, phase in enumerate(phases):
        if phase.name not in runner.keys:
            continue
        folder = WorkFolder(runner.storage, phase.name, runner.keys[phase.name])
        record = newest_record(runner.storage, phase.name, runner.keys[phase.name])
        receipts = folder.receipts(0)
        if name.startswith("tables/"):
            lost = [each for each in receipts if name in {file.name for file in (each.part, *each.decisions)}]
            if not lost and (record is None or name != record.table):
                continue
        elif not (lost := _pointing_nowhere(runner.storage, receipts, phase.schema)):
            continue
        reopen(folder, record, lost)
        found.append(place)
    return found


def _pointing_nowhere(storage: Storage, receipts: Sequence[Receipt], schema: pa.Schema) -> list[Receipt]:
    """Receipts of rows with a locator whose pack is not there; Damaged when nothing can make such a pack again."""
    columns = [field.name for field in schema if _holds_locators(field.type)]
    lost: list[Receipt] = []
    there: dict[str, set[str]] = {}
    for receipt in receipts if columns else ():
        packs: set[str] = set()
        try:
            rows = read_listed(storage, receipt.part)
        except Damaged:
            lost.append(receipt)
            continue
        packs.update(*(_packs(rows.column(name).combine_chunks()) for name in columns))
        gone = False
        for pack in sorted(packs):
            folder, _, name = pack.rpartition("/")
            if folder not in there:
                there[folder] = set(storage.names(folder))
            if name not in there[folder]:
                if not can_be_made_again(pack):
                    raise damaged(pack, "is missing")
                gone = True
        if gone:
            lost.append(receipt)
    return lost


def _holds_locators(kind: pa.DataType) -> bool:
    if kind == LOCATOR or not isinstance(kind, pa.StructType | pa.ListType | pa.LargeListType):
        return bool(kind == LOCATOR)
    return any(_holds_locators(kind.field(index).type) for index in range(kind.num_fields))


def _packs(values: pa.Array) -> set[str]:
    """Packs that the locators of a column, however deep they stand, point into."""
    if values.type == LOCATOR:
        return set(pc.unique(pc.struct_field(values, "pack")).to_pylist()) - {None}
    if isinstance(values.type, pa.ListType | pa.LargeListType):
        return _packs(values.flatten())
    fields = [f for f in range(values.type.num_fields) if _holds_locators(values.type.field(f).type)]
    return set().union(*(_packs(pc.struct_field(values, [field])) for field in fields))
