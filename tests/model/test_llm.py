"""The language model: the reference's numbers, and prefill, decode and caches that agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from minicpmo_ros.errors import KvFullError
from minicpmo_ros.model import decoder
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.llm import Llm
from minicpmo_ros.model.packed import PackedLinear, can_pack, pack
from minicpmo_ros.model.rope import angles, rotate
from tests.model.decoders import DATA, random, reference_llm, relative_error, small_llm


def read(llm: Llm, embeds: Tensor, capacity: int = 64) -> Tensor:
    return llm.extend(embeds, llm.cache(capacity))


def test_greedy_decoding_equals_the_reference():
    llm, reference = reference_llm(), np.load(DATA / "llm.npz")
    cache = llm.cache(len(reference["prompt_ids"]) + len(reference["greedy_ids"]))
    fed, hidden, ids = torch.from_numpy(reference["prompt_ids"]), [], []
    for _ in range(len(reference["greedy_ids"])):
        hidden.append(llm.extend(llm.embed(fed), cache)[-1:])
        fed = llm.head(hidden[-1]).argmax(-1)
        ids.append(int(fed))
    hidden.append(llm.extend(llm.embed(fed), cache))
    logits = llm.head(torch.cat(hidden))

    assert ids == reference["greedy_ids"].tolist()
    assert relative_error(torch.cat(hidden), reference["hidden"]) < 1e-5
    assert relative_error(logits[:, ::997], reference["every_997th"]) < 1e-5
    assert relative_error(logits.logsumexp(-1), reference["logsumexp"]) < 1e-5
    top = torch.from_numpy(reference["top_ids"]).long()
    assert relative_error(logits.gather(1, top), reference["top_values"]) < 1e-5


def test_a_checkpoint_fills_it(tiny_checkpoint: Path):
    checkpoint = Checkpoint(tiny_checkpoint)
    llm = checkpoint.build(lambda: Llm(checkpoint.config.llm), "llm.", torch.bfloat16)
    hidden = read(llm, llm.embed(torch.arange(12)))
    assert hidden.dtype == torch.bfloat16
    assert llm.head(hidden).shape == (12, checkpoint.config.llm.vocab)
    assert llm.head(hidden).isfinite().all()


def attention_by_the_book(layer: nn.Module, x: Tensor) -> Tensor:
    """Each query head on its own, keys of a group repeated, no cache, in float64."""
    attention = layer.self_attn
    tokens, size = x.shape[0], attention.head_dim
    angle = angles(torch.arange(tokens), size, 1e6)

    def heads(projection: nn.Linear, norm: Tensor | None) -> Tensor:
        y = (x @ projection.weight.double().T).view(tokens, -1, size).transpose(0, 1)
        if norm is None:
            return y
        y = y / (y.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * norm.double()
        return rotate(y.float(), angle.cos(), angle.sin()).double()

    q = heads(attention.q_proj, attention.q_norm.weight)
    k = heads(attention.k_proj, attention.k_norm.weight)
    v = heads(attention.v_proj, None)
    out = []
    for head in range(len(q)):
        group = head // (len(q) // len(k))
        scores = (q[head] @ k[group].T) / size**0.5
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
        out.append(scores.softmax(-1) @ v[group])
    return torch.cat(out, -1) @ attention.o_proj.weight.double().T


@pytest.mark.parametrize("heads, kv_heads", [(1, 1), (4, 4), (6, 2), (8, 1)])
def test_grouped_attention_by_the_book(heads, kv_heads):
    llm = small_llm(heads=heads, kv_heads=kv_heads, layers=1)
    layer, x = llm.model.layers[0], random(9, 64)
    cache = llm.cache(9)
    positions = torch.arange(9)
    angle = angles(positions, 16, 1e6)
    bias = torch.full((9, 9), -torch.inf).triu(1).repeat(heads // kv_heads, 1)
    found = layer.self_attn(x, positions, angle.cos(), angle.sin(), bias, cache.k[0], cache.v[0])
    assert relative_error(found, attention_by_the_book(layer, x.double())) < 1e-5


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from([(1, 1), (6, 2)]))
def test_any_way_of_splitting_a_text_gives_the_same_states(lengths, heads):
    llm = small_llm(heads=heads[0], kv_heads=heads[1])
    embeds = random(sum(lengths), 64)
    cache = llm.cache(64)
    parts = torch.cat([llm.extend(part, cache) for part in embeds.split(lengths)])
    assert relative_error(parts, read(llm, embeds)) < 1e-5
    assert cache.length == sum(lengths)


def test_long_prompts_go_through_in_blocks(monkeypatch):
    llm, embeds = small_llm(), random(23, 64)
    at_once = read(llm, embeds)
    monkeypatch.setattr(decoder, "PREFILL_BLOCK", 5)
    assert relative_error(read(llm, embeds), at_once) < 1e-5


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 4e-2), (torch.float16, 5e-3)])
def test_half_precision_is_close_to_single(dtype, tolerance):
    embeds = random(40, 64, dtype=dtype)
    half, single = small_llm(dtype=dtype), small_llm()
    found = read(half, embeds)
    assert found.dtype == dtype
    assert half.head(found).dtype == torch.float32
    assert relative_error(found, read(single, embeds.float())) < tolerance
    assert relative_error(half.head(found), single.head(read(single, embeds.float()))) < tolerance


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 4e-2)])
def test_a_gpu_gives_what_the_cpu_gives(dtype, tolerance):
    llm, embeds = small_llm(), random(20, 64)
    expected = read(llm, embeds)
    gpu = small_llm(dtype=dtype).to("cuda")
    cache = gpu.cache(64)
    parts = [gpu.extend(part, cache) for part in embeds.to("cuda", dtype).split([13, 1, 6])]
    cache.remove([(3, 7)])
    assert relative_error(torch.cat(parts).cpu(), expected) < tolerance
    assert cache.k.device.type == "cuda"


@pytest.mark.parametrize("tokens", [3, 9])
def test_a_full_cache_is_an_error_before_anything_is_written(tokens):
    llm = small_llm()
    cache = llm.cache(8)
    llm.extend(random(6, 64), cache)
    before = cache.k.clone(), cache.v.clone()
    with pytest.raises(KvFullError, match=rf"8 rows, 6 in use, and {tokens} more do not fit"):
        llm.extend(random(tokens, 64), cache)
    assert cache.length == 6
    assert torch.equal(cache.k, before[0])
    assert torch.equal(cache.v, before[1])
    llm.extend(random(2, 64), cache)
    assert cache.room == 0


class Allocated(TorchDispatchMode):
    """Counts the bytes of new storage that operations return."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            is_new = isinstance(tensor, Tensor) and not func.is_view
            if is_new and tensor.untyped_storage().data_ptr() not in self.known:
                self.nbytes += tensor.nbytes
        return out


def test_no_token_copies_the_cache():
    llm, embeds = small_llm(), random(12, 64)
    allocated, states = {}, {}
    for capacity in (12, 40_000):
        cache = llm.cache(capacity)
        buffers = cache.k.data_ptr(), cache.v.data_ptr()
        llm.extend(embeds[:10], cache)
        with Allocated([cache.k, cache.v]) as counter:
            states[capacity] = llm.extend(embeds[10:11], cache)
        allocated[capacity] = counter.nbytes
        assert (cache.k.data_ptr(), cache.v.data_ptr()) == buffers
    assert torch.equal(states[12], states[40_000])
    assert allocated[12] == allocated[40_000]
    # Less than the keys of ten tokens in all layers: nothing is copied at small capacity either.
    assert 0 < allocated[12] < 64 * 4 * 200


def test_rows_behind_the_text_are_not_looked_at():
    llm, embeds = small_llm(), random(10, 64)
    cache = llm.cache(32)
    cache.k[:, :, 10:] = cache.v[:, :, 10:] = torch.nan
    assert torch.equal(llm.extend(embeds, cache), read(llm, embeds))


def test_packed_layers_compute_the_same():
    embeds = random(7, 64)
    plain, packed = small_llm(), small_llm()
    if not can_pack(packed.lm_head.weight):
        pytest.skip("oneDNN is not in this build of torch")
    assert pack(packed) == 3 * 7 + 1
    assert isinstance(packed.lm_head, PackedLinear)
    found, expected = read(packed, embeds), read(plain, embeds)
    assert relative_error(found, expected) < 1e-5
    assert relative_error(packed.head(found), plain.head(expected)) < 1e-5
    assert pack(packed) == 0


def test_packed_bfloat16_is_close_to_plain():
    packed, embeds = small_llm(dtype=torch.bfloat16), random(7, 64)
    if not can_pack(packed.lm_head.weight):
        pytest.skip("this CPU has no instructions for bfloat16")
    pack(packed)
    assert relative_error(read(packed, embeds.bfloat16()), read(small_llm(), embeds)) < 4e-2


def test_layers_with_a_bias_are_packed_with_it():
    plain = nn.Sequential(nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 4, bias=False))
    x = random(2, 5, 16)
    with torch.inference_mode():
        expected = plain(x)
        if pack(plain) == 0:
            pytest.skip("oneDNN is not in this build of torch")
        assert relative_error(plain(x), expected) < 1e-5
