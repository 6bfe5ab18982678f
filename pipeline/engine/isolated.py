"""A process for one batch: reads (function, rows) from standard input, writes the result as an Arrow stream.

Started by pipeline.engine.memo when a batch has ended its worker before; a crash here is a finding, not a failure.
"""

from __future__ import annotations

import os
import sys

import cloudpickle
import pyarrow as pa

from pipeline.engine.memo import CANNOT_RUN, compute
from stages.row_function import CannotRun


def main() -> None:
    result_file = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not reach the result
    function, rows = cloudpickle.load(sys.stdin.buffer)
    try:
        result = compute(function, rows)
    except CannotRun as error:
        print(error, file=sys.stderr)
        sys.exit(CANNOT_RUN)
    with pa.ipc.new_stream(result_file, result.schema) as writer:
        writer.write_table(result)
    result_file.close()


if __name__ == "__main__":
    main()
