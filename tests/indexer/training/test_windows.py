import numpy as np
import pytest

from indexer.training.windows import reflected, windows_of


@pytest.mark.parametrize(
    ("length", "before", "after", "expected"),
    [
        (3, 2, 2, [2, 1, 0, 1, 2, 1, 0]),
        (3, 0, 0, [0, 1, 2]),
        (2, 3, 3, [1, 0, 1, 0, 1, 0, 1, 0]),
        (1, 2, 3, [0, 0, 0, 0, 0, 0]),
    ],
)
def test_a_line_is_continued_by_reflection(
    length: int, before: int, after: int, expected: list[int]
) -> None:
    assert reflected(length, before, after).tolist() == expected


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (3, 4), (20, 11)])
@pytest.mark.parametrize("window_px", [1, 7, 8])
def test_every_pixel_has_a_window_with_itself_in_the_middle(
    shape: tuple[int, int], window_px: int
) -> None:
    image = np.arange(2 * shape[0] * shape[1]).reshape(2, *shape)
    windows = windows_of(image, window_px)
    assert windows.shape == (*shape, 2, window_px, window_px)
    middle = windows[..., window_px // 2, window_px // 2]
    np.testing.assert_array_equal(np.moveaxis(middle, 2, 0), image)


def test_windows_inside_the_image_are_its_parts_and_no_copies() -> None:
    image = np.arange(100).reshape(1, 10, 10)
    windows = windows_of(image, 3)
    np.testing.assert_array_equal(windows[4, 5, 0], image[0, 3:6, 4:7])
    assert np.shares_memory(windows[4, 5], windows[4, 6])


def test_windows_at_the_border_are_reflected() -> None:
    image = np.arange(9).reshape(1, 3, 3)
    np.testing.assert_array_equal(windows_of(image, 3)[0, 0, 0], [[4, 3, 4], [1, 0, 1], [4, 3, 4]])
