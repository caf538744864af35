"""Whatever text somebody sends, a parser understands it or says in one sentence why not."""

import json
import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from indexer.errors import ParcelleError
from indexer.imagery.stac.addresses import Home, check_url, resolve
from indexer.imagery.stac.dialects import read_item
from indexer.mapping.names import parse_names
from indexer.memory import bytes_of
from indexer.sensors import parse_bands, parse_baseline
from retriever.cql2.expression import Expression
from retriever.queries import Bbox, Interval
from retriever.tools.cursor import read_cursor

LONGEST = 2_000
"""Characters of a message; what is longer nobody reads, and a stranger could fill a log with it."""

# Digits of other scripts and of the upper rows, signs, separators and what terminals obey.
ODD = st.text(
    alphabet="0123456789\u0663\u09ea²½-+_.,:/TZe\u2212\x00\x1b\n\r\t '\"={}[]()%&;|\\", max_size=60
)
TEXT = st.one_of(ODD, st.text(max_size=200), st.text(min_size=3_000, max_size=3_100))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=20,
)


def understood(parse: Callable[[], Any]) -> Any | None:  # noqa: ANN401 - whatever it gives
    """What a parser makes of a text; None where it refuses it as it should."""
    try:
        return parse()
    except ParcelleError as error:
        refused = error
    assert refused.kind
    assert 10 <= len(refused.message) <= LONGEST
    controls = {one for one in refused.message if unicodedata.category(one) == "Cc"}
    assert not controls, f"{refused.message[:200]!r} would move a terminal's cursor"
    return None


@given(TEXT)
@example("1_0,2,3,4")
@example("nan,nan,nan,nan")
def test_a_bbox_is_four_numbers_within_range_or_refused(text: str) -> None:
    found = understood(lambda: Bbox.parse(text))
    if found is not None:
        sides = (found.west, found.south, found.east, found.north)
        assert all(map(math.isfinite, sides))
        assert -90 <= found.south <= found.north <= 90
        assert Bbox.parse(str(found)) == Bbox.parse(str(Bbox.parse(str(found))))


@given(TEXT)
@example("9999")
@example("0001-01-01T00:00:00+23:59/..")
def test_a_datetime_is_a_span_that_ends_after_it_starts_or_refused(text: str) -> None:
    found = understood(lambda: Interval.parse(text))
    if found is not None and found.start is not None and found.end is not None:
        assert found.start < found.end


@given(TEXT)
@example("l2a,s1")
def test_bands_are_names_that_an_instrument_has_or_refused(text: str) -> None:
    found = understood(lambda: parse_bands(text))
    if found is not None:
        named = [name for name in found if name != "-"]
        assert len(named) == len(set(named))
        assert all(re.fullmatch(r"[A-Z0-9]{2,3}", name) for name in named)


@given(TEXT)
@example("\u0660\u0664.\u0660\u0660")
@example("N0510")
def test_a_baseline_is_four_digits_or_refused(text: str) -> None:
    found = understood(lambda: parse_baseline(text))
    assert found is None or re.fullmatch(r"[0-9]{2}\.[0-9]{2}", found)


@given(TEXT)
@example("9" * 400 + "T")
@example("0.0000001k")
def test_a_size_is_a_whole_number_of_bytes_or_none(text: str) -> None:
    found = bytes_of(text)
    assert found is None or found >= 1


@given(TEXT)
def test_names_of_classes_are_numbers_with_names_or_refused(text: str) -> None:
    found = understood(lambda: parse_names(None, [text]))
    for number, name in (found or {}).items():
        assert 1 <= number <= 9999
        assert name == name.strip() != ""


@given(TEXT, st.sampled_from(["abcdef", "012345"]))
def test_a_cursor_is_one_that_was_given_out_or_refused(text: str, question: str) -> None:
    found = understood(lambda: read_cursor(text, question))
    assert found is None or str(found) == text.strip() or int(text.split(".")[0]) == found.position


@given(JSON)
def test_a_filter_in_json_is_understood_or_refused(tree: Any) -> None:  # noqa: ANN401
    understood(lambda: Expression.from_json(tree))


@given(TEXT, st.booleans())
@example("http://169.254.169.254/latest/meta-data", True)
@example("http://[::ffff:169.254.169.254]/", True)
@example("http://user:secret@example.org/a.tif", False)
def test_no_address_that_a_catalog_names_carries_a_password_or_another_scheme(
    text: str, private: bool
) -> None:
    home = Home(is_private=private)
    document = "https://example.org/catalog.json"
    if not text.lower().startswith(("http", "//")) or "169.254" in text or "@" in text:
        found = understood(lambda: resolve(text, document, home))
        assert found is None or found.startswith(("http://", "https://"))
        if "169.254" in text:
            assert found is None
        if "secret@" in text:
            assert found is None


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/a.tif",
        "http://",
        "http://exa mple.org/",
        "http://[::1",
        "http://example.org:99999/",
        "https://user@example.org/",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ParcelleError):
        check_url(url, Home())


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "id": JSON,
            "type": JSON,
            "properties": JSON | st.fixed_dictionaries({}, optional={"datetime": JSON}),
            "assets": JSON
            | st.dictionaries(
                st.sampled_from(["B04", "blue", "SCL", "x"]),
                st.fixed_dictionaries({}, optional={"href": JSON, "eo:bands": JSON, "roles": JSON}),
                max_size=3,
            ),
            "bbox": JSON,
            "geometry": JSON,
            "links": JSON,
        },
    )
)
def test_an_item_of_a_catalog_is_understood_or_refused(item: dict[str, Any]) -> None:
    understood(lambda: read_item(item, "https://example.org/item.json", Home()))
    # What is understood as it came is understood as it went over the wire.
    json.dumps(item)
