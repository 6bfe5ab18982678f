"""What origins said of themselves (robots.txt, ai.txt, tdmrep.json), remembered over builds and their workers."""

from __future__ import annotations

import time

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.key_range import KeyRange, within
from pipeline.engine.row_store import GENERATION, ROW_KEY, RowStore
from pipeline.engine.storage import Storage
from schemas.keys import digest
from stages.web.consent.origin import Asked, OriginAnswers, rules_variant
from stages.web.settings import CrawlSettings
from stages.web.sites import site_key

_FILE = pa.struct([("url", pa.string()), ("http_status", pa.int32()), ("body", pa.binary())])
# Of an origin: when it was asked, and its files, robots.txt first.
_ANSWERS = pa.schema([("origin", pa.string()), ("asked", pa.float64()), ("files", pa.list_(_FILE))])
# Files of an origin that are larger in all are asked for again rather than kept.
_MOST_BYTES = 65_536


class RememberedOrigins:
    """The origins of a range of sites (stages.web.client.Origins): those that are known, and those learnt since."""

    def __init__(self, storage: Storage, settings: CrawlSettings, keys: KeyRange) -> None:
        self._keys = keys
        self._store = RowStore(storage, "origin_files", digest(rules_variant(settings)), _ANSWERS)
        rows = self._store.read(keys).select(_ANSWERS.names)
        fresh = pc.greater(rows.column("asked"), time.time() - settings.robots_max_age)
        self._rows = rows.filter(fresh)
        self._places = {origin: place for place, origin in enumerate(self._rows.column("origin").to_pylist())}
        self._learnt: list[tuple[str, OriginAnswers]] = []

    def known(self, origin: str) -> OriginAnswers | None:
        """How an origin answered, as long as the settings have it."""
        place = self._places.get(origin)
        if place is None:
            return None
        (row,) = self._rows.slice(place, 1).to_pylist()
        robots, *beside = [(each["url"], Asked(each["http_status"], each["body"])) for each in row["files"]]
        return OriginAnswers(row["asked"], robots[1], dict(beside))

    def learnt(self, origin: str, answers: OriginAnswers) -> None:
        """Keep how it answered, until it is stored."""
        self._learnt.append((origin, answers))

    def store(self) -> None:
        """Have what was learnt stored; of two answers the later one stands."""
        learnt, self._learnt = self._learnt, []
        rows = []
        for origin, answers in learnt:
            files = [("", answers.robots), *answers.beside.items()]
            if sum(len(file.body) for _, file in files) <= _MOST_BYTES:
                rows.append(
                    {
                        ROW_KEY: site_key(origin) + digest(origin)[:24],
                        GENERATION: int(answers.asked) // 60,
                        "origin": origin,
                        "asked": answers.asked,
                        "files": [{"url": url, **vars(file)} for url, file in files],
                    }
                )
        if rows:
            schema = pa.schema([(ROW_KEY, pa.string()), (GENERATION, pa.int32()), *_ANSWERS])
            # What a redirect led to on another site is another range's.
            mine = within(pa.Table.from_pylist(rows, schema), ROW_KEY, self._keys)
            self._store.compact(self._keys, mine.sort_by(ROW_KEY), wanted=())
