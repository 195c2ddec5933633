"""Layers in llama.cpp, to be timed beside ours."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minicpmo_ros.bench import llamacpp
from minicpmo_ros.bench.llamacpp import LlamaCpp, write_gguf
from minicpmo_ros.errors import ConfigError
from minicpmo_ros.model.part_configs import LlmConfig

CONFIG = LlmConfig(
    hidden=256, layers=2, heads=4, kv_heads=2, head_dim=64, ffn=512, vocab=300, rope_theta=1e6,
    norm_eps=1e-6, max_positions=4096,
)  # fmt: skip
PAST, ROWS = 40, 20
NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> Any:
    if (why := llamacpp.missing()) is not None:
        pytest.skip(why)
    # At so few inputs only larger weights make attention matter.
    monkeypatch.setattr(llamacpp, "SCALE", 0.016)
    with LlamaCpp(CONFIG, PAST, ROWS, threads=1) as made:
        yield made


def weights(file: Path) -> dict[str, np.ndarray]:
    import gguf

    tensors = gguf.GGUFReader(file).tensors
    return {
        one.name.removesuffix(".weight"): gguf.quants.dequantize(one.data, one.tensor_type).copy()
        for one in tensors
    }


def test_what_it_computes_is_the_language_model(layers: LlamaCpp, tmp_path: Path) -> None:
    """Behind the past, in torch with the same weights, within the rounding of inputs to eight
    bits; and a call finds nothing of the one before."""
    torch = pytest.importorskip("torch", reason="the network needs the extra model")
    from minicpmo_ros.model.decoder import Decoder

    write_gguf(CONFIG, tmp_path / "layers.gguf")
    found = weights(tmp_path / "layers.gguf")
    head = found.pop("output")
    found.pop("token_embd")
    state = {"norm.weight": found.pop("output_norm")}
    for name, value in found.items():
        _, layer, kind = name.split(".")
        state[f"layers.{layer}.{NAMES[kind]}.weight"] = value
    decoder = Decoder(CONFIG, norm_heads=True)
    decoder.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    embeds = torch.from_numpy(layers.embeds)
    hidden = decoder.extend(embeds, decoder.cache(PAST + ROWS)).numpy()
    expected = (hidden @ head.T)[PAST:]

    for rows in (ROWS, 1, 1, ROWS):
        logits = layers.prefill(rows)
        assert np.abs(logits - expected[:rows]).max() < 0.05 * np.abs(expected).max()
    assert np.array_equal(layers.decode(), layers.decode())


def test_all_that_is_read_for_a_token_has_four_bits(layers: LlamaCpp, tmp_path: Path) -> None:
    write_gguf(CONFIG, tmp_path / "layers.gguf")
    matrices = CONFIG.layers * (3 * 256 * 512 + 2 * 256 * 256 + 2 * 256 * 128)
    least = matrices * llamacpp.BLOCK_BYTES // llamacpp.BLOCK
    assert least < (tmp_path / "layers.gguf").stat().st_size < 1.1 * least


def test_without_it_one_is_told_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name.startswith("llama_cpp"):
            raise RuntimeError("compiled for something else")
        return plain(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ConfigError, match=r"compiled for something else.*pip install"):
        LlamaCpp(CONFIG)


@pytest.mark.parametrize("field", ["hidden", "ffn", "head_dim"])
def test_sizes_that_its_blocks_do_not_divide_are_refused(field: str, tmp_path: Path) -> None:
    odd = replace(CONFIG, **{field: 260 if field != "head_dim" else 65})
    with pytest.raises(ConfigError, match="not a multiple of 32"):
        write_gguf(odd, tmp_path / "layers.gguf")
