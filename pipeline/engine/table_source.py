"""A finished table as a source of Ray Data: the operator's schema is the table's, and its rows the manifest's."""

from __future__ import annotations

from collections.abc import Sequence

from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.data.context import DataContext

from pipeline.engine.table import Table
from schemas.manifest import Part


class TableSource(Datasource):
    """Files of a table, a task and a block each, by key."""

    def __init__(self, table: Table, parts: Sequence[Part]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray annotates half of its API
        self._table = table
        self._parts = parts

    def get_name(self) -> str:
        """Ray calls the operator Read and this."""
        return f"Table({self._table.record.phase})"

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of the files, which are compressed."""
        return sum(part.bytes for part in self._parts)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """One a file, whatever Ray asks for: a file is what is read at once."""
        return [self._task(part) for part in self._parts]

    def _task(self, part: Part) -> ReadTask:
        table = self._table
        known = BlockMetadata(num_rows=part.rows, size_bytes=part.bytes, exec_stats=None, input_files=(part.name,))
        return ReadTask(lambda: [table.rows_of(part)], known)
