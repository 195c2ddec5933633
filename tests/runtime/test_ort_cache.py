"""Caches where onnxruntime runs do what those in numpy do, and nothing of them is copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import EngineError, KvFullError
from minicpmo_ros.runtime.kv import SMALLEST, KvRows
from minicpmo_ros.runtime.ort import device_rows
from minicpmo_ros.runtime.ort.device import Device, numbers
from minicpmo_ros.runtime.ort.device_cache import OrtCache
from minicpmo_ros.runtime.ort.onnx_bytes import FLOAT, FLOAT16
from tests.runtime.ort_devices import DEVICES

LAYERS, HEADS, DIM, THETA = 2, 3, 16, 1e6
CAPACITY = 4 * SMALLEST
SINGLE, HALF = np.dtype(np.float32), np.dtype(np.float16)

pytestmark = pytest.mark.parametrize("device", DEVICES, indirect=True)


@pytest.fixture(scope="module")
def device(request: pytest.FixtureRequest) -> Device:
    return Device(request.param, threads=1)


def both(device: Device, dtype: np.dtype = SINGLE) -> tuple[OrtCache, KvRows]:
    sizes = LAYERS, HEADS, CAPACITY, DIM, THETA
    return OrtCache(device, *sizes, dtype), KvRows(*sizes)


def write(ours: OrtCache, theirs: KvRows, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.standard_normal((2 * LAYERS, HEADS, count, DIM)).astype(np.float16)
    at = ours.length
    for cache in (ours, theirs):
        cache.write(list(rows.astype(np.float32)), at)


def assert_equal(ours: OrtCache, theirs: KvRows, tolerance: float = 5e-6) -> None:
    assert ours.length == theirs.length
    for index, (mine, right) in enumerate(zip(ours.buffers, theirs.buffers, strict=True)):
        found, expected = (one[:, : ours.length] for one in (mine.numpy(), right))
        if index % 2:
            assert np.array_equal(found, expected)
        else:
            assert np.allclose(found, expected, atol=tolerance)


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "remove", "shift", "truncate"]), st.integers(0, 10**6)),
    max_size=8,
)


@settings(max_examples=30)
@given(steps=STEPS, dtype=st.sampled_from([SINGLE, HALF]))
def test_any_sequence_of_changes_leaves_the_same_rows(
    device: Device, steps: list[tuple[str, int]], dtype: np.dtype
) -> None:
    ours, theirs = both(device, dtype)
    tolerance = 5e-6 if dtype == SINGLE else 0.02
    write(ours, theirs, 300, 0)
    for step, number in steps:
        length = ours.length
        if step == "write":
            count = number % 200 + 1
            if length + count <= CAPACITY:
                write(ours, theirs, count, number)
        elif step == "remove":
            start = number % (length + 1)
            stop = min(start + number % 97, length)
            for cache in (ours, theirs):
                cache.remove([(start, stop), (0, min(number % 5, start))])
        elif step == "shift":
            start = number % (length + 1)
            to = min(max(start + number % 61 - 30, 0), CAPACITY - (length - start))
            for cache in (ours, theirs):
                cache.shift(start, to)
        else:
            for cache in (ours, theirs):
                cache.truncate(number % (length + 1))
        assert_equal(ours, theirs, tolerance)


def test_keys_are_those_of_the_last_rows(device: Device) -> None:
    ours, theirs = both(device)
    write(ours, theirs, 40, 0)
    assert np.array_equal(ours.keys(7), theirs.keys(7))
    assert np.array_equal(ours.keys(0), theirs.keys(0))


def test_what_is_forgotten_becomes_zeros(device: Device) -> None:
    """A stage multiplies it by nothing, and of NaN that is NaN."""
    ours, theirs = both(device)
    ours.write([np.full((HEADS, 9, DIM), np.nan, np.float32)] * 2 * LAYERS, 0)
    ours.truncate(0)
    write(ours, theirs, 4, 0)
    assert not any(np.isnan(buffer.numpy()).any() for buffer in ours.buffers)
    assert_equal(ours, theirs)


@pytest.mark.parametrize("dtype", [SINGLE, HALF])
def test_a_cache_grows_with_what_is_in_it_up_to_its_capacity(
    device: Device, dtype: np.dtype
) -> None:
    ours, theirs = both(device, dtype)
    for count, rows in ((10, 1), (SMALLEST, 2), (2 * SMALLEST, 4)):
        write(ours, theirs, count, count)
        assert {buffer.shape()[1] for buffer in ours.buffers} == {rows * SMALLEST}
        assert_equal(ours, theirs)
    assert not any(buffer.numpy()[:, ours.length :].any() for buffer in ours.buffers)
    assert ours.nbytes == theirs.nbytes * dtype.itemsize // 4
    assert ours.nbytes == sum(buffer.tensor_size_in_bytes() for buffer in ours.buffers)


def test_rows_stay_where_they_are_until_there_are_more(device: Device) -> None:
    ours, theirs = both(device)
    write(ours, theirs, 100, 0)
    before = [buffer.data_ptr() for buffer in ours.buffers]
    assert len(set(before)) == 2 * LAYERS
    write(ours, theirs, 50, 1)
    ours.remove([(10, 30)])
    ours.shift(40, 60)
    ours.truncate(50)
    assert [buffer.data_ptr() for buffer in ours.buffers] == before


def test_what_does_not_fit_is_refused(device: Device) -> None:
    ours, theirs = both(device)
    write(ours, theirs, 100, 0)
    with pytest.raises(KvFullError, match="100 in use"):
        ours.check_room(CAPACITY)
    with pytest.raises(KvFullError):
        ours.shift(50, CAPACITY)
    with pytest.raises(ValueError, match="overlaps"):
        ours.remove([(0, 10), (5, 15)])
    assert_equal(ours, theirs)


def test_only_the_rows_of_a_cache_are_touched(device: Device) -> None:
    """Of half a GiB that nothing was written to there is no memory yet; writing a row takes some
    pages, and copying the cache would take all of it."""
    if device.kind != "cpu":
        pytest.skip("pages are counted in main memory")
    large = np.zeros((HEADS, 1 << 19, 64), np.float32)
    cache = device.put(large)
    before = resident()
    for count in (1, 70):
        session = device.writer(1, SINGLE)
        binding = session.io_binding()
        binding.bind_ortvalue_input("cache.0", cache)
        binding.bind_cpu_input("rows.0", np.ones((HEADS, count, 64), np.float32))
        binding.bind_cpu_input("numbers", numbers(1000, count))
        binding.bind_ortvalue_output("out.0", cache)
        device.run(session, binding)
        assert binding.get_outputs()[0].data_ptr() == large.ctypes.data
    device.move(cache, np.arange(1000, 1070), 5, SINGLE)
    assert large[:, 5:75].all() and not large[:, 75:1000].any()
    assert resident() - before < large.nbytes / 4


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize(
    "graph",
    [
        device_rows.writer(3, FLOAT16),
        device_rows.mover(FLOAT, turned=False),
        device_rows.mover(FLOAT16, turned=True),
        device_rows.grower(FLOAT),
    ],
)
def test_graphs_are_as_the_package_onnx_would_have_them(device: Device, graph: bytes) -> None:
    onnx = pytest.importorskip("onnx", reason="reading ONNX files needs the extra export")
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    assert model.SerializeToString(deterministic=True) == graph


def test_what_fails_there_is_said(device: Device) -> None:
    cache = device.put(np.zeros((2, 4, 6), np.float32))
    too_wide = np.ones((1, 4), np.float32), np.ones((1, 4), np.float32)
    with pytest.raises(EngineError, match=f"onnxruntime failed on {device.name}: .*kv_capacity"):
        device.move(cache, np.array([2]), 0, SINGLE, too_wide)
