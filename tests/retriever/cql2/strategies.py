"""Expressions in CQL2 JSON as hypothesis makes them, over the parcels of ``test_translation``."""

from typing import Any

from hypothesis import strategies as st

from retriever.cql2.checking import MAX_SHAPES

TEXTS = [
    "",
    "a",
    "A",
    "ab",
    "é",
    "É",
    "straße",
    "ς",
    "a%b",
    "a_b",
    "*",
    "[a]",
    "^.$",
    "\\",
    "'",
    "a\nb",
]
NUMBERS = [-1, 0, 0.5, 1, 1.0, 2.25, 17, 10_000, 2**53 + 1, 1e300]

texts = st.sampled_from(TEXTS)
numbers = st.sampled_from(NUMBERS)
patterns = st.text("aAéÉb%_*?[]^.'\n", max_size=4) | st.sampled_from(["a\\%b", "a\\_b", "\\\\"])

ATTRIBUTES = ["x", "y", "name with \"quotes\" and 'more'", "absent"]
COMPARISONS = ["=", "<>", "<", "<=", ">", ">="]

TIMES = ["2023-05-29T10:50:31Z", "2023-05-29T00:00:00Z", "2023-06-01T02:00:00+02:00"]
DATES = ["2023-05-28", "2023-05-29", "2023-06-01"]


def call(op: str, *args: Any) -> dict[str, Any]:  # noqa: ANN401
    """An operator with its arguments."""
    return {"op": op, "args": list(args)}


def named(name: str) -> dict[str, str]:
    """A property."""
    return {"property": name}


def casei(inner: Any) -> dict[str, Any]:  # noqa: ANN401
    """Text without case."""
    return call("casei", inner)


@st.composite
def _of_kind(draw: st.DrawFn, names: list[str], values: st.SearchStrategy[Any]) -> dict[str, Any]:
    name = named(draw(st.sampled_from(names)))
    if draw(st.booleans()):
        return call("in", name, draw(st.lists(values, min_size=1, max_size=3)))
    op = draw(st.sampled_from(COMPARISONS))
    value = draw(values)
    if op == "<=":
        return call("between", name, value, draw(values))
    return call(op, value, name) if draw(st.booleans()) else call(op, name, value)


@st.composite
def _about_text(draw: st.DrawFn) -> dict[str, Any]:
    name = named(draw(st.sampled_from(["id", "crop:name", *ATTRIBUTES])))
    what = draw(st.sampled_from(["like", "like casei", "= casei", "in casei"]))
    if what == "like":
        return call("like", name, draw(patterns))
    if what == "like casei":
        return call("like", casei(name), casei(draw(patterns)))
    if what == "in casei":
        return call("in", casei(name), [casei(draw(texts)), casei(draw(texts))])
    return call(draw(st.sampled_from(["=", "<>"])), casei(name), casei(draw(texts)))


@st.composite
def _about_time(draw: st.DrawFn) -> dict[str, Any]:
    date = st.builds(lambda day: {"date": day}, st.sampled_from(DATES))
    time = st.builds(lambda moment: {"timestamp": moment}, st.sampled_from(TIMES))
    op = draw(
        st.sampled_from([*COMPARISONS, "t_equals", "t_after", "t_before", "t_during", "t_disjoint"])
    )
    if op == "t_during" or (op in ("t_after", "t_before", "t_disjoint") and draw(st.booleans())):
        first = draw(st.sampled_from(["..", "2023-05-01", DATES[1], TIMES[1]]))
        last = draw(st.sampled_from(["..", "2023-06-30", DATES[1], TIMES[0], TIMES[2]]))
        return call(op, named("datetime"), {"interval": [first, last]})
    return call(op, named("datetime"), draw(date | time))


_WEST = st.sampled_from([1.0, 2.0, 2.005, 2.01, 2.5])


@st.composite
def _about_places(draw: st.DrawFn) -> dict[str, Any]:
    west, width = draw(_WEST), draw(st.sampled_from([0.001, 0.01, 1.0]))
    box = {"bbox": [west, 48.995, west + width, 49.002]}
    triangle = {
        "type": "Polygon",
        "coordinates": [[[west, 48.9], [west + width, 48.9], [west, 49.1], [west, 48.9]]],
    }
    point = {"type": "Point", "coordinates": [west, 49.001]}
    return call("s_intersects", named("geometry"), draw(st.sampled_from([box, triangle, point])))


def conditions() -> st.SearchStrategy[Any]:
    """One condition."""
    free = texts | numbers | st.booleans()
    return st.one_of(
        st.booleans(),
        _of_kind(ATTRIBUTES, texts),
        _of_kind(ATTRIBUTES, numbers),
        _of_kind(["id", "crop:name", "crop:code", "collection"], texts),
        _of_kind(["metrics:area", "valid_fraction", "NDVI", "BI"], numbers),
        st.builds(
            lambda name, op, value: call(op, named(name), value),
            st.sampled_from(["reliable", *ATTRIBUTES]),
            st.sampled_from(COMPARISONS),
            st.booleans(),
        ),
        st.builds(
            lambda name, values: call("in", named(name), values),
            st.sampled_from(ATTRIBUTES),
            st.lists(free, min_size=1, max_size=4),
        ),
        st.builds(
            lambda name: call("isNull", named(name)),
            st.sampled_from(["crop:name", "datetime", "geometry", "NDVI", "reliable", *ATTRIBUTES]),
        ),
        _about_text(),
        _about_time(),
        _about_places(),
    )


def expressions() -> st.SearchStrategy[Any]:
    """Conditions, joined and negated."""
    return st.recursive(
        conditions(),
        lambda inner: st.one_of(
            st.builds(lambda one: call("not", one), inner),
            st.builds(lambda parts: call("and", *parts), st.lists(inner, min_size=2, max_size=3)),
            st.builds(lambda parts: call("or", *parts), st.lists(inner, min_size=2, max_size=3)),
        ),
        max_leaves=6,
    ).filter(lambda tree: str(tree).count("'s_intersects'") <= MAX_SHAPES)
