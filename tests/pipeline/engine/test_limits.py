"""Rows that take too much, end their process or fail for a passing reason: decisions, tried again when asked to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.engine import memo, warm
from pipeline.engine.key_range import WHOLE
from pipeline.engine.memo import compute_isolated, may_pass
from pipeline.engine.phase import Phase, Step
from pipeline.engine.resident import Resident
from pipeline.engine.row_store import ROW_KEY
from pipeline.engine.storage import Storage
from pipeline.engine.worker import Work
from pipeline.phases.generation import Generation
from stages.row_function import ERROR, CannotRun, Limits, Settings, limits_of
from tests.pipeline.toy import NUMBER


class OrdersSettings(Settings):
    """Of Orders."""

    log: str | None = None
    """File that gets a line for every batch."""


class Orders:
    """Does what each row says, and answers with its own process."""

    name = "orders"
    libraries = ("pyarrow",)
    weights = None
    batch_size = 8
    limits: Limits | None = Limits(seconds=2, megabytes=800)
    output = pa.schema([pa.field("process", pa.int64()), ERROR])

    def __init__(self, settings: OrdersSettings) -> None:
        self.settings = settings

    def __call__(self, rows: pa.Table) -> pa.Table:
        orders = rows.column("order").to_pylist()
        if self.settings.log:
            with open(self.settings.log, "a") as file:
                file.write(",".join(orders) + "\n")
        for order in orders:
            if order == "spin":
                sum(range(10**12))  # one call into C: no bytecode between
            elif order == "hog":
                held = bytearray(10**9)
                held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
                time.sleep(60)
            elif order == "die":
                os.kill(os.getpid(), signal.SIGSEGV)
            elif order == "sleep":
                time.sleep(600)
            elif order == "no memory":
                raise MemoryError
            elif order == "never":
                raise ValueError("not liked")
            elif order == "cannot":
                raise CannotRun("orders: no such device")
        return pa.table({"process": [os.getpid()] * len(orders), "error": pa.nulls(len(orders), pa.string())})


@pytest.fixture
def resident() -> Iterator[Resident]:
    mine = Resident()
    yield mine
    mine.stop()


class Impatient(Orders):
    """With a shorter clock."""

    limits = Limits(seconds=0.1)


def done(resident: Resident, *orders: str, function: type[Orders] = Orders) -> list[tuple[int | None, str | None]]:
    table = compute_isolated(function(OrdersSettings()), pa.table({"order": orders}), resident)
    return list(zip(table.column("process").to_pylist(), table.column("error").to_pylist(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "error"),
    [
        pytest.param("spin", "TimeLimit: more than 2 seconds", marks=pytest.mark.slow),
        pytest.param("hog", "MemoryLimit: more than 800 megabytes", marks=pytest.mark.slow),
        ("die", "quarantined: orders ended its process (signal 11)"),
        ("no memory", "MemoryError: "),
    ],
)
def test_a_row_that_takes_too_much_is_an_error_row_and_costs_no_neighbour(
    resident: Resident, order: str, error: str
) -> None:
    before, there, after = done(resident, "a", order, "b")
    assert there == (None, error) and may_pass(error)
    for process, none in (before, after):
        assert none is None and process not in (None, os.getpid())


@pytest.mark.slow
def test_a_row_that_only_waits_is_given_up_too(resident: Resident) -> None:
    assert done(resident, "sleep", function=Impatient) == [(None, "TimeLimit: more than 0.1 seconds")]


@pytest.mark.slow
def test_a_child_lives_from_batch_to_batch_and_ends_with_its_worker(resident: Resident) -> None:
    ((first, _),) = done(resident, "a")
    assert done(resident, "never", "b") == [(None, "ValueError: not liked"), (first, None)]
    assert not may_pass("ValueError: not liked")
    with pytest.raises(CannotRun, match="no such device"):
        done(resident, "cannot")
    assert done(resident, "c") == [(first, None)]
    assert first is not None
    os.kill(first, 0)
    resident.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_limits_are_the_default_of_what_says_nothing_and_no_part_of_a_key() -> None:
    from pipeline.engine.keys import function_ingredients
    from stages.encoders.embed import EmbedImages
    from stages.extract import Extract, ExtractSettings
    from stages.images.decode import DecodeImage, ImagesSettings

    for function in (Extract(ExtractSettings()), DecodeImage(ImagesSettings())):
        assert limits_of(function) == Limits()
        assert "limits" not in function_ingredients(function)
    assert EmbedImages.limits is None


def applied(storage: Storage, log: Path, generation: int, *orders: str) -> list[tuple[str | None, bool]]:
    keys = pa.array([f"{index:032x}" for index in range(len(orders))], pa.string())
    function = Orders(OrdersSettings(log=str(log)))
    rows = pa.table({"order": orders, ROW_KEY: keys})
    asked, _ = memo.unanswered(function, rows, storage=storage, within=WHOLE, generation=generation)
    step = Step(function, lambda part: rows, owner="order", key=("order",))
    phase = Phase("orders", NUMBER, lambda part, rows: rows, steps=(step,))
    work = Work(phase, "", [WHOLE], storage, {}, isolate=False, generation=generation, tally=None, batch_sizes={})
    assert warm.compute(work, step, asked).column("rows").to_pylist() == [asked.num_rows]
    table = memo.answers(function, keys, storage=storage, within=WHOLE)
    return list(zip(table.column("error").to_pylist(), table.column("retryable").to_pylist(), strict=True))


@pytest.mark.slow
def test_failures_that_may_pass_are_remembered_until_they_are_asked_for_again(tmp_path: Path) -> None:
    storage, log = Storage(str(tmp_path)), tmp_path / "log"
    orders = ("a", "no memory", "never")
    expected = [(None, False), ("MemoryError: ", True), ("ValueError: not liked", False)]
    assert applied(storage, log, 0, *orders) == expected
    for generation, tried in ((0, ""), (1, "no memory\n"), (1, ""), (2, "no memory\n")):
        log.write_text("")
        assert applied(storage, log, generation, *orders) == expected
        assert log.read_text() == tried
    # The memory is there now: the same key, another answer, for good.
    assert applied(storage, log, 3, "a", "b", "never")[1] == (None, False)
    assert applied(storage, log, 0, *orders)[1] == (None, False)


def test_generations_of_all_snapshots_rise_together(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    one, other = Generation(storage, "one"), Generation(storage, "other")
    assert (one.advance(), one.advance(), other.current()) == (1, 2, 0)
    assert (other.advance(), one.current()) == (3, 2)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        ("extract: MemoryError: ", True),
        ("decode_image: OSError: [Errno 24] Too many open files", True),
        ("OutOfMemoryError: CUDA out of memory", True),
        ("OSError: image file is truncated", False),
        ("decode_image: ValueError: MemoryError is only named", False),
        (None, False),
    ],
)
def test_what_may_pass(error: str | None, passes: bool) -> None:
    assert may_pass(error) is passes
