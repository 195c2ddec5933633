"""Tables of embeddings: what is read is what was written, as far as bits allow."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime import tables
from minicpmo_ros.runtime.int4 import BLOCK
from minicpmo_ros.runtime.tables import Table, read_arrays, write_table

# Of the largest value of a block: half a step; of four bits what may be clipped of a positive one.
STEPS = {"fp32": 0.0, "fp16": 2**-11, "int8": 0.505 / 127, "int4": 0.39}


def random_table(entries: int, width: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((entries, width))
    return (values * scale).astype(np.float32)


@settings(max_examples=20)
@given(
    st.sampled_from(["fp32", "fp16", "int8", "int4"]),
    st.sampled_from([BLOCK, 3 * BLOCK]),
    st.lists(st.integers(0, 49), max_size=20),
    st.floats(1e-2, 100),
)
def test_rows_come_back_within_their_precision(
    tmp_path_factory: pytest.TempPathFactory,
    precision: str,
    width: int,
    ids: list[int],
    scale: float,
) -> None:
    folder = tmp_path_factory.mktemp("table")
    table = random_table(50, width, len(ids), scale)
    write_table(folder, "tokens", table, precision)
    read = Table(folder, "tokens")
    found = read[ids]
    assert len(read) == 50
    assert (found.dtype, found.shape) == (np.float32, (len(ids), width))
    blocks = (len(ids), width // BLOCK, BLOCK)
    largest = np.abs(table[ids]).reshape(blocks).max(axis=2, keepdims=True)
    error = np.abs(found - table[ids]).reshape(blocks)
    assert (error <= STEPS[precision] * largest).all()
    if precision == "int4" and ids:
        assert np.square(found - table[ids]).sum() < 0.02 * np.square(table[ids]).sum()


def test_a_full_disk_is_told_before_it_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To write into a hole of a file that is mapped would end the process."""

    def full(descriptor: int, at: int, nbytes: int) -> None:
        assert (at, nbytes > 50 * BLOCK * 2) == (0, True)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        write_table(tmp_path, "tokens", random_table(50, BLOCK), "fp16")


def test_fewer_bits_take_less(tmp_path: Path) -> None:
    sizes = []
    for precision in ("fp32", "fp16", "int8", "int4"):
        (tmp_path / precision).mkdir()
        write_table(tmp_path / precision, "tokens", random_table(500, 2 * BLOCK), precision)
        sizes.append(sum(file.stat().st_size for file in (tmp_path / precision).iterdir()))
    assert sizes[0] / np.array(sizes) == pytest.approx([1, 2, 3.94, 7.76], rel=0.02)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_width_that_blocks_do_not_divide_stays_in_half_precision(
    precision: str, tmp_path: Path
) -> None:
    table = random_table(20, BLOCK + 64)
    write_table(tmp_path, "tokens", table, precision)
    assert np.array_equal(Table(tmp_path, "tokens")[[3, 19]], table[[3, 19]].astype(np.float16))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_rows_are_the_same_however_many_are_written_together(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = random_table(40, BLOCK)
    found = []
    for together in (7, 4096):
        monkeypatch.setattr(tables, "AT_ONCE", together)
        write_table(tmp_path, "tokens", table, precision)
        found.append(Table(tmp_path, "tokens")[range(40)])
    assert np.array_equal(*found)


@pytest.mark.parametrize("precision", ["fp16", "int4"])
def test_only_rows_that_are_asked_for_are_read(precision: str, tmp_path: Path) -> None:
    """Of a table of a terabyte, most of which is a hole that takes no disk."""
    table = random_table(3, BLOCK)
    write_table(tmp_path, "tokens", table, precision)
    before = Table(tmp_path, "tokens")[[0, 2]]
    for name in ("tokens.npy", "tokens.scales.npy"):
        if not (tmp_path / name).exists():
            continue
        small = np.load(tmp_path / name)
        (tmp_path / name).unlink()
        shape = (2**40 // small[0].nbytes, small.shape[1])
        large = np.lib.format.open_memmap(tmp_path / name, "w+", small.dtype, shape)
        large[:3] = small
        del large
    assert np.array_equal(Table(tmp_path, "tokens")[[0, 2]], before)


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"not an array at all", b"\x93NUMPY\x01\x00v\x00{'descr': "]
)
def test_a_damaged_file_is_told_by_name(content: bytes, tmp_path: Path) -> None:
    write_table(tmp_path, "tokens", random_table(3, BLOCK), "int8")
    arrays = tmp_path / "projector.npz"
    np.savez(arrays, w1=np.ones(100))
    assert set(read_arrays(arrays)) == {"w1"}
    for name in ("tokens.npy", "tokens.scales.npy"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(EngineError, match=rf"{name} cannot be read \(.*engines clean"):
            Table(tmp_path, "tokens")
        (tmp_path / name).write_bytes(whole)
    arrays.write_bytes(content)
    with pytest.raises(EngineError, match=r"projector\.npz cannot be read"):
        read_arrays(arrays)


def test_changed_bytes_of_a_compressed_file_are_told(tmp_path: Path) -> None:
    file = tmp_path / "projector.npz"
    np.savez(file, w1=np.ones(100))
    content = bytearray(file.read_bytes())
    content[300] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(EngineError, match=r"projector\.npz cannot be read \(Bad CRC"):
        read_arrays(file)
