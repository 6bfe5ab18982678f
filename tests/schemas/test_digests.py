"""Digests of tables: the same for what says the same, another for anything else; checked against plain Python."""

from __future__ import annotations

import hashlib
import math
import struct
from datetime import UTC, datetime
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contract import CARRIED, ContractError, contract, identity_schema
from schemas.digests import BUCKETS, bucket_digests, logical, table_digest

_ITEM = pa.struct(
    [
        pa.field("name", pa.string()),
        pa.field("where", pa.string(), metadata=CARRIED),
        pa.field("marks", pa.list_(pa.float32())),
    ]
)
_FIELDS = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("n", pa.int64()),
    pa.field("small", pa.uint8()),
    pa.field("flag", pa.bool_()),
    pa.field("half", pa.float16()),
    pa.field("x", pa.float64()),
    pa.field("when", pa.timestamp("s", tz="UTC")),
    pa.field("words", pa.string()),
    pa.field("data", pa.binary()),
    pa.field("tags", pa.list_(pa.string())),
    pa.field("matrix", pa.list_(pa.list_(pa.int32()))),
    pa.field("pair", pa.struct([pa.field("a", pa.int16()), pa.field("b", pa.string())])),
    pa.field("items", pa.list_(_ITEM)),
    pa.field("place", pa.string(), metadata=CARRIED),
]
THING = contract("thing", 1, _FIELDS, key="id")

_Row = dict[str, Any]


def _some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


_WORDS = _some(st.text(max_size=3))
_FLOATS = _some(st.floats(width=16))
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "n": _some(st.integers(-(2**63), 2**63 - 1)),
    "small": _some(st.integers(0, 255)),
    "flag": _some(st.booleans()),
    "half": _FLOATS,
    "x": _FLOATS,
    "when": _some(st.integers(0, 2**31)).map(lambda s: None if s is None else datetime.fromtimestamp(s, UTC)),
    "words": _WORDS,
    "data": _some(st.binary(max_size=3)),
    "tags": _some(st.lists(_WORDS, max_size=3)),
    "matrix": _some(st.lists(_some(st.lists(_some(st.integers(-9, 9)), max_size=2)), max_size=2)),
    "pair": _some(st.fixed_dictionaries({"a": _some(st.integers(-9, 9)), "b": _WORDS})),
    "items": _some(
        st.lists(
            _some(
                st.fixed_dictionaries({"name": _WORDS, "where": _WORDS, "marks": _some(st.lists(_FLOATS, max_size=2))})
            ),
            max_size=2,
        )
    ),
    "place": _WORDS,
}
# Few buckets, so that several rows share one, and several one key.
_KEYS = st.builds(lambda bucket, rest: f"{bucket:04x}{rest:04x}", st.integers(0, 3), st.integers(0, 2))
_ROWS = st.lists(st.fixed_dictionaries({"id": _KEYS, **_VALUES}), min_size=1, max_size=8).map(
    lambda rows: sorted(rows, key=lambda row: str(row["id"]))
)
_QUICK = settings(max_examples=60, derandomize=True, deadline=None)


def made(rows: list[_Row], schema: pa.Schema = THING) -> pa.Table:
    """The rows by contract; half floats, which Arrow takes from numpy alone, by a cast."""
    wide = pa.schema([pa.field(f.name, pa.float64()) if f.type == pa.float16() else f for f in schema])
    return pa.Table.from_pylist(rows, schema=wide).cast(schema).replace_schema_metadata(schema.metadata)


def digest_of(table: pa.Table) -> str:
    return table_digest(table.schema, [bucket_digests(table)])


def plain_cell(value: Any, kind: pa.DataType) -> tuple[bytes, bytes]:
    """(tag and number, body) of one value, by the words of schemas.digests."""
    number, body = b"\0" * 8, b""
    if value is None:
        return b"\0" + number, body
    if pa.types.is_struct(kind):
        body = plain_row([value[field.name] for field in kind], [field.type for field in kind])
        number = len(body).to_bytes(8, "little")
    elif pa.types.is_list(kind):
        body = b"".join(plain_row([each], [kind.value_type]) for each in value)
        number = len(value).to_bytes(8, "little")
    elif isinstance(value, str | bytes):
        body = value.encode() if isinstance(value, str) else value
        number = len(body).to_bytes(8, "little")
    elif isinstance(value, float):
        number = struct.pack("<d", math.nan if math.isnan(value) else value or 0.0)
    elif isinstance(value, datetime):
        number = int(value.timestamp()).to_bytes(8, "little", signed=True)
    else:
        number = int(value).to_bytes(8, "little", signed=int(value) < 0)
    return b"\1" + number, body


def plain_row(values: list[Any], kinds: list[pa.DataType]) -> bytes:
    cells = [plain_cell(value, kind) for value, kind in zip(values, kinds, strict=True)]
    return b"".join(head for head, _ in cells) + b"".join(body for _, body in cells)


def plain_buckets(table: pa.Table) -> dict[int, bytes]:
    """What bucket_digests should say, a row at a time."""
    said = identity_schema(table.schema)
    rows: dict[int, list[bytes]] = {}
    for row in table.to_pylist():
        encoding = plain_row([row[field.name] for field in said], [field.type for field in said])
        rows.setdefault(int(row["id"][:4], 16), []).append(encoding)
    return {
        bucket: hashlib.blake2b(len(each).to_bytes(8, "little") + b"".join(each), digest_size=16).digest()
        for bucket, each in rows.items()
    }


def plain_table(schema: pa.Schema, name: tuple[str, int], buckets: dict[int, bytes]) -> str:
    names = repr([(field.name, str(field.type)) for field in schema])
    said = f"{name} {names}".encode()
    said += b"".join(bucket.to_bytes(8, "little") + buckets[bucket] for bucket in sorted(buckets))
    return hashlib.blake2b(said, digest_size=16).hexdigest()


@pytest.mark.slow
@_QUICK
@given(_ROWS)
def test_they_are_those_of_plain_python(rows: list[_Row]) -> None:
    table = made(rows)
    assert bucket_digests(table) == plain_buckets(table)
    # The types of its list elements are written by what they are called without a layout.
    flat = contract("flat", 3, [_FIELDS[0], _FIELDS[1], _FIELDS[7]], key="id")
    few = made([{name: row[name] for name in flat.names} for row in rows], flat)
    assert digest_of(few) == plain_table(flat, ("flat", 3), plain_buckets(few))


def in_chunks(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(start, 2) for start in range(0, len(table), 2)])


def sliced(table: pa.Table) -> pa.Table:
    around = pa.concat_tables([table, table, table]).combine_chunks()
    return around.slice(len(table), len(table))


def retyped(table: pa.Table, **kinds: pa.DataType) -> pa.Table:
    for name, kind in kinds.items():
        place = table.schema.get_field_index(name)
        field = table.schema.field(name).with_type(kind)
        table = table.set_column(place, field, table.column(name).cast(kind))
    return table


def large(table: pa.Table) -> pa.Table:
    item = pa.struct(
        [
            _ITEM.field("name").with_type(pa.large_string()),
            _ITEM.field("where").with_type(pa.large_string()),
            _ITEM.field("marks").with_type(pa.large_list(pa.float32())),
        ]
    )
    return retyped(
        table,
        id=pa.large_string(),
        words=pa.large_string(),
        data=pa.large_binary(),
        tags=pa.large_list(pa.large_string()),
        matrix=pa.large_list(pa.large_list(pa.int32())),
        items=pa.large_list(item),
    )


def with_dictionaries(table: pa.Table) -> pa.Table:
    for name in ("id", "words", "data", "n"):
        place, column = table.schema.get_field_index(name), table.column(name).dictionary_encode()
        table = table.set_column(place, table.schema.field(name).with_type(column.type), column)
    tags = table.column("tags").combine_chunks()
    ends = pa.array([0, *accumulate(len(each or ()) for each in tags.to_pylist())], pa.int32())
    inner = pa.ListArray.from_arrays(ends, tags.flatten().dictionary_encode(), mask=tags.is_null())
    place = table.schema.get_field_index("tags")
    return table.set_column(place, table.schema.field("tags").with_type(inner.type), inner)


@pytest.mark.slow
@_QUICK
@given(_ROWS)
def test_they_do_not_see_the_layout(rows: list[_Row]) -> None:
    table = made(rows)
    expected = digest_of(table)
    for changed in (in_chunks, sliced, large, with_dictionaries):
        other = changed(table)
        assert digest_of(other) == expected, changed.__name__
        assert digest_of(sliced(in_chunks(other))) == expected, changed.__name__


def test_what_nulls_hide_is_not_seen() -> None:
    ids = pa.array(["0000", "0001", "0002"])
    null = pa.array([False, True, False])
    kind = pa.struct([pa.field("a", pa.int32()), pa.field("b", pa.list_(pa.string()))])
    schema = contract(
        "hiding",
        1,
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("tags", pa.list_(pa.string())),
            pa.field("pair", kind),
            pa.field("pairs", pa.list_(kind)),
            pa.field("fixed", pa.list_(pa.int32(), 2)),
        ],
        key="id",
    )

    def hiding(number: int, word: str) -> pa.Table:
        words = pa.array(["a", word, word, "b", ""])
        tags = pa.ListArray.from_arrays(pa.array([0, 1, 3, 5], pa.int32()), words, mask=null)
        numbers = pa.array([1, number, 3], pa.int32())
        pair = pa.StructArray.from_arrays([numbers, tags.fill_null([word])], fields=list(kind), mask=null)
        pairs = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), pair, mask=null)
        fixed = pa.FixedSizeListArray.from_arrays(pa.array([1, 2, number, number, 5, 6], pa.int32()), 2, mask=null)
        return pa.Table.from_arrays([ids, tags, pair, pairs, fixed], schema=schema)

    one, other = hiding(7, "x"), hiding(8, "yyy")
    assert one.to_pylist() == other.to_pylist() == one.cast(schema).to_pylist()
    shown = pa.Table.from_pylist(one.to_pylist(), schema=schema)
    assert digest_of(one) == digest_of(other) == digest_of(shown)
    assert digest_of(one.slice(1)) == digest_of(shown.slice(1)) == digest_of(other.slice(1)) != digest_of(one)


def _inside(rows: list[_Row]) -> list[_Row]:
    """Every carried value another, at the top and inside lists of structs."""
    found = []
    for row in rows:
        items = row["items"] and [each and {**each, "where": f"{each['where']}!"} for each in row["items"]]
        found.append({**row, "place": f"{row['place']}!", "items": items})
    return found


@pytest.mark.slow
@_QUICK
@given(_ROWS)
def test_what_is_carried_is_not_seen(rows: list[_Row]) -> None:
    table = made(rows)
    assert digest_of(made(_inside(rows))) == digest_of(table)
    assert digest_of(table.drop_columns(["place"])) == digest_of(table)


def _same(one: Any, other: Any) -> bool:
    """Whether two values say the same: -0 is 0, and there is one NaN."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_same(one[name], other[name]) for name in one if name != "where")
    return type(one) is type(other) and bool(one == other)


@pytest.mark.slow
@settings(max_examples=200, derandomize=True, deadline=None)
@given(_ROWS, st.sampled_from([name for name in _VALUES if name != "place"]), st.data())
def test_any_other_value_is_seen(rows: list[_Row], name: str, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(rows) - 1))
    value = data.draw(_VALUES[name])
    changed = [{**row, name: value} if place == index else row for place, row in enumerate(rows)]
    assert (digest_of(made(changed)) == digest_of(made(rows))) == _same(value, rows[index][name])


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("words", None, ""),
        ("data", None, b""),
        ("tags", None, []),
        ("tags", [], [None]),
        ("tags", [None], [""]),
        ("tags", ["ab", ""], ["a", "b"]),
        ("tags", ["ab"], ["a", "b"]),
        ("matrix", [[]], []),
        ("matrix", [[1], [2, 3]], [[1, 2], [3]]),
        ("matrix", [None], [[]]),
        ("pair", None, {"a": None, "b": None}),
        ("pair", {"a": 0, "b": None}, {"a": None, "b": None}),
        ("pair", {"a": None, "b": ""}, {"a": None, "b": None}),
        ("items", [None], [{"name": None, "where": None, "marks": None}]),
        ("items", [{"name": "a", "marks": []}], [{"name": "a", "marks": None}]),
        ("items", [{"name": "a"}, {"name": "bc"}], [{"name": "ab"}, {"name": "c"}]),
        ("n", None, 0),
        ("n", 0, 1 << 32),
        ("flag", None, False),
        ("x", None, 0.0),
        ("x", math.nan, None),
        ("x", math.nan, math.inf),
    ],
)
def test_what_is_easily_confused_is_told_apart(name: str, one: Any, other: Any) -> None:
    assert digest_of(made([{"id": "0000", name: one}])) != digest_of(made([{"id": "0000", name: other}]))


def test_words_do_not_flow_from_one_column_into_the_next() -> None:
    schema = contract("two", 1, [_FIELDS[0], pa.field("a", pa.string()), pa.field("b", pa.string())], key="id")
    one, other = (
        pa.Table.from_pylist([{"id": "0000", "a": a, "b": b}], schema=schema) for a, b in (("ab", ""), ("a", "b"))
    )
    assert digest_of(one) != digest_of(other)


def test_there_is_one_zero_and_one_nan() -> None:
    odd = struct.unpack("<d", struct.pack("<Q", 0xFFF8000000000123))[0]
    assert math.isnan(odd)
    for name in ("x", "half"):
        digests = [digest_of(made([{"id": "0000", name: value}])) for value in (0.0, -0.0, math.nan, -math.nan, odd)]
        assert digests[0] == digests[1] and len({*digests[2:]}) == 1 and digests[0] != digests[2]
    inside = [digest_of(made([{"id": "0000", "items": [{"marks": [value]}]}])) for value in (0.0, -0.0, math.nan, odd)]
    assert inside[0] == inside[1] != inside[2] == inside[3]


def test_the_order_of_rows_of_one_key_is_seen_and_so_is_their_number() -> None:
    rows = [{"id": "0000aa", "n": 1}, {"id": "0000aa", "n": 2}]
    digests = {digest_of(made(each)) for each in (rows, rows[::-1], rows[:1], [*rows[:1], *rows])}
    assert len(digests) == 4


def test_the_contract_is_seen() -> None:
    rows = [{"id": "0000", "n": 1}]

    def under(name: str, version: int, *more: pa.Field, n: pa.DataType | None = None) -> str:
        fields = [_FIELDS[0], pa.field("n", n or pa.int64()), *more]
        return digest_of(pa.Table.from_pylist(rows, schema=contract(name, version, fields, key="id")))

    more = pa.field("more", pa.string())
    digests = [
        under("one", 1),
        under("two", 1),
        under("one", 2),
        under("one", 1, n=pa.int32()),
        under("one", 1, more),
        under("one", 1, more.with_name("other")),
    ]
    assert len(set(digests)) == len(digests)
    assert under("one", 1, more.with_metadata(CARRIED)) == digests[0]
    empty = [contract("one", version, _FIELDS[:2], key="id").empty_table() for version in (1, 2)]
    assert bucket_digests(empty[0]) == {} and len({digest_of(table) for table in empty}) == 2


@pytest.mark.slow
@_QUICK
@given(_ROWS, st.lists(st.integers(1, 3), max_size=3))
def test_parts_that_are_cut_between_buckets_have_the_digest_of_the_whole(rows: list[_Row], cuts: list[int]) -> None:
    table = made(rows)
    buckets = [int(row["id"][:4], 16) for row in rows]
    ends = [0, *sorted(sum(bucket < cut for bucket in buckets) for cut in cuts), len(rows)]
    parts = [bucket_digests(table.slice(a, b - a)) for a, b in pairwise(ends)]
    merged = {bucket: digest for part in parts for bucket, digest in part.items()}
    assert merged == bucket_digests(table) and sum(map(len, parts)) == len(merged)
    assert table_digest(table.schema, parts) == table_digest(table.schema, parts[::-1]) == digest_of(table)
    assert all(0 <= bucket < BUCKETS for bucket in merged)


@pytest.mark.parametrize("keys", [["0001", "0000", "0001"], ["0001", "0000"], ["0000b", "0000a"], ["0000a", "0000"]])
def test_rows_that_are_not_sorted_are_refused(keys: list[str]) -> None:
    with pytest.raises(ValueError, match="thing: rows are not sorted by id"):
        bucket_digests(made([{"id": key} for key in keys]))
    assert bucket_digests(made([{"id": key} for key in sorted(keys)]))


def test_a_table_without_a_key_is_refused() -> None:
    rows = [{"id": "0000"}]
    with pytest.raises(ContractError, match="some: a contract without a key column"):
        bucket_digests(pa.Table.from_pylist(rows, schema=contract("some", 1, _FIELDS[:1])))


def test_a_type_is_called_without_its_layout() -> None:
    inner = pa.struct([pa.field("a", pa.large_string()), pa.field("b", pa.large_list(pa.large_binary()))])
    assert logical(pa.large_list(inner)) == "list<struct<a: string, b: list<binary>>>"
    assert logical(pa.dictionary(pa.int8(), pa.large_string())) == logical(pa.string()) == "string"
    assert logical(pa.list_(pa.int32(), 3)) == logical(pa.list_(pa.int32())) != logical(pa.list_(pa.int64()))
