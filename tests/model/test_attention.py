"""The encoders' attention: plain products in bfloat16 are the fused attention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from minicpmo_ros.model import attention
from minicpmo_ros.model.attention import attend


def causal(size: int) -> torch.Tensor:
    return torch.ones(size, size, dtype=torch.bool).tril()


@pytest.mark.parametrize("scores_at_once", [1, 2 * 7 * 7, 2**21])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(None, id="none"),
        pytest.param(causal(7), id="causal"),
        pytest.param(torch.arange(7)[None] < 4, id="keys"),
        pytest.param(torch.stack([causal(7), causal(7).T])[:, None], id="one-an-item"),
    ],
)
def test_attention_is_what_float64_gives(monkeypatch, dtype, mask, scores_at_once):
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", scores_at_once)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 8, generator=generator).to(dtype) for _ in range(3))
    expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), attn_mask=mask)
    found = attend(q, k, v, mask)
    assert found.dtype == dtype
    assert torch.allclose(found.double(), expected, atol=0.02 if dtype == torch.bfloat16 else 1e-6)


def test_there_may_be_more_keys_than_queries():
    q, k = torch.randn(1, 2, 3, 8).bfloat16(), torch.randn(1, 2, 50, 8).bfloat16()
    expected = F.scaled_dot_product_attention(q.double(), k.double(), k.double())
    assert torch.allclose(attend(q, k, k).double(), expected, atol=0.02)
