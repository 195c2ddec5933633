"""The KV cache: windows that slide, in buffers that stay where they are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import KvFullError
from minicpmo_ros.model import kv
from minicpmo_ros.model.kv import KvCache
from minicpmo_ros.model.rope import angles, rotate
from tests.model.decoders import random, relative_error, small_llm

THETA = 1e6


def rotated(keys: torch.Tensor, first: int = 0) -> torch.Tensor:
    """Keys [..., T, D] for the positions from `first` on."""
    angle = angles(torch.arange(first, first + keys.shape[-2]), keys.shape[-1], THETA)
    return rotate(keys, angle.cos(), angle.sin())


def filled(length: int, capacity: int = 64) -> tuple[KvCache, torch.Tensor, torch.Tensor]:
    """A cache with `length` rows, and its keys before they were rotated, and its values."""
    cache = KvCache(2, 3, capacity, 16, THETA)
    keys, values = random(2, 3, length, 16, seed=1), random(2, 3, length, 16, seed=2)
    cache.k[:, :, :length], cache.v[:, :, :length] = rotated(keys), values
    cache.length = length
    return cache, keys, values


@st.composite
def lengths_and_spans(draw):
    """A length, and spans [start, stop) within it, apart, shuffled, some of them empty."""
    length = draw(st.integers(0, 48))
    edges = sorted(draw(st.lists(st.integers(0, length), max_size=8)))
    spans = list(zip(edges[::2], edges[1::2], strict=False))
    return length, draw(st.permutations(spans))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Rows move in several blocks, as they do in caches of a usual size."""
    monkeypatch.setattr(kv, "MOVED_AT_ONCE", 5)


# The fixture is the same for every example.
several = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@several
@given(lengths_and_spans())
def test_a_slid_window_has_the_keys_of_a_recomputed_one(length_and_spans):
    length, spans = length_and_spans
    cache, keys, values = filled(length)
    k_at, v_at = cache.k.data_ptr(), cache.v.data_ptr()
    kept = [row for row in range(length) if not any(a <= row < b for a, b in spans)]

    cache.remove(spans)

    assert cache.length == len(kept)
    found = cache.k[:, :, : cache.length], cache.v[:, :, : cache.length]
    torch.testing.assert_close(found[0], rotated(keys[:, :, kept]), atol=1e-5, rtol=0)
    assert torch.equal(found[1], values[:, :, kept])
    assert (cache.k.data_ptr(), cache.v.data_ptr()) == (k_at, v_at)


@several
@given(lengths_and_spans())
def test_many_spans_at_once_are_the_same_as_one_after_the_other(length_and_spans):
    length, spans = length_and_spans
    at_once, one_by_one = filled(length)[0], filled(length)[0]
    at_once.remove(spans)
    for span in sorted(spans, reverse=True):
        one_by_one.remove([span])
    assert at_once.length == one_by_one.length
    rows = slice(0, at_once.length)
    torch.testing.assert_close(at_once.k[:, :, rows], one_by_one.k[:, :, rows], atol=1e-5, rtol=0)
    assert torch.equal(at_once.v[:, :, rows], one_by_one.v[:, :, rows])


@pytest.mark.parametrize("spans", [[(3, 11)], [(2, 5), (4, 6)], [(-1, 2)]])
def test_spans_that_overlap_or_are_not_there_are_refused(spans):
    cache, keys, _ = filled(10)
    with pytest.raises(ValueError, match="span"):
        cache.remove(spans)
    assert cache.length == 10
    torch.testing.assert_close(cache.k[:, :, :10], rotated(keys))


@several
@given(length=st.integers(0, 40), start=st.integers(0, 40), to=st.integers(0, 80))
def test_rows_shift_either_way_with_keys_turned_and_values_as_they_were(length, start, to):
    start = min(start, length)
    cache, keys, values = filled(length)
    moved = length - start
    if to + moved > cache.capacity:
        with pytest.raises(KvFullError):
            cache.shift(start, to)
        assert cache.length == length
        torch.testing.assert_close(cache.k[:, :, :length], rotated(keys))
        return
    cache.shift(start, to)
    assert cache.length == to + moved
    expected = rotated(keys[:, :, start:], first=to)
    torch.testing.assert_close(cache.k[:, :, to : to + moved], expected, atol=1e-5, rtol=0)
    assert torch.equal(cache.v[:, :, to : to + moved], values[:, :, start:])
    before = min(start, to)
    torch.testing.assert_close(cache.k[:, :, :before], rotated(keys)[:, :, :before])


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_first_layer_of_a_slid_window_is_that_of_the_shorter_text(dtype, tolerance):
    """Later layers have seen what was forgotten, so only the first can equal a fresh prefill."""
    llm = small_llm(dtype=dtype)
    embeds = random(30, 64, dtype=dtype)
    slid, fresh = llm.cache(32), llm.cache(32)
    llm.extend(embeds, slid)
    slid.remove([(4, 9), (15, 20)])
    kept = [*range(4), *range(9, 15), *range(20, 30)]
    llm.extend(embeds[kept], fresh)
    assert slid.length == fresh.length == 20
    assert relative_error(slid.k[0, :, :20], fresh.k[0, :, :20]) < tolerance
    assert relative_error(slid.v[0, :, :20], fresh.v[0, :, :20]) < tolerance


def test_a_window_that_slides_for_hours_keeps_bfloat16_keys_near():
    """A unit is forgotten every second and each survivor turned on, 24 times in its life."""
    llm, exact = small_llm(dtype=torch.bfloat16), small_llm()
    embeds = random(260, 64, dtype=torch.bfloat16)
    cache, fresh = llm.cache(80), exact.cache(80)
    llm.extend(embeds[:20], cache)
    for start in range(20, 260, 2):
        llm.extend(embeds[start : start + 2], cache)
        if cache.length > 68:
            cache.remove([(20, 22)])
    exact.extend(torch.cat((embeds[:20], embeds[-48:])).float(), fresh)
    assert relative_error(cache.k[0, :, :68], fresh.k[0, :, :68]) < 3e-2


@pytest.mark.parametrize("change", [-3, 0, 5])
def test_a_prompt_is_replaced_in_front_of_what_follows_it(change):
    """How `context` keeps what was said: rows 4 to 10 become others, and more or fewer."""
    llm = small_llm()
    embeds, replacement = random(20, 64, seed=3), random(6 + change, 64, seed=4)
    cache, fresh = llm.cache(32), llm.cache(32)
    llm.extend(embeds, cache)
    cache.shift(10, 10 + change)
    hidden = llm.extend(replacement, cache, at=4)

    expected = llm.extend(torch.cat((embeds[:4], replacement, embeds[10:])), fresh)
    assert cache.length == fresh.length == 20 + change
    assert relative_error(hidden, expected[4 : 10 + change]) < 1e-5
    rows = slice(0, cache.length)
    assert relative_error(cache.k[0, :, rows], fresh.k[0, :, rows]) < 1e-5
    assert relative_error(cache.k[:, :, : 10 + change], fresh.k[:, :, : 10 + change]) < 1e-5


def test_length_room_and_memory():
    cache = KvCache(2, 3, 64, 16, THETA, dtype=torch.bfloat16)
    assert (cache.capacity, cache.room, cache.nbytes) == (64, 64, 2 * 2 * 3 * 64 * 16 * 2)
    cache.length = 10
    cache.truncate(7)
    assert cache.room == 57
    with pytest.raises(ValueError, match="cannot cut 7 rows to 8"):
        cache.truncate(8)
    cache.clear()
    assert cache.length == 0
