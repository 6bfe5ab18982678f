"""How busy an encoder is kept: pictures are decoded and resized on CPUs while its actor is at work.

python -m benchmarks.encoders                    # 100 batches of 64 pictures
python -m benchmarks.encoders --batches 20

The encoder only sleeps, on no CPU, .8 of the time that the machine takes to prepare a batch with all its CPUs, as a GPU
does that is a little faster than what feeds it. Its busy time is counted from the first row that is asked about to the
last that is kept: filling and draining are in it.
"""

from __future__ import annotations

import functools
import io
import os
import tempfile
import time
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer
from PIL import Image

from pipeline.engine.cluster import connected
from pipeline.engine.phase import Exchange, Part, Phase, Step
from pipeline.engine.plans import configure_ray_data
from pipeline.engine.progress import Progress
from pipeline.engine.resources import OperatorSettings, Resources
from pipeline.engine.runner import Runner
from pipeline.engine.storage import Storage
from schemas.contract import contract
from schemas.keys import digest
from stages.encoders.pixels import packed, squeezed
from stages.row_function import ERROR, Settings

BATCH = 64
# Pictures are large against what the encoder sees, as photographs are.
SIDE = 900
PICTURE = contract("picture", 1, [pa.field("id", pa.string(), nullable=False), pa.field("n", pa.int64())], key="id")
DONE = contract("done", 1, [pa.field("id", pa.string(), nullable=False)], key="id")


class _Times(Settings):
    seconds_a_row: float
    """Seconds that the encoder sleeps for a picture."""


class Sleeping:
    """PreparedFunction: pictures, decoded and resized, into nothing, slowly."""

    name = "encode"
    libraries = ("numpy", "pillow")
    weights = None
    limits = None
    batch_size = BATCH
    output = pa.schema([ERROR])

    def __init__(self, seconds_a_row: float) -> None:
        self.settings = _Times(seconds_a_row=seconds_a_row)

    def prepare(self, rows: pa.Table) -> pa.Table:
        """`n`, a picture's number, in, `pixels` out."""
        seen = [packed(_prepared(_pictures()[n % len(_pictures())])) for n in rows.column("n").to_pylist()]
        return pa.table({"pixels": pa.array(seen, pa.large_binary()), "error": pa.nulls(len(seen), pa.string())})

    def forward(self, prepared: pa.Table) -> pa.Table:
        """Sleeps for each row."""
        time.sleep(self.settings.seconds_a_row * prepared.num_rows)
        return prepared.select([ERROR.name])

    def __call__(self, rows: pa.Table) -> pa.Table:
        return self.forward(self.prepare(rows))


def _prepared(body: bytes) -> np.ndarray[Any, Any]:
    return squeezed(Image.open(io.BytesIO(body)).convert("RGB"))


@functools.cache
def _pictures() -> list[bytes]:
    """JPEG files, made once a process."""
    chance = np.random.default_rng(0)
    found = []
    for _ in range(16):
        coarse = Image.fromarray(chance.integers(0, 255, (30, 30, 3), dtype=np.uint8))
        sink = io.BytesIO()
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(sink, "jpeg", quality=90)
        found.append(sink.getvalue())
    return found


def _phases(count: int, seconds_a_row: float) -> list[Phase]:
    def emit(part: Part, unit: Any) -> pa.Table:
        return pa.table({"id": [digest(str(n)) for n in unit], "n": pa.array(unit, pa.int64())})

    def given(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        return rows

    made = Phase(
        name="pictures",
        schema=PICTURE,
        run=given,
        settings={"count": count},
        units=lambda scout: [range(start, min(start + 256, count)) for start in range(0, count, 256)],
        exchange=Exchange(key="id", order=("id",), schema=pa.schema(list(PICTURE)), emit=emit),
    )
    step = Step(
        Sleeping(seconds_a_row),
        lambda part: part.read("pictures"),
        owner="id",
        key=("id",),
        table="pictures",
        model=True,
    )

    def done(part: Part, rows: pa.Table | None) -> pa.Table:
        asked, _ = part.answers(step)
        return asked.select(["id"])

    return [made, Phase(name="done", schema=DONE, run=done, inputs=("pictures",), steps=(step,))]


def main(batches: Annotated[int, typer.Option(min=1)] = 100) -> None:
    """Print what the phase's record says of its model."""
    cpus = os.cpu_count() or 1
    bodies = _pictures()
    began = time.process_time()
    for n in range(BATCH):
        packed(_prepared(bodies[n % len(bodies)]))
    seconds_a_row = (time.process_time() - began) / BATCH
    operators = {"encode": OperatorSettings(cpus=0, min_workers=1, max_workers=1)}
    print(f"{BATCH} pictures are prepared in {seconds_a_row * BATCH:.2f} s on one CPU, of which there are {cpus}")
    with tempfile.TemporaryDirectory() as folder, connected(None, 1_000_000_000) as found:
        configure_ray_data()
        with Progress(lambda phase: [0, 0, 0], live=False) as progress:
            runner = Runner(Storage(folder), Resources(found["CPU"], 0.0, operators), progress, None)
            for phase in _phases(batches * BATCH, 0.8 * seconds_a_row / cpus):
                runner.run(phase)
        said = runner.records["done"].run["models"]["encode"]
    print(f"encoder: {said['rows']:,} pictures in {said['seconds']:.1f} s, busy {said['busy']:.1%} of it")


if __name__ == "__main__":
    # As a module that workers can import, which what is run is not.
    from benchmarks import encoders

    typer.run(encoders.main)
