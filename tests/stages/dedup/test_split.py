import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.tables import SPLIT
from stages.dedup.split import RELATIONS, side, split

ROWS = st.lists(
    st.tuples(
        st.sampled_from([None, "c1", "c2", "c3"]),
        st.lists(st.sampled_from([None, "h1", "h2", "h3", "h4", "c1"]), max_size=3) | st.none(),
    ),
    max_size=12,
)


def relations(rows: list[tuple[str | None, list[str | None] | None]]) -> pa.Table:
    ids = [f"d{index:02}" for index in range(len(rows))]
    return pa.table([ids, [row[0] for row in rows], [row[1] for row in rows]], schema=RELATIONS)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(ROWS, st.randoms(use_true_random=False))
def test_groups_are_the_connected_components_in_any_order(rows: list[tuple[str | None, list[str | None]]], rng) -> None:
    # Brute force: merge groups until nothing is shared.
    keys = [{("c", c)} | {("i", h) for h in hashes or []} for c, hashes in rows]
    keys = [{key for key in group if key[1] is not None} for group in keys]
    groups = [{index} for index in range(len(rows))]
    changed = True
    while changed:
        changed = False
        for a in groups:
            for b in groups:
                if a is not b and any(keys[i] & keys[j] for i in a for j in b):
                    groups = [g for g in groups if g is not a and g is not b] + [a | b]
                    changed = True
                    break
            if changed:
                break
    expected = {f"d{i:02}": f"d{min(group):02}" for group in groups for i in group}
    out = split(relations(rows), 0.3)
    assert out.schema == SPLIT
    assert dict(zip(out.column(0).to_pylist(), out.column(1).to_pylist(), strict=True)) == expected
    order = list(range(len(rows)))
    rng.shuffle(order)
    shuffled = split(relations(rows).take(pa.array(order, pa.int64())), 0.3)
    assert shuffled.to_pylist() == [out.to_pylist()[index] for index in order]


def test_a_larger_fraction_only_moves_groups_to_the_held_out_side() -> None:
    names = [f"group {index}" for index in range(4000)]
    small = {name for name in names if side(name, 0.1) == "held_out"}
    large = {name for name in names if side(name, 0.2) == "held_out"}
    assert small < large
    assert 0.08 < len(small) / len(names) < 0.12
    assert all(side(name, 0.0) == "train" for name in names)


def test_the_side_of_a_group_ignores_the_others() -> None:
    table = relations([("c1", []), ("c1", []), (None, ["h1"]), (None, ["h1"])])
    alone = split(table.slice(2), 0.5).to_pylist()
    assert split(table, 0.5).to_pylist()[2:] == alone


def test_a_repeated_document_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        split(pa.table([["a", "a"], [None, None], [[], []]], schema=RELATIONS), 0.1)
