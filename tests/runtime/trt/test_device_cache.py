"""Keys and values on a card do what those in main memory do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import EngineError, KvFullError
from minicpmo_ros.runtime.kv import SMALLEST, KvRows
from minicpmo_ros.runtime.trt.cache import DeviceCache
from minicpmo_ros.runtime.trt.card import ALIGNMENT, Card
from minicpmo_ros.runtime.trt.library import Library
from minicpmo_ros.runtime.trt.profiles import turn_profiles
from minicpmo_ros.runtime.trt.rows import PIECE, Rows, copy_rows
from minicpmo_ros.runtime.trt.turning import CardTurning, HostTurning, Turning
from tests.runtime.trt.conftest import TurnGraph
from tests.runtime.trt.fake_cuda import FakeCuda
from tests.runtime.trt.fake_trt import fake_module, write_engine

LAYERS, THETA = 2, 1e4
CAPACITY = 4 * SMALLEST - 40
# Of keys that are turned in numpy as in main memory; and by one angle for all of them, where main
# memory takes those of each row in single precision, 6e-5 radians apart at rows of this number.
NEAR, BY_ONE_ANGLE = 5e-6, 5e-4


class Both:
    """A cache on a card and one in main memory, with the same rows.

    heads, dim: with odd ones tensors do not end where the next may begin. engine: that turns keys,
    as a folder to put it in and its graph; without it the host does.
    """

    def __init__(
        self,
        heads: int,
        dim: int,
        engine: tuple[Path, Path] | None = None,
        *,
        kind: type[np.floating] = np.float32,
        capacity: int = CAPACITY,
    ) -> None:
        self.cuda = FakeCuda()
        self.card = Card(cuda=self.cuda)
        self.kind = np.dtype(kind)
        turning: Turning = HostTurning(self.card, dim, self.kind, THETA)
        if engine is not None:
            folder, graph = engine
            file = write_engine(folder / "turn.engine", graph, turn_profiles(LAYERS * heads))
            library = Library("tensorrt_rtx", fake_module(self.cuda))
            turning = CardTurning(library, self.card, file, LAYERS, heads, dim, self.kind, THETA)
        self.near = NEAR if engine is None else BY_ONE_ANGLE
        self.ours = DeviceCache(self.card, LAYERS, heads, dim, self.kind, capacity, THETA, turning)
        self.theirs = KvRows(LAYERS, heads, capacity, dim, THETA)
        self.shape = heads, dim

    def write(self, count: int, seed: int, at: int | None = None, *, nan: bool = False) -> None:
        heads, dim = self.shape
        at = self.ours.length if at is None else at
        random = np.random.default_rng(seed)
        new = random.standard_normal((2 * LAYERS, heads, count, dim)).astype(self.kind)
        if nan:
            new[:] = np.nan
        self.theirs.write(list(new), at)
        # As an engine leaves them, with a row more than there is to be copied.
        sizes = 2 * LAYERS, heads, count + 1, self.kind.itemsize * dim
        memory = self.card.memory(Rows(0, *sizes).nbytes)
        left = Rows(memory.address, *sizes)
        self.card.synchronize()  # zeros would come behind what is written here
        for tensor in range(2 * LAYERS):
            self.tensor(left, self.ours.index(tensor))[:, :count] = new[tensor]
        self.ours.reserve(at + count)
        self.ours.put(left, at, count)
        self.card.synchronize()
        self.ours.length = max(self.ours.length, at + count)

    def tensor(self, rows: Rows, index: int) -> np.ndarray:
        heads, dim = self.shape
        place = self.cuda.view(rows.of(index), heads * rows.rows * rows.width)
        return place.view(self.kind).reshape(heads, rows.rows, dim)

    def assert_equal(self) -> None:
        ours, theirs = self.ours, self.theirs
        length = ours.length
        assert length == theirs.length
        if length:
            assert np.allclose(ours.keys(length), theirs.keys(length), atol=self.near)
        for layer in range(LAYERS):
            values = self.tensor(ours.rows, ours.index(2 * layer + 1))
            assert np.array_equal(values[:, :length], theirs.buffers[2 * layer + 1][:, :length])
            # All rows are looked at by a graph, used or not.
            assert np.isfinite(values).all()
            assert ours.rows.of(ours.index(2 * layer + 1)) % ALIGNMENT == 0

    def remove(self, *spans: tuple[int, int]) -> None:
        for cache in (self.ours, self.theirs):
            cache.remove(spans)

    def error(self) -> float:
        """Of keys, whose deviation is 1: the square root of the mean square."""
        length = self.ours.length
        off = self.ours.keys(length) - self.theirs.keys(length)
        return float(np.sqrt(np.mean(off**2)))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "over", "remove", "shift", "truncate"]), st.integers(0, 10**6)
    ),
    max_size=8,
)


Engines = Callable[[int], "tuple[Path, Path] | None"]


@pytest.fixture(scope="module")
def engine(turn_graph: TurnGraph, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    """What `Both` takes, for keys of so many numbers in single precision."""
    return lambda dim: (tmp_path_factory.mktemp("engine"), turn_graph(dim, "float32"))


@pytest.fixture(scope="module", params=["host", "card"])
def engines(request: pytest.FixtureRequest, engine: Engines) -> Engines:
    """The same, or that there is none."""
    return engine if request.param == "card" else lambda dim: None


@settings(max_examples=40)
@given(steps=STEPS, shape=st.sampled_from([(4, 32), (3, 10)]))
def test_any_sequence_of_changes_leaves_the_same_rows(
    engines: Engines, steps: list[tuple[str, int]], shape: tuple[int, int]
) -> None:
    both = Both(*shape, engines(shape[1]))
    both.write(SMALLEST + 2 * PIECE + 20, 0)
    for step, number in steps:
        length = both.ours.length
        if step == "write":
            count = number % 200 + 1
            if length + count <= CAPACITY:
                both.write(count, number)
        elif step == "over":
            at = number % (length + 1)
            both.write(min(number % 50 + 1, CAPACITY - at), number, at)
        elif step == "remove":
            start = number % (length + 1)
            stop = min(start + number % 97, length)
            both.remove((start, stop), (0, min(number % 5, start)))
        elif step == "shift":
            start = number % (length + 1)
            to = min(max(start + number % 601 - 300, 0), CAPACITY - (length - start))
            both.ours.shift(start, to)
            both.theirs.shift(start, to)
            if to > start:  # what is left in a gap is written over before it is read
                both.write(to - start, number, start)
        else:
            keep = number % (length + 1)
            both.ours.truncate(keep)
            both.theirs.truncate(keep)
        both.assert_equal()


def test_no_keys_leave_the_card_when_they_move(engine: Engines) -> None:
    """Only the cosine and sine of each distance cross; nothing is allocated, and every row is
    copied twice."""
    heads, dim = 4, 32
    both = Both(heads, dim, engine(dim))
    both.write(CAPACITY, 0)
    cuda = both.cuda
    crossed, copied, held = cuda.crossed, cuda.copied, cuda.allocations
    both.remove((50, 60), (100, 165), (900, CAPACITY - 2))
    row = 2 * LAYERS * heads * dim * 4
    assert cuda.crossed - crossed == 3 * 4 * dim
    assert cuda.copied - copied == 2 * row * (40 + 735 + 2)
    assert cuda.allocations == held
    both.assert_equal()


def test_keys_that_slide_for_long_are_as_good_as_if_the_host_turned_them(
    turn_graph: TurnGraph, tmp_path: Path
) -> None:
    """In half precision, as at full size: every turn rounds them, and that is all."""
    heads, dim, rows = 1, 128, 4000
    turns = (tmp_path, turn_graph(dim, "float16"))
    card, host = (
        Both(heads, dim, where, kind=np.float16, capacity=rows) for where in (turns, None)
    )
    errors = []
    for both in (card, host):
        both.write(rows, 0)
        found = []
        for unit in range(1, 31):
            both.remove((100, 165))
            both.write(65, unit)
            found.append(both.error())
        errors.append(found)
    assert 0 < errors[0][0] < 4e-4
    assert errors[0][-1] > 2 * errors[0][0]
    assert all(ours < 1.02 * theirs for ours, theirs in zip(*errors, strict=True))


def test_that_the_host_turns_keys_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    both = Both(4, 32)
    both.write(100, 0)
    assert not caplog.messages
    for _ in range(3):
        both.remove((5, 10))
    assert len(caplog.messages) == 1
    assert "keys are turned on the host" in caplog.text


def test_an_engine_for_other_keys_is_refused(turn_graph: TurnGraph, tmp_path: Path) -> None:
    for dim, dtype in ((64, "float32"), (32, "float16")):
        with pytest.raises(EngineError, match="another network or recipe"):
            Both(4, 32, (tmp_path, turn_graph(dim, dtype)))


@pytest.mark.parametrize("shape", [(4, 32), (3, 10)])
def test_nothing_is_left_of_what_is_cut_off(shape: tuple[int, int]) -> None:
    both = Both(*shape)
    both.write(100, 0)
    both.write(PIECE + 50, 1, 90, nan=True)
    for cache in (both.ours, both.theirs):
        cache.truncate(90)
    both.assert_equal()


def test_the_rows_of_all_layers_are_one_copy() -> None:
    both = Both(4, 32)
    both.write(10, 0)
    before = both.cuda.copies
    both.ours.put(both.ours.rows.part(0, 2 * LAYERS), 100, 1)
    both.card.synchronize()
    assert both.cuda.copies == before + 1


def test_a_cache_takes_the_memory_of_what_is_in_it() -> None:
    both = Both(4, 32)
    both.write(10, 0)
    assert both.ours.rows.rows == SMALLEST
    both.ours.programs["of the old memory"] = None  # type: ignore[assignment]
    both.write(SMALLEST, 1)
    assert both.ours.rows.rows == 2 * SMALLEST
    assert not both.ours.programs
    both.write(CAPACITY - both.ours.length, 2)
    assert both.ours.rows.rows == CAPACITY
    assert both.ours.nbytes == both.ours.rows.nbytes == both.theirs.nbytes
    with pytest.raises(KvFullError):
        both.ours.check_room(1)


def test_copies_stay_within_their_memory() -> None:
    """So would the fake card tell, if they did not."""
    both = Both(4, 32)
    rows = both.ours.rows
    copy_rows(both.card, rows, SMALLEST - 5, rows, 0, 6)
    with pytest.raises(AssertionError, match="not within any memory"):
        both.card.synchronize()
