"""What rounding costs: layer by layer and piece by piece, equal to the whole at once."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.llm import Llm
from minicpmo_ros.runtime.export import error_report as module
from minicpmo_ros.runtime.export.calibration import quantised
from minicpmo_ros.runtime.export.error_report import (
    Rounding,
    error_report,
    error_table,
    layer_table,
)
from minicpmo_ros.runtime.export.layerwise import CalibrationSequence
from minicpmo_ros.runtime.export.logit_error import Divergence
from tests.runtime.outliers import conversations, reader, write_outliers

LISTEN, SPEAK = 333, 4  # far from each other: in different pieces of the head


@pytest.fixture(scope="module")
def outliers(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(write_outliers(tmp_path_factory.mktemp("outliers") / "network", seed=1))


def logits(checkpoint: Checkpoint, sequences: list[CalibrationSequence], bits: int) -> torch.Tensor:
    """Of the whole network at once, its matrices rounded; 0 bits: as they are."""
    llm = checkpoint.build(lambda: Llm(checkpoint.config.llm), "llm.")
    if bits:
        read = quantised(reader(checkpoint), bits=bits)
        state = {name: torch.from_numpy(read(f"llm.{name}")) for name in llm.state_dict()}
        llm.load_state_dict(state)
    found = []
    for one in sequences:
        hidden = llm.extend(torch.from_numpy(one.embeds), llm.cache(len(one.embeds)))
        found.append(llm.head(hidden))
    return torch.cat(found).detach()


def test_costs_are_those_of_the_whole_network(
    outliers: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEAD_ROWS", 300)  # which does not divide the vocabulary
    sequences = conversations(outliers, 1)
    report = error_report(
        outliers,
        sequences,
        [Rounding("four"), Rounding("eight", bits=8, head_bits=8)],
        listen=LISTEN,
        speak=SPEAK,
    )
    plain = logits(outliers, sequences, 0)
    assert report.tokens == 220 and report.decisions == 22
    at = [*range(9, 120, 10), *range(129, 220, 10)]
    for error, bits in zip(report.errors, (4, 8), strict=True):
        rounded = logits(outliers, sequences, bits)
        kl = torch.nn.functional.kl_div(
            rounded.log_softmax(1), plain.log_softmax(1), log_target=True, reduction="none"
        ).sum(1)
        assert error.kl_mean == pytest.approx(float(kl.mean()), rel=0.02)
        assert error.kl_p99 == pytest.approx(float(kl.quantile(0.99)), rel=0.05)
        same = (plain.argmax(1) == rounded.argmax(1)).double().mean()
        assert error.same_token == pytest.approx(float(same), abs=0.01)
        margins = [(one[at, LISTEN] - one[at, SPEAK]) for one in (plain, rounded)]
        agree = ((margins[0] > 0) == (margins[1] > 0)).double().mean()
        assert error.same_decision == pytest.approx(float(agree))
        change = (margins[0].sigmoid() - margins[1].sigmoid()).abs().mean()
        assert error.listen_change == pytest.approx(float(change), rel=0.02)


def test_errors_of_layers_add_up(outliers: Checkpoint) -> None:
    four, eight = error_report(
        outliers,
        conversations(outliers, 2),
        [Rounding("four", head_bits=0), Rounding("eight", bits=8, head_bits=0)],
        listen=LISTEN,
        speak=SPEAK,
    ).errors
    assert len(four.own) == len(four.so_far) == outliers.config.llm.layers
    assert four.own[0] == four.so_far[0] and four.own[-1] < four.so_far[-1]
    assert all(a < 0.15 * b for a, b in zip(eight.own, four.own, strict=True))
    assert eight.kl_mean < 0.05 * four.kl_mean


def test_a_head_that_stays_plain_costs_nothing(outliers: Checkpoint) -> None:
    plain, rounded = error_report(
        outliers,
        conversations(outliers, 2),
        [Rounding("plain head", bits=8, head_bits=0), Rounding("rounded", bits=8, head_bits=4)],
        listen=LISTEN,
        speak=SPEAK,
    ).errors
    assert plain.kl_mean < 0.2 * rounded.kl_mean


def test_without_decisions_there_is_no_agreement(outliers: Checkpoint) -> None:
    sequence = CalibrationSequence(conversations(outliers, 3)[0].embeds[:5])
    report = error_report(outliers, [sequence], [Rounding("four")], listen=LISTEN, speak=SPEAK)
    assert report.decisions == 0
    assert report.errors[0].same_decision is None and report.errors[0].listen_change is None
    assert "four" in printed(report)


def printed(report: module.ErrorReport) -> str:
    out = io.StringIO()
    console = Console(width=200, file=out)
    console.print(error_table(report))
    console.print(layer_table(report))
    return out.getvalue()


def test_the_tables_have_all_layers_and_mark_the_worst() -> None:
    layers = 36
    own = tuple(0.01 + 0.0001 * (n == 20) for n in range(layers))
    so_far = tuple(0.01 * n for n in range(1, layers + 1))
    error = module.RoundingError("four", own, so_far, 0.5, 2.0, 0.9, 0.95, 0.01)
    better = replace(error, name="scaled", own=tuple(one / 2 for one in own))
    text = printed(module.ErrorReport(100, 7, (error, better)))
    for wanted in ("0.5000", "2.0000", "36.0%", "95.0%", "90.0%", "± 0.010", "7 decisions"):
        assert wanted in text
    lines = [re.findall(r"[^│┃ ]+", line) for line in text.splitlines() if "│" in line]
    found = {words[0]: words[1:] for words in lines if words[0].isdigit()}
    assert list(found) == [str(n) for n in range(layers)]
    assert found["3"] == ["1.00%", "4.00%", "0.50%", "4.00%"]
    assert [n for n, words in found.items() if "<" in words] == ["20"]


def test_matrices_that_blocks_do_not_divide_have_half_precision() -> None:
    random = np.random.default_rng(0)
    odd = random.standard_normal((3, 160)).astype(np.float32)
    found = quantised(lambda name: odd)("a_proj.weight")
    assert np.array_equal(found, odd.astype(np.float16)) and not np.array_equal(found, odd)
    even = random.standard_normal((3, 256)).astype(np.float32)
    for bits, right in ((0, even), (16, even.astype(np.float16))):
        assert np.array_equal(quantised(lambda name: even, bits=bits)("a_proj.weight"), right)


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_divergence_does_not_depend_on_blocks(seed: int, blocks: list[int]) -> None:
    random = np.random.default_rng(seed)
    plain, rounded = (
        torch.from_numpy(30 * random.standard_normal((6, sum(blocks)))) for _ in range(2)
    )
    found = Divergence(6)
    first = 0
    for block in blocks:
        span = slice(first, first + block)
        found.add(plain[:, span], rounded[:, span], first)
        first += block
    right = torch.nn.functional.kl_div(
        rounded.log_softmax(1), plain.log_softmax(1), log_target=True, reduction="none"
    ).sum(1)
    np.testing.assert_allclose(found.nats(), right.numpy(), rtol=1e-9, atol=1e-9)
    assert found.same_token() == float((plain.argmax(1) == rounded.argmax(1)).double().mean())
