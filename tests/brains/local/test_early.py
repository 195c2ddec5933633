"""Which pictures are looked at before their unit closes: those that will be in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.brains.local.early import EarlyLook
from minicpmo_ros.messages import NS_PER_S

SECONDS = 6


def looked_at(stamps: list[int], per_unit: int) -> list[int]:
    """What is worth it, of pictures that come in order while units close in time."""
    early = EarlyLook(per_unit)
    closed = 0
    worth = []
    for stamp in stamps:
        while stamp >= (closed + 1) * NS_PER_S:
            early.unit_closed(closed * NS_PER_S, (closed + 1) * NS_PER_S)
            closed += 1
        if early.worth(stamp):
            worth.append(stamp)
    return worth


@given(
    gap_ns=st.integers(NS_PER_S // 60, 3 * NS_PER_S),
    phase=st.floats(0, 1, exclude_max=True),
    per_unit=st.integers(0, 3),
)
def test_of_a_steady_camera_exactly_the_pictures_of_the_units_are_worth_it(
    gap_ns: int, phase: float, per_unit: int
) -> None:
    first = int(phase * gap_ns)
    stamps = list(range(first, SECONDS * NS_PER_S, gap_ns))
    units = [[s for s in stamps if s // NS_PER_S == k] for k in range(SECONDS)]
    newest = [s for unit in units[1:] for s in unit[max(len(unit) - per_unit, 0) :]]
    if len([s for s in stamps if s < NS_PER_S]) < 2:
        # The gap is not known before a second picture has come: one look may be for nothing.
        assert set(newest) <= set(looked_at(stamps, per_unit))
    else:
        assert looked_at(stamps, per_unit) == newest


@given(st.lists(st.integers(0, 8 * NS_PER_S), max_size=40), st.integers(0, 3))
def test_whatever_comes_none_of_a_closed_unit_and_none_that_goes_back_is_worth_it(
    stamps: list[int], per_unit: int
) -> None:
    early = EarlyLook(per_unit)
    early.unit_closed(0, NS_PER_S)
    for before, stamp in zip([-1, *stamps], stamps, strict=False):
        if early.worth(stamp):
            assert per_unit
            assert stamp >= NS_PER_S
            assert stamp > before


def test_before_the_first_unit_has_closed_nothing_is_known_of_units():
    early = EarlyLook(1)
    assert not any(early.worth(stamp) for stamp in range(0, NS_PER_S, NS_PER_S // 10))


def test_a_camera_that_falls_behind_its_clock_is_watched_again_when_stamps_grow():
    early = EarlyLook(1)
    early.unit_closed(0, NS_PER_S)
    assert early.worth(1_900_000_000)
    assert not early.worth(1_900_000_000)
    assert not early.worth(1_850_000_000)
    assert early.worth(1_950_000_000)


def test_of_a_fast_camera_the_last_is_worth_it_also_in_the_unit_after():
    early = EarlyLook(1)
    tenth = NS_PER_S // 10
    early.unit_closed(0, NS_PER_S)
    worth = [n for n in range(10, 30) if early.worth(n * tenth)]
    # The first unit has not closed when the second one's pictures come; the gap is known by then.
    assert worth == [10, 19, 29]
