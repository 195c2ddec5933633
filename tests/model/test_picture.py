"""Pictures are scaled, cut and laid out exactly as the reference does it."""

from __future__ import annotations

import platform

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.errors import InputError
from minicpmo_ros.model.part_configs import SliceConfig
from minicpmo_ros.model.picture import Cut, Slice, batch, cut, position_ids, slices
from tests.model.vision_stage import REFERENCE, SLICES, noise, shown

PICTURES = [("640x480", 1), ("448x448", 1), ("480x640", 1), ("1280x720", 4)]


@pytest.mark.parametrize("row", REFERENCE["slicing"].tolist(), ids=lambda row: str(row[:3]))
def test_sizes_and_grid_are_the_references(row: list[int]) -> None:
    size, limit, source, grid, cell = row[:2], row[2], row[3:5], row[5:7], row[7:]
    expected = Cut(tuple(source), *((tuple(grid), tuple(cell)) if any(grid) else (None, None)))
    assert cut(tuple(size), limit, SLICES) == expected


@pytest.mark.parametrize("name, max_slices", PICTURES)
def test_pixels_are_the_references(name: str, max_slices: int) -> None:
    found = slices(noise(*map(int, name.split("x"))), max_slices, SLICES)
    key = f"{name}_s{max_slices}"
    assert [[part.rows, part.columns] for part in found] == REFERENCE[key + ".tgt_sizes"].tolist()
    head = REFERENCE[key + ".pixels_head"]
    assert np.array_equal(found[0].pixels[:, :, : head.shape[2]], head)


sides = st.integers(1, 4000)


@given(width=sides, height=sides, limit=st.integers(1, 12))
def test_any_picture_is_cut_within_its_limit_and_keeps_its_proportions(width, height, limit):
    plan = cut((width, height), limit, SLICES)
    assert 1 <= plan.slices <= limit + 1
    for seen in filter(None, (plan.source, plan.cell)):
        assert all(side >= 14 and side % 14 == 0 for side in seen)
    if plan.grid is None or plan.cell is None:
        assert limit == 1 or width * height <= 448**2
        return
    assert width * height > 448**2
    # Of all grids of so many cells none is nearer to the picture's proportions.
    distance = {
        columns: abs(np.log(width / height * rows / columns))
        for columns in range(1, plan.slices)
        for rows in [(plan.slices - 1) / columns]
        if rows.is_integer()
    }
    assert distance[plan.grid[0]] == pytest.approx(min(distance.values()))


def test_slices_come_whole_first_then_row_by_row():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    picture = np.kron(grey, np.ones((480, 480), np.uint8))
    whole, *cells = slices(picture, 6, SLICES)
    seen = [round((float(cell.pixels.mean()) / 2 + 0.5) * 255) for cell in cells]
    assert seen == pytest.approx(grey.ravel(), abs=2)
    assert (whole.pixels.mean() / 2 + 0.5) * 255 == pytest.approx(100, abs=2)


def test_patches_lie_side_by_side_row_by_row():
    config = SliceConfig(patch=2, resolution=8, mean=(0.0, 0.1, 0.2), std=(1.0, 0.5, 0.25))
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    (found,) = slices(picture, 1, config)  # 8 x 8 pixels stay 8 x 8
    assert (found.rows, found.columns, found.patches) == (4, 4, 16)
    for n in range(16):
        top, left = n // 4 * 2, n % 4 * 2
        part = picture[top : top + 2, left : left + 2] / 255
        expected = (part - np.array(config.mean)) / np.array(config.std)
        assert np.allclose(
            found.pixels[:, :, 2 * n : 2 * n + 2], expected.transpose(2, 0, 1), atol=1e-6
        )


def test_grey_is_a_picture_of_three_equal_channels():
    grey = noise(100, 60)[:, :, 0]
    for picture in (grey, grey[:, :, None]):
        found = slices(picture, 1, SLICES)[0].pixels
        assert np.array_equal(found, slices(np.stack([grey] * 3, axis=2), 1, SLICES)[0].pixels)


@pytest.mark.parametrize(
    "size, rows, columns", [((1, 1), 32, 32), ((8000, 10), 1, 857), ((10, 8000), 905, 1)]
)
def test_extreme_pictures_are_seen(size, rows, columns):
    (found,) = slices(noise(*size), 9, SLICES)
    assert (found.rows, found.columns) == (rows, columns)
    assert np.isfinite(found.pixels).all()


@pytest.mark.parametrize(
    "picture, said",
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 4), np.uint8), r"\[4, 4, 4\]"),
        (np.zeros((4, 4), np.uint16), "uint16"),
        (np.zeros((0, 4, 3), np.uint8), "not empty"),
        (np.zeros(4, np.uint8), r"\[4\]"),
    ],
)
def test_what_is_no_picture_is_refused(picture, said):
    with pytest.raises(InputError, match=said):
        slices(picture, 1, SLICES)


def test_a_limit_below_one_is_refused():
    with pytest.raises(InputError, match="max_slices is 0"):
        slices(noise(10, 10), 0, SLICES)


@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="elsewhere torch.arange rounds otherwise"
)
@pytest.mark.parametrize("side", [70, 32])
def test_positions_are_what_navit_takes_them_for_on_x86(side: int) -> None:
    bounds = torch.arange(1 / side, 1.0, 1 / side)
    for count in range(1, 1000):
        fractions = torch.arange(0, 1 - 1e-6, 1 / torch.tensor(count, dtype=torch.int32))
        expected = torch.bucketize(fractions, bounds, right=True).numpy()
        assert np.array_equal(position_ids(1, count, side), expected)
        assert np.array_equal(position_ids(count, 1, side), expected * side)


def test_positions_are_spread_over_the_table():
    assert position_ids(2, 4, 8).tolist() == [0, 2, 4, 6, 32, 34, 36, 38]
    assert position_ids(70, 70, 70).tolist() == list(range(4900))


def tile(rows: int, columns: int, value: float) -> Slice:
    return Slice(np.full((3, 2, 2 * rows * columns), value, np.float32), rows, columns)


def test_a_batch_is_padded_at_its_ends():
    found = batch([tile(2, 2, 1.0), tile(1, 3, 2.0)], side=8, patches=6)
    assert found.pixels.shape == (2, 3, 2, 12)
    assert found.pixels[:, 0, 0, ::2].tolist() == [[1, 1, 1, 1, 0, 0], [2, 2, 2, 0, 0, 0]]
    assert found.position_ids.tolist() == [[0, 4, 32, 36, 0, 0], [0, 2, 5, 0, 0, 0]]
    assert found.cells[0].tolist() == [[0, 0], [1, 0], [0, 1], [1, 1], [0, 0], [0, 0]]
    assert found.cells[1].tolist() == [[0, 0], [1, 0], [2, 0], [0, 0], [0, 0], [0, 0]]
    assert found.mask is not None
    assert found.mask.tolist() == [[True] * 4 + [False] * 2, [True] * 3 + [False] * 3]


def test_a_batch_of_equal_slices_has_no_mask():
    assert batch(shown((640, 480), (320, 240)), side=70).mask is None


def test_a_batch_needs_slices_and_room_for_them():
    with pytest.raises(InputError, match="at least one slice"):
        batch([], side=8)
    with pytest.raises(InputError, match="4 patches, more than the 3"):
        batch([tile(2, 2, 0.0)], side=8, patches=3)
