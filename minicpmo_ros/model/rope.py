"""Rotary position embedding (Su et al. 2021), in the half-split form of GPT-NeoX.

Channel i of a head is paired with channel i + D/2, and the pair at position p is turned by
p * theta^(-2i/D). Angles are float32 whatever the network computes in: bfloat16 cannot tell
position 8191 from 8192.
"""

from __future__ import annotations

import torch
from torch import Tensor


def angles(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """How far each pair of channels is turned, in radians.

    Args:
        positions: [T], of any dtype.
        head_dim: D, even.
        theta: base of the wavelengths.

    Returns:
        [T, D/2] float32.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device)
    frequencies = 1.0 / theta ** (exponents / head_dim)
    return positions.to(torch.float32).unsqueeze(-1) * frequencies


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys [..., T, D] by angles whose cosine and sine are [T, D/2] float32.

    Computed in float32, returned in the dtype of `x`.
    """
    half = x.shape[-1] // 2  # slices, not chunks: in a graph those become sequences
    x32 = x.to(torch.float32)
    first, second = x32[..., :half], x32[..., half:]
    turned = (
        torch.addcmul(first * cos, second, sin, value=-1),
        torch.addcmul(second * cos, first, sin),
    )
    return torch.cat(turned, dim=-1).to(x.dtype)


def rotate_keys(keys: Tensor, old: Tensor, new: Tensor, theta: float) -> Tensor:
    """Turn keys [..., T, D], rotated for the positions `old` [T], on to the positions `new` [T].

    Rotations add up, so this is one turn by the difference of the two angles. Its cosine and sine
    come from those of the two: subtracting the angles themselves would cost 2e-4 radians at
    position 8192, and multiplying the distance by the frequency as much.
    """
    head_dim = keys.shape[-1]
    before, after = angles(old, head_dim, theta), angles(new, head_dim, theta)
    cos = after.cos() * before.cos() + after.sin() * before.sin()
    sin = after.sin() * before.cos() - after.cos() * before.sin()
    return rotate(keys, cos, sin)
