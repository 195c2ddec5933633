"""What a window keeps, where, and that what is kept is as if the rest had never moved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.duplex.config import WindowConfig
from minicpmo_ros.duplex.window import KeptUnit, Window
from minicpmo_ros.errors import KvFullError
from minicpmo_ros.runtime.torch_runtime import TorchNetwork

PREFIX, SUFFIX, MARKER = [1, 2, 3, 4], [5, 6], [7, 8, 9]


class Tape:
    """A context that only knows which token stands where. most: rows ever in use."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: list[int] = []
        self.most = 0

    @property
    def length(self) -> int:
        return len(self.rows)

    def read(self, *parts: Sequence[int], at: int | None = None) -> list[int]:
        ids = [token for part in parts for token in part]
        assert ids
        assert all(parts)
        at = len(self.rows) if at is None else at
        self.rows[at : at + len(ids)] = ids
        self._check()
        return ids

    def truncate(self, length: int) -> None:
        assert length <= self.length
        del self.rows[length:]

    def remove(self, spans: Iterable[tuple[int, int]]) -> None:
        for start, stop in sorted(spans, reverse=True):
            assert stop <= self.length
            del self.rows[start:stop]

    def shift(self, start: int, to: int) -> None:
        moved = self.rows[start:]
        self.rows = (self.rows + [0] * to)[:to] + moved
        self._check()

    def _check(self) -> None:
        self.most = max(self.most, self.length)
        assert self.length <= self.capacity


class Talk:
    """Units of tokens through a window, and the truth about each."""

    def __init__(
        self, config: WindowConfig, capacity: int = 200, bare_marker: bool = False
    ) -> None:
        self.tape = Tape(capacity)
        self.bare_marker = bare_marker
        self.window = Window(self.tape, config, MARKER, bare_marker=bare_marker)
        self.window.open([PREFIX], SUFFIX)
        self.units: list[tuple[list[int], tuple[int, ...]]] = []
        self.token = 100

    def unit(self, rows: int, said: int = 0) -> None:
        ids = list(range(self.token, self.token + rows))
        self.token += rows
        self.window.make_room(rows)
        self.tape.read(ids)
        words = tuple(ids[:said])
        self.units.append((ids, words))
        self.window.add(KeptUnit(rows, words))

    def expected(self, previous_tokens: int) -> list[int]:
        """Prefix, what was said in forgotten units, suffix, the units that are left."""
        forgotten = self.window.forgotten
        words = [word for _, said in self.units[:forgotten] for word in said]
        marked = bool(words) and (self.bare_marker or previous_tokens > 0)
        words = words[max(len(words) - previous_tokens, 0) :]
        kept = [token for ids, _ in self.units[forgotten:] for token in ids]
        return [*PREFIX, *(MARKER if marked else []), *words, *SUFFIX, *kept]


units = st.lists(st.tuples(st.integers(14, 50), st.integers(0, 10)), min_size=1, max_size=60)


@given(units, st.integers(60, 150), st.integers(0, 60))
def test_basic_keeps_the_newest_units_between_high_and_low(lengths, high, below):
    talk = Talk(WindowConfig("basic", high_tokens=high, low_tokens=high - below))
    for rows, said in lengths:
        before, forgotten = talk.tape.length, talk.window.forgotten
        talk.unit(rows, said)
        assert talk.tape.rows == talk.expected(0)
        assert len(talk.window.units) == len(talk.units) - talk.window.forgotten
        if before + rows <= high:
            assert talk.window.forgotten == forgotten
        else:
            length = talk.tape.length
            assert length <= high - below or not talk.window.units
            # And no unit more than was needed.
            oldest = talk.units[talk.window.forgotten - 1][0]
            assert length + len(oldest) > high - below


@given(units, st.integers(1, 5), st.sampled_from([0, 1, 7, 500]), st.booleans())
def test_context_keeps_so_many_units_and_remembers_what_was_said_before(
    lengths, most, previous, bare_marker
):
    talk = Talk(
        WindowConfig("context", max_units=most, previous_tokens=previous), 2000, bare_marker
    )
    for rows, said in lengths:
        talk.unit(rows, said)
        assert len(talk.window.units) == min(len(talk.units), most)
        assert talk.tape.rows == talk.expected(previous)
        assert talk.window.preserved + sum(unit.rows for unit in talk.window.units) == (
            talk.tape.length
        )


@given(units, st.sampled_from(["basic", "context"]))
def test_units_that_would_not_fit_push_out_the_oldest_and_no_more(lengths, mode):
    """The window itself would never slide."""
    talk = Talk(WindowConfig(mode, high_tokens=10_000, max_units=10_000, previous_tokens=20), 120)
    for rows, said in lengths:
        forgotten, before = talk.window.forgotten, talk.tape.length
        talk.unit(rows, said)
        assert talk.tape.rows == talk.expected(0 if mode == "basic" else 20)
        if before + rows <= 120:
            assert talk.window.forgotten == forgotten
        elif mode == "basic":
            assert talk.tape.length + len(talk.units[talk.window.forgotten - 1][0]) > 120


@pytest.mark.parametrize("mode", ["off", "basic", "context"])
def test_what_can_never_fit_costs_no_unit(mode):
    talk = Talk(WindowConfig(mode), 120)
    talk.unit(20, 4)
    talk.unit(20, 4)
    rows = list(talk.tape.rows)
    with pytest.raises(KvFullError, match="holds 120"):
        talk.window.make_room(115)
    assert talk.tape.rows == rows
    assert len(talk.window.units) == 2
    talk.window.make_room(120 - len(rows))
    assert talk.tape.rows == rows


def test_with_the_window_off_a_full_cache_says_what_would_help():
    talk = Talk(WindowConfig("off"), 60)
    talk.unit(50)
    with pytest.raises(KvFullError, match="let a window slide"):
        talk.unit(20)


def test_a_prompt_too_long_leaves_the_session_before():
    talk = Talk(WindowConfig("off"), 20)
    talk.unit(14)
    rows = list(talk.tape.rows)
    with pytest.raises(KvFullError, match="the prompt has 21 tokens"):
        talk.window.open([[1] * 10, [2] * 10], [3])
    assert talk.tape.rows == rows


def test_a_new_prompt_forgets_the_session_before():
    talk = Talk(WindowConfig("context", max_units=1))
    talk.unit(14, 3)
    talk.unit(14, 3)
    assert talk.window.previous
    talk.window.open([[1] * 10, []], [3])
    assert talk.tape.rows == [1] * 10 + [3]
    assert talk.window.preserved == 11
    assert (len(talk.window.units), talk.window.forgotten) == (0, 0)
    talk.window.open([], [])
    assert talk.tape.rows == []


@pytest.mark.parametrize("mode", ["basic", "context"])
def test_hours_pass_within_the_cache(mode):
    """Four hours of units with pictures, in which the robot often speaks."""
    talk = Talk(WindowConfig(mode, high_tokens=1500, low_tokens=1200), 4096)
    random = np.random.default_rng(0)
    for _ in range(4 * 3600):
        talk.unit(*random.choice([(13, 0), (80, 0), (100, 18)]))
    assert talk.tape.most <= 1600 if mode == "basic" else 500 + 24 * 100 + 120
    assert talk.tape.rows == talk.expected(0 if mode == "basic" else 500)


# -- keys ---------------------------------------------------------------------------------------


def turned(keys: np.ndarray, old: Sequence[int], new: Sequence[int], theta: float) -> np.ndarray:
    """Keys [..., rows, D] rotated for `old` positions, rotated for `new` ones: in float64."""
    half = keys.shape[-1] // 2
    frequencies = theta ** (-np.arange(half) / half)
    angles = (np.array(new) - np.array(old))[:, None] * frequencies
    first, second = keys[..., :half].astype(float), keys[..., half:].astype(float)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def read_units(network: TorchNetwork, window: Window, lengths: Sequence[int], said: int) -> None:
    random = np.random.default_rng(1)
    for rows in lengths:
        ids = random.integers(10, 500, rows).tolist()
        window.context.read(ids)
        window.units.append(KeptUnit(rows, tuple(ids[:said])))


def test_basic_leaves_keys_as_if_cut_out_and_turned(network: TorchNetwork):
    theta = network.config.llm.rope_theta
    window = Window(network.context(200), WindowConfig("basic", 100, 60), MARKER)
    window.open([PREFIX], SUFFIX)
    read_units(network, window, [20, 25, 30], said=0)
    before = window.context.keys(81)
    window.context.read([11] * 22)
    last = window.context.keys(22)
    window.add(KeptUnit(22))
    assert window.context.length == 6 + 30 + 22
    found = window.context.keys(58)
    np.testing.assert_array_equal(found[:, :, :6], before[:, :, :6])
    moved = np.concatenate([before[:, :, 51:81], last], axis=2)
    expected = turned(moved, range(51, 103), range(6, 58), theta)
    np.testing.assert_allclose(found[:, :, 6:], expected, atol=1e-5 * np.abs(expected).max())


def test_context_reads_what_was_said_and_turns_the_rest(network: TorchNetwork):
    theta = network.config.llm.rope_theta
    window = Window(network.context(200), WindowConfig("context", max_units=2), MARKER)
    window.open([PREFIX], SUFFIX)
    read_units(network, window, [20, 25], said=4)
    said = [*window.units[0].said]
    window.context.read([11] * 22)
    before = window.context.keys(47)
    window.add(KeptUnit(22))
    prompt = [*PREFIX, *MARKER, *said, *SUFFIX]
    assert window.context.length == len(prompt) + 47
    found = window.context.keys(window.context.length)
    fresh = network.context(200)
    fresh.read(prompt)
    scale = np.abs(found).max()
    np.testing.assert_allclose(found[:, :, :13], fresh.keys(13), atol=1e-5 * scale)
    expected = turned(before, range(26, 73), range(13, 60), theta)
    np.testing.assert_allclose(found[:, :, 13:], expected, atol=1e-5 * scale)


def test_values_move_with_their_keys(network: TorchNetwork):
    """What is read next sees the units that are left, and nothing of those that are gone."""
    window = Window(network.context(200), WindowConfig("basic", 50, 40), MARKER)
    window.open([PREFIX], SUFFIX)
    read_units(network, window, [20, 25], said=0)
    cache = window.context.cache
    kept = cache.v[:, :, 26:51].clone()
    window.add(KeptUnit(0))
    assert window.context.length == 31
    assert torch.equal(cache.v[:, :, 6:31], kept)


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_slid_many_times_keys_do_not_drift(network: TorchNetwork, seed: int):
    """Rotations add up: after hundreds of units the first layer's keys are those of a token at its
    place, whatever was there before."""
    window = Window(network.context(256), WindowConfig("basic", 200, 180), MARKER)
    window.open([PREFIX], SUFFIX)
    random = np.random.default_rng(seed)
    tokens: list[int] = []
    for _ in range(200):
        ids = random.integers(10, 500, int(random.integers(1, 6))).tolist()
        window.context.read(ids)
        window.add(KeptUnit(len(ids)))
        tokens += ids
    left = window.context.length - 6
    fresh = network.context(256)
    fresh.read([*PREFIX, *SUFFIX, *tokens[-left:]])
    found, expected = window.context.keys(left)[0], fresh.keys(left)[0]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("bare", [False, True])
def test_the_reference_keeps_its_marker_where_nothing_may_be_remembered(bare: bool):
    tape = Tape(200)
    window = Window(
        tape, WindowConfig("context", max_units=2, previous_tokens=0), MARKER, bare_marker=bare
    )
    window.open([PREFIX], SUFFIX)
    for first in (100, 110, 120, 130):
        tape.read(list(range(first, first + 10)))
        window.add(KeptUnit(10, (first, first + 1)))
    assert window.previous == (list(MARKER) if bare else [])
    assert tape.length == len(PREFIX) + len(window.previous) + len(SUFFIX) + 20
