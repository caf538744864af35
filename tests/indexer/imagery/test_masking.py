import numpy as np
import pytest

from indexer.imagery.masking import clear_sky, has_data

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        # 0 is nodata by the product's definition, 65535 was never set.
        ([0, 1, 4000, 65_535], "uint16", [False, True, True, False]),
        # An int16 copy of an unsigned file holds -1 for 65535.
        ([-1, 0, 1, 32_767], "int16", [False, False, True, True]),
        ([NAN, INFINITY, -INFINITY, 0.3], "float32", [False, False, False, True]),
        ([1e20, -9999.0, 0.0, 1.2], "float32", [False, False, False, True]),
    ],
)
def test_a_measurement_is_positive_finite_and_of_a_possible_size(
    values: list[float], dtype: str, expected: list[bool]
) -> None:
    assert has_data(np.array(values, dtype=dtype), None).tolist() == expected


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32", "float64"])
def test_the_declared_nodata_value_is_no_measurement(dtype: str) -> None:
    dn = np.array([[1500, 9999], [9999, 1]], dtype=dtype)
    assert has_data(dn, 9999.0).tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("nodata", [NAN, INFINITY, -9999.0, 0.0, None])
def test_a_declaration_that_meets_no_measurement_takes_none_away(nodata: float | None) -> None:
    assert has_data(np.array([1, 2500], dtype=np.uint16), nodata).all()


def test_only_vegetation_bare_soil_and_water_are_clear() -> None:
    classes = np.arange(12, dtype=np.uint8)
    assert np.flatnonzero(clear_sky(classes)).tolist() == [4, 5, 6]
