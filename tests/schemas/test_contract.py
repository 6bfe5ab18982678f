"""Contracts: which of their columns are identity, and which only travel along."""

from __future__ import annotations

import importlib
import pkgutil

import pyarrow as pa
import pytest
from datasets import Features
from datasets.features.features import generate_from_arrow_type

import pipeline
import schemas
from schemas.contract import (
    CARRIED,
    NAME_KEY,
    ROLE_KEY,
    ContractError,
    carried,
    contract,
    identity,
    identity_schema,
    key_of,
)
from schemas.page import LOCATOR
from schemas.shard import SHARD

_IMAGE = ("detail", "retryable", "body")
_PROVENANCE = tuple(f"provenance.{name}" for name in ("snapshot", "file", "offset", "length"))
# Every contract there is, and what a digest of its rows must not see. A new contract is decided here.
ROLES: dict[tuple[str, int], tuple[str, ...]] = {
    ("page", 2): ("detail", "retryable", "body", "lastmod", *_PROVENANCE),
    ("document", 3): ("image_bodies.body", *_PROVENANCE),
    ("image", 2): _IMAGE,
    ("embedding", 1): (),
    ("decision", 1): ("detail",),
    ("shard", 1): (),
    ("shard", 2): _PROVENANCE,
    ("shard_row", 1): ("file", "row"),
    ("scored", 1): (),
    ("repeated", 1): (),
    ("selected", 2): (),
    ("signature", 3): (),
    ("edge", 4): (),
    ("candidate_pair", 2): (),
    ("similarity", 2): (),
    ("cluster", 3): (),
    ("fetched_image", 4): _IMAGE,
    ("image_use", 3): _IMAGE,
    ("passed", 1): tuple(f"images.{name}" for name in _IMAGE),
    ("choice", 1): (),
    ("reached", 1): (),
    ("border", 1): (),
    ("kept", 4): (*(f"images.{name}" for name in _IMAGE), *_PROVENANCE),
    ("sliced", 1): (),
    ("embedded", 1): (),
    ("paired", 2): (),
    ("mined", 2): (),
}


def contracts() -> dict[tuple[str, int], pa.Schema]:
    """All contracts of schemas and pipeline."""
    found: dict[tuple[str, int], pa.Schema] = {}
    for package in (schemas, pipeline):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("__main__"):
                continue
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, pa.Schema) and NAME_KEY in (value.metadata or {}):
                    found[identity(value)] = value
    return found


def fields(of: pa.Schema | pa.StructType) -> list[pa.Field]:
    """All fields, those inside lists and structs too."""
    found = []
    for field in of:
        kind = field.type
        while pa.types.is_list(kind):
            kind = kind.value_type
        found += [field, *(fields(kind) if pa.types.is_struct(kind) else [])]
    return found


def test_of_every_contract_it_is_decided_what_is_carried() -> None:
    found = contracts()
    assert {key: carried(schema) for key, schema in found.items()} == ROLES
    roles = {(field.metadata or {}).get(ROLE_KEY) for schema in found.values() for field in fields(schema)}
    assert roles == {None, b"carried"}  # no other role, and none misspelt


def test_what_is_volatile_is_carried_wherever_it_stands() -> None:
    found = contracts()
    del found["shard", 1]  # as it was written
    for key, schema in found.items():
        names = {field.name for field in fields(identity_schema(schema))}
        assert not names & {"retryable", "snapshot", "pack"}, key
        assert LOCATOR not in [field.type for field in fields(identity_schema(schema))], key
        assert identity(identity_schema(schema)) == key


def test_identity_keeps_the_rest_in_order_inside_lists_and_structs() -> None:
    item = pa.struct([pa.field("a", pa.int32()), pa.field("where", pa.string(), metadata=CARRIED)])
    lost = pa.struct([pa.field("where", pa.string(), metadata=CARRIED)])
    schema = contract(
        "some",
        3,
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("lists", pa.list_(pa.list_(item)), nullable=False),
            pa.field("lost", pa.list_(lost)),
            pa.field("when", pa.int64(), metadata=CARRIED),
        ],
        {b"more": b"1"},
    )
    assert carried(schema) == ("lists.where", "lost.where", "when")
    kept = identity_schema(schema)
    inner = pa.list_(pa.list_(pa.struct([pa.field("a", pa.int32())])))
    wanted = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("lists", inner, nullable=False)])
    assert kept.equals(wanted) and identity(kept) == ("some", 3) and b"more" not in kept.metadata
    with pytest.raises(ContractError, match="not an interloom table"):
        identity_schema(pa.schema([pa.field("id", pa.string())]))


def test_every_table_has_a_key_that_is_text_identity_and_never_null() -> None:
    """All contracts but those of rows that live inside other files: decisions, shards, images inside tables."""
    without = []
    for name, schema in contracts().items():
        try:
            key = key_of(schema)
        except ContractError:
            without.append(name)
            continue
        field = identity_schema(schema).field(key)
        assert field.type == pa.string() and not field.nullable, name
        assert key_of(identity_schema(schema)) == key
    assert sorted(without) == [("decision", 1), ("image", 2), ("shard", 1), ("shard", 2)]


def test_a_contract_without_a_key_is_named() -> None:
    with pytest.raises(ContractError, match="some: a contract without a key column"):
        key_of(contract("some", 1, [pa.field("id", pa.string())]))
    with pytest.raises(ContractError, match="not an interloom table"):
        key_of(pa.schema([pa.field("id", pa.string())]))
    assert key_of(contract("some", 1, [pa.field("id", pa.string())], key="id")) == "id"


def test_the_features_of_a_shard_are_those_of_datasets() -> None:
    """As `datasets` would name every type by itself; but for the pictures, which it takes for structs."""
    features = Features.from_arrow_schema(SHARD)
    plain = Features({field.name: generate_from_arrow_type(field.type) for field in SHARD})
    assert type(features["images"].feature).__name__ == "Image"
    assert {**features, "images": None} == {**plain, "images": None}
    assert features.arrow_schema.field("images").type == SHARD.field("images").type
