"""Rotary positions: turned pairs of channels, and keys that are turned on to other positions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.model.rope import angles, rotate, rotate_keys
from tests.model.decoders import random, relative_error

THETA = 1e6
positions = st.integers(0, 40_959)


def rotated(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    angle = angles(at, x.shape[-1], THETA)
    return rotate(x, angle.cos(), angle.sin())


@pytest.mark.parametrize("head_dim", [2, 16, 128])
def test_channels_i_and_i_plus_half_turn_as_one_complex_number(head_dim):
    x, at = random(3, 5, head_dim), torch.tensor([0, 1, 7, 100, 2000])
    first, second = x.double().chunk(2, dim=-1)
    wavelengths = THETA ** (torch.arange(head_dim // 2).double() * 2 / head_dim)
    turned = torch.complex(first, second) * torch.exp(1j * at.unsqueeze(1) / wavelengths)
    assert relative_error(rotated(x, at), torch.cat((turned.real, turned.imag), -1)) < 1e-4
    assert torch.equal(rotated(x, at)[:, 0], x[:, 0])


@settings(deadline=None, max_examples=60)
@given(query=st.integers(0, 2000), key=st.integers(0, 2000), moved=st.integers(0, 2000))
def test_a_score_depends_on_the_distance_only(query, key, moved):
    q, k = random(1, 32, seed=1), random(1, 32, seed=2)

    def score(of: int, to: int) -> float:
        return float(rotated(q, torch.tensor([of])) @ rotated(k, torch.tensor([to])).T)

    assert score(query + moved, key + moved) == pytest.approx(score(query, key), abs=0.02)


@settings(deadline=None, max_examples=60)
@given(old=positions, new=positions, seed=st.integers(0, 99))
def test_keys_turned_on_are_those_rotated_there_from_the_start(old, new, seed):
    keys = random(2, 3, 128, seed=seed)
    here, there = torch.arange(old, old + 3), torch.tensor([new, new + 1, new + 7])
    found = rotate_keys(rotated(keys, here), here, there, THETA)
    assert relative_error(found, rotated(keys, there)) < 1e-6


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 1e-2), (torch.float16, 1e-3)])
def test_half_precision_keys_keep_their_dtype_and_high_positions(dtype, tolerance):
    keys, at = random(2, 4, 64).to(dtype), torch.arange(40_000, 40_004)
    found = rotated(keys, at)
    assert found.dtype == dtype
    assert relative_error(found, rotated(keys.float(), at)) < tolerance
    turned_back = rotate_keys(found, at, torch.arange(4), THETA)
    assert relative_error(turned_back, rotated(keys.float(), torch.arange(4))) < tolerance
