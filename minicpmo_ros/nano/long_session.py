"""Whether a session of half an hour ends as it began."""

from __future__ import annotations

from collections.abc import Iterator

from minicpmo_ros.bench.figures import Figure
from minicpmo_ros.nano.measured import Measured, share


def thirds(parts: list[Measured]) -> tuple[Measured, Measured]:
    """The first and the last third of a session that was measured in parts."""
    size = max(len(parts) // 3, 1)
    return joined(parts[:size]), joined(parts[-size:])


def joined(parts: list[Measured]) -> Measured:
    whole = Measured()
    for one in parts:
        whole.answers += one.answers
        whole.seen += one.seen
        whole.units += one.units
        whole.ms += one.ms
    return whole


def drift(first: Measured, last: Measured) -> Iterator[Figure]:
    yield Figure("nano.long_answers_first_third", share(first.all_answers))
    yield Figure("nano.long_answers_last_third", share(last.all_answers))
    yield Figure("nano.long_units_first_third", share(first.units))
    yield Figure("nano.long_units_last_third", share(last.units))
