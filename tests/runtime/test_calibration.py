"""Scaling: changes nothing but what rounding costs, and makes that less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.part_configs import LlmConfig
from minicpmo_ros.runtime.export import layerwise
from minicpmo_ros.runtime.export.calibrate import calibrate
from minicpmo_ros.runtime.export.calibration import (
    FED_BY,
    GROUPS,
    HEAD,
    Calibration,
    GroupScale,
    quantised,
    spread,
)
from minicpmo_ros.runtime.export.error_report import Rounding, error_report
from minicpmo_ros.runtime.export.layerwise import CalibrationSequence, load_layer, through
from minicpmo_ros.runtime.export.scale_search import EXPONENTS, Inputs, power, search
from minicpmo_ros.runtime.int4 import quantise
from tests.runtime.outliers import conversations, reader, write_outliers


@pytest.fixture(scope="module")
def outliers(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(write_outliers(tmp_path_factory.mktemp("outliers") / "network"))


@pytest.fixture(scope="module")
def found(outliers: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    return calibrate(
        reader(outliers),
        outliers.config.llm,
        conversations(outliers, 1),
        tmp_path_factory.mktemp("found") / "calibration.npz",
        checkpoint="outliers",
    )


def drawn(config: LlmConfig, seed: int, powers_of_two: bool) -> Calibration:
    """Any factors."""
    random = np.random.default_rng(seed)
    widths = {"attention": config.hidden, "output": config.kv_heads * config.head_dim}
    widths |= {"mlp": config.hidden, "inner": config.ffn}

    def scale(width: int) -> np.ndarray:
        exponents = random.uniform(-4, 4, width)
        return 2.0 ** (exponents.round() if powers_of_two else exponents).astype(np.float32)

    layers = tuple(
        {g: GroupScale(scale(width), np.ones(width, np.float32)) for g, width in widths.items()}
        for _ in range(config.layers)
    )
    return Calibration("drawn", config, layers, np.ones(config.hidden, np.float32))


@settings(max_examples=10)
@given(st.integers(0, 2**31), st.booleans())
def test_without_rounding_nothing_changes(
    outliers: Checkpoint, seed: int, powers_of_two: bool
) -> None:
    config, read = outliers.config.llm, reader(outliers)
    scaled = drawn(config, seed, powers_of_two).scaled(read)
    hidden = torch.from_numpy(conversations(outliers, seed, (40,))[0].embeds)
    for index in range(config.layers):
        right = through(load_layer(read, config, index), config, hidden)
        same = through(load_layer(scaled, config, index), config, hidden)
        if powers_of_two:  # of which no product or quotient is rounded
            assert torch.equal(same, right)
        else:
            torch.testing.assert_close(same, right, rtol=1e-4, atol=1e-3)
        hidden = right


def test_every_matrix_of_a_layer_is_scaled(outliers: Checkpoint) -> None:
    config, read = outliers.config.llm, reader(outliers)
    scaled = drawn(config, 5, powers_of_two=False).scaled(read)
    modules = [*FED_BY.values(), *(name for group in GROUPS.values() for name in group)]
    for name in (f"llm.model.layers.1.{module}.weight" for module in modules):
        assert not np.allclose(scaled(name), read(name)), name
    for name in ("llm.model.norm.weight", HEAD, "llm.model.layers.1.self_attn.q_norm.weight"):
        assert np.array_equal(scaled(name), read(name))


def test_importance_is_that_of_the_scaled_network(outliers: Checkpoint, found: Calibration) -> None:
    config, scaled = outliers.config.llm, found.scaled(reader(outliers))
    layer = load_layer(scaled, config, 0)
    hidden = [torch.from_numpy(one.embeds) for one in conversations(outliers, 1)]
    inputs = Inputs(layer, hidden)
    for one in hidden:
        through(layer, config, one)
    for group, modules in GROUPS.items():
        for module in modules:
            importance = found.importance(f"llm.model.layers.0.{module}.weight")
            assert importance is not None
            np.testing.assert_allclose(importance, inputs.squares(group), rtol=1e-3)
    assert found.importance("llm.model.norm.weight") is None
    assert found.importance("llm.model.layers.99.mlp.up_proj.weight") is None


def test_what_is_noted_are_the_inputs_of_all_tokens(outliers: Checkpoint) -> None:
    config = outliers.config.llm
    layer = load_layer(reader(outliers), config, 0)
    hidden = [torch.from_numpy(one.embeds) for one in conversations(outliers, 2)]
    inputs = Inputs(layer, hidden)
    for one in hidden:
        through(layer, config, one)
    inputs.stop()
    through(layer, config, hidden[0])  # not noted any more
    entering = torch.cat([layer.input_layernorm(one) for one in hidden])
    np.testing.assert_allclose(
        inputs.squares("attention"), entering.square().mean(0).numpy(), rtol=1e-4
    )
    kept, counts = inputs.of("attention")
    torch.testing.assert_close(kept, entering)
    assert counts.unique().tolist() == [1.0]
    loud = torch.cat(hidden).square().mean(1)
    torch.testing.assert_close(inputs.of("inner")[1], 1 / loud)


def test_large_inputs_get_large_factors(outliers: Checkpoint) -> None:
    config = outliers.config.llm
    squares = np.full(config.hidden, 1.0, np.float32)
    squares[7] = 400.0
    scale = power(squares, 0.5, "attention", config)
    assert scale.argmax() == 7 and scale[7] / scale[0] == pytest.approx(np.sqrt(20))
    assert scale.max() * scale.min() == pytest.approx(1)
    assert np.array_equal(power(squares, 0.0, "attention", config), np.ones_like(scale))


def test_heads_that_share_values_share_factors(outliers: Checkpoint) -> None:
    config = outliers.config.llm
    squares = np.arange(1.0, config.heads * config.head_dim + 1, dtype=np.float32)
    scale = power(squares, 0.5, "output", config)
    assert scale.shape == (config.kv_heads * config.head_dim,)
    by_head = spread(scale, "output", config).reshape(config.heads, config.head_dim)
    shared = config.heads // config.kv_heads
    for head in range(config.heads):
        first = head // shared * config.head_dim
        assert np.array_equal(by_head[head], scale[first : first + config.head_dim])


def test_the_search_takes_the_best_of_what_it_tries(outliers: Checkpoint) -> None:
    """By what matrices that are scaled and rounded give, on the tokens that it saw."""
    config, read = outliers.config.llm, reader(outliers)
    layer = load_layer(read, config, 1)
    hidden = torch.from_numpy(conversations(outliers, 3)[0].embeds)
    inputs = Inputs(layer, [hidden])
    through(layer, config, hidden)
    inputs.stop()
    scales = search(layer, inputs, config)

    def outputs(group: str, factor: np.ndarray | None) -> list[np.ndarray]:
        x, counts = inputs.of(group)
        made = []
        for module in GROUPS[group]:
            weights = read(f"llm.model.layers.1.{module}.weight")
            if factor is not None:
                importance = scales[group].squares / factor**2
                weights = quantise(weights * factor, importance).weights() / factor
            made.append(x.numpy() @ weights.T)
        if group == "mlp":
            down = read("llm.model.layers.1.mlp.down_proj.weight")
            gate, up = made
            made = [gate / (1 + np.exp(-gate)) * up * np.linalg.norm(down, axis=0)]
        return [one * counts.sqrt().numpy()[:, None] for one in made]

    best = []
    for group, found in scales.items():
        right = outputs(group, None)
        errors = []
        for exponent in EXPONENTS:
            factor = spread(power(found.squares, exponent, group, config), group, config)
            pairs = zip(outputs(group, factor), right, strict=True)
            errors.append(sum(np.square(a - b).sum() / np.square(b).sum() for a, b in pairs))
        best.append(int(np.argmin(errors)))
        wanted = power(found.squares, EXPONENTS[best[-1]], group, config)
        assert np.array_equal(found.scale, wanted), group
    assert any(best)


def test_what_rounding_costs_falls_on_conversations_never_seen(
    outliers: Checkpoint, found: Calibration
) -> None:
    plain, scaled = error_report(
        outliers,
        conversations(outliers, 77),
        [Rounding("plain", head_bits=0), Rounding("scaled", found, head_bits=0)],
        listen=1,
        speak=2,
    ).errors
    assert scaled.kl_mean < 0.8 * plain.kl_mean
    assert scaled.so_far[-1] < 0.9 * plain.so_far[-1]


class CutOffError(Exception):
    pass


def test_a_calibration_that_was_cut_off_goes_on(
    outliers: Checkpoint, found: Calibration, tmp_path: Path
) -> None:
    file, config, sequences = tmp_path / "c.npz", outliers.config.llm, conversations(outliers, 1)

    def cut_off(done: int, of: int) -> None:
        if done == 2:
            raise CutOffError

    with pytest.raises(CutOffError):
        calibrate(
            reader(outliers), config, sequences, file, checkpoint="outliers", progress=cut_off
        )
    assert not file.exists()
    asked: list[str] = []

    def read(name: str) -> np.ndarray:
        asked.append(name)
        return reader(outliers)(name)

    gone_on = calibrate(read, config, sequences, file, checkpoint="outliers")
    assert not [
        name for name in asked if name.startswith(("llm.model.layers.0", "llm.model.layers.1"))
    ]
    for name, array in found.arrays().items():
        assert np.array_equal(gone_on.arrays()[name], array), name
    assert [one.name for one in tmp_path.iterdir()] == ["c.npz"]
    asked.clear()
    assert calibrate(read, config, sequences, file, checkpoint="outliers").made_of == found.made_of
    assert not asked


def test_of_another_checkpoint_nothing_is_gone_on_with(
    outliers: Checkpoint, tmp_path: Path
) -> None:
    file, config, sequences = (
        tmp_path / "c.npz",
        outliers.config.llm,
        conversations(outliers, 1, (8,)),
    )
    first = calibrate(reader(outliers), config, sequences, file, checkpoint="one")
    done: list[int] = []
    second = calibrate(
        reader(outliers),
        config,
        sequences,
        file,
        checkpoint="another",
        progress=lambda n, of: done.append(n),
    )
    assert done == [0, 1, 2, 3] and second.made_of != first.made_of
    others = conversations(outliers, 2, (8,))
    third = calibrate(reader(outliers), config, others, file, checkpoint="another")
    assert third.made_of != second.made_of


def test_what_is_saved_comes_back(found: Calibration, tmp_path: Path) -> None:
    found.save(tmp_path / "c.npz")
    back = Calibration.load(tmp_path / "c.npz")
    assert back.config == found.config and back.made_of == found.made_of
    for name, array in found.arrays().items():
        assert np.array_equal(back.arrays()[name], array), name


def test_a_file_that_is_no_calibration_is_named(found: Calibration, tmp_path: Path) -> None:
    file = tmp_path / "c.npz"
    found.save(file)
    whole = file.read_bytes()
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for content in (
        b"",
        b"nonsense",
        whole[: len(whole) // 2],
        (tmp_path / "other.npz").read_bytes(),
    ):
        file.write_bytes(content)
        with pytest.raises(EngineError, match=r"c\.npz is no calibration"):
            Calibration.load(file)


def test_a_calibration_of_another_network_is_refused(found: Calibration) -> None:
    found.check_fits(found.config)
    with pytest.raises(EngineError, match="layers=9"):
        found.check_fits(replace(found.config, layers=9))
    with pytest.raises(EngineError, match="2 of 3 layers"):
        replace(found, layers=found.layers[:2]).check_fits(found.config)


@pytest.mark.parametrize(
    ("sequences", "says"),
    [
        ([], "no calibration sequence"),
        (
            [CalibrationSequence(np.zeros((4, 8), np.float32))],
            r"0 is \[4, 8\], not \[tokens, 256\]",
        ),
        ([CalibrationSequence(np.full((4, 256), np.nan, np.float32))], "NaN"),
        ([CalibrationSequence(np.zeros((4, 256), np.float32), (4,))], "row 4 of 4"),
    ],
)
def test_sequences_of_no_use_are_named(
    outliers: Checkpoint, tmp_path: Path, sequences: list[CalibrationSequence], says: str
) -> None:
    with pytest.raises(EngineError, match=says):
        calibrate(
            reader(outliers), outliers.config.llm, sequences, tmp_path / "c.npz", checkpoint="x"
        )


def test_blocks_of_a_long_conversation_see_those_before(
    outliers: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = outliers.config.llm
    layer = load_layer(reader(outliers), config, 0)
    hidden = torch.from_numpy(conversations(outliers, 4, (50,))[0].embeds)
    whole = through(layer, config, hidden)
    monkeypatch.setattr(layerwise, "PREFILL_BLOCK", 16)
    torch.testing.assert_close(through(layer, config, hidden), whole, rtol=1e-4, atol=1e-3)


def test_only_matrices_are_rounded(outliers: Checkpoint) -> None:
    read = reader(outliers)
    rounded = quantised(read)
    for name in ("llm.model.norm.weight", "llm.model.embed_tokens.weight"):
        assert np.array_equal(rounded(name), read(name))
    for name in (HEAD, "llm.model.layers.0.mlp.down_proj.weight"):
        assert np.array_equal(rounded(name), quantise(read(name)).weights())
