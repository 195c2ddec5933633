"""What counts as equal, and what a difference is called."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minicpmo_ros.parity.compare import TOLERANCE, close, difference, same

NUMBERS = arrays(np.float64, (3, 4), elements=st.floats(-50, 50).filter(lambda x: abs(x) > 1e-3))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(NUMBERS, st.integers(0, 11), st.floats(0, 3))
def test_an_error_is_a_share_of_the_largest_magnitude(golden, place, times):
    found, largest = golden.copy(), np.abs(golden).max()
    found.flat[place] += times * TOLERANCE * largest
    row = close("it", found, golden)
    assert row.error == pytest.approx(times * TOLERANCE, abs=1e-9)
    if abs(times - 1) > 1e-3:
        assert row.passed == (times < 1)


def test_where_the_largest_error_is_and_what_it_is_are_said():
    row = close("it", [[1.0, 2.0], [3.5, 4.1]], [[1.0, 2.0], [3.0, 4.0]])
    assert (row.passed, row.error) == (False, pytest.approx(0.125))
    assert row.note == "at [1, 0] 3.5 instead of 3"


@pytest.mark.parametrize(
    ("found", "note"),
    [
        ([1.0, 2.0, 3.0], "is [3] instead of [2]"),
        ([np.nan, 2.0], "at [0] nan instead of 1"),
        ([1.0, -np.inf], "at [1] -inf instead of 2"),
    ],
)
def test_another_shape_and_what_is_no_number_never_pass(found, note):
    row = close("it", found, [1.0, 2.0], tolerance=1e9)
    assert (row.passed, row.error, row.note) == (False, np.inf, note)


def test_zeros_are_only_zeros():
    assert close("it", np.zeros(3), np.zeros(3)).passed
    assert not close("it", [0.0, 1e-30, 0.0], np.zeros(3)).passed


@given(JSON)
def test_a_thing_is_the_same_as_itself(thing):
    row = same("it", thing, thing, "a remark")
    assert (row.passed, row.error, row.note) == (True, None, "a remark")


@pytest.mark.parametrize(
    ("found", "golden", "says"),
    [
        (3, 4, "3 instead of 4"),
        (1, True, "1 instead of True"),
        ("a", None, "'a' instead of None"),
        ([1, 2], [1, 3], "at 1: 2 instead of 3"),
        ([1, 2], [1, 2, 3], "2 of them instead of 3"),
        ([1, 2, 3], [1, 2], "3 of them instead of 2"),
        ({"a": [1, [2]]}, {"a": [1, [3]]}, "a: at 1: at 0: 2 instead of 3"),
        ({}, {"a": 1}, "a is not there"),
        ([], {}, "[] instead of {}"),
    ],
)
def test_the_first_difference_is_named(found, golden, says):
    assert difference(found, golden) == says
    assert same("it", found, golden, "a remark") == same("it", found, golden)
