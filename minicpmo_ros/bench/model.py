"""`minicpmo bench model`: each stage and each unit of the network, at three sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import Progress
from rich.table import Table

from minicpmo_ros.bench import anchors, stages, units
from minicpmo_ros.bench.figures import Figure, show
from minicpmo_ros.bench.memory import available_bytes, gib, peak_bytes, restart_peak
from minicpmo_ros.bench.noise import random_tokenizer
from minicpmo_ros.bench.random_network import random_network
from minicpmo_ros.duplex.config import DuplexConfig
from minicpmo_ros.errors import ConfigError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.layout import is_unused, shapes
from minicpmo_ros.model.tiny import SIZES, config_json
from minicpmo_ros.runtime.torch_runtime import DTYPES

# The published PyTorch code at full size in bfloat16, on two cores of an EPYC server (ms).
REFERENCE = {
    "vision_ms": 6500.0,
    "audio_ms": 334.0,
    "prefill_ms_per_layer": 81.0,
    "decode_ms_per_layer": 31.0,
    "speech_token_ms": 101.0,
}
MEASURES: dict[str, Callable[[ModelConfig, torch.dtype, torch.device], stages.Times]] = {
    "vision": stages.vision_ms,
    "audio": stages.audio_ms,
    "llm layer": stages.llm_ms,
    "speech": stages.speech_ms,
    "transformers": anchors.ratios,
}
# Our time over that of the same layers in transformers, in the same run.
ANCHORS = (
    "vision_x_transformers",
    "prefill_x_transformers",
    "decode_x_transformers",
    "speech_token_x_transformers",
)
LOOP_GOAL_MS = 5.0
# Beside the weights: caches, activations, what is held twice while it is packed, the process.
SPARE = 6 * 2**30


def bench(
    sizes: list[str],
    count: int = 40,
    precision: str = "bf16",
    device: str = "cpu",
    threads: int = 0,
    json: Path | None = None,
) -> None:
    """Measure, print tables, and with a path write the figures as JSON.

    sizes: of SIZES (`minicpmo checkpoint tiny`). count: units a size. Raises ConfigError for an
    unknown size, precision or device.
    """
    where, dtype = _checked(sizes, precision, device)
    if threads:
        torch.set_num_threads(threads)
    figures: list[Figure] = []
    with Progress(transient=True) as bar:
        steps = len(sizes) * (len(MEASURES) + count)
        task = bar.add_task("measuring", total=steps)
        for size in sizes:
            config = ModelConfig.from_json(config_json(size))
            bar.update(task, description=f"{size}: stages")
            found = _stages(config, dtype, where, lambda: bar.advance(task))
            bar.update(task, description=f"{size}: units")
            # The loop is timed in fp32, the tiny network's own precision.
            own = torch.float32 if size == "tiny" else dtype
            found |= _units(config, own, where, count, lambda: bar.advance(task))
            figures += _figures(size, found)
            bar.console.print(_table(size, found))
    conditions = {
        "precision": precision,
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "units": count,
        "torch": torch.__version__,
    }
    show("minicpmo bench model", figures, json, conditions)


def _checked(sizes: list[str], precision: str, device: str) -> tuple[torch.device, torch.dtype]:
    for size in sizes:
        if size not in SIZES:
            raise ConfigError(f"size '{size}': there are {', '.join(SIZES)}")
    if precision not in DTYPES:
        raise ConfigError(f"precision '{precision}': there are {', '.join(DTYPES)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device '{device}': torch finds no CUDA device")
    return torch.device(device), DTYPES[precision]


def _stages(
    config: ModelConfig, dtype: torch.dtype, where: torch.device, advance: Callable[[], None]
) -> stages.Times:
    found: stages.Times = {}
    for name, measure in MEASURES.items():
        restart_peak()
        found |= measure(config, dtype, where)
        found[f"peak.{name}"] = peak_bytes(where)
        advance()
    return found


def _units(
    config: ModelConfig,
    dtype: torch.dtype,
    where: torch.device,
    count: int,
    advance: Callable[[], None],
) -> stages.Times:
    need = parameters(config) * dtype.itemsize + SPARE
    if need > available_bytes(where):
        for _ in range(count):
            advance()
        return {"needs": need}
    restart_peak()
    network = random_network(config, dtype, where)
    tokenizer = random_tokenizer(config.llm.vocab)
    times = units.unit_ms(network, tokenizer, count, DuplexConfig(forced_listens=0), advance)
    return {
        **{f"unit.{name}": value for name, value in times.items()},
        "peak.unit": peak_bytes(where),
    }


def parameters(config: ModelConfig) -> int:
    """Parameters of a network that something is computed with."""
    return sum(
        torch.Size(shape).numel() for key, shape in shapes(config).items() if not is_unused(key)
    )


def _figures(size: str, found: stages.Times) -> list[Figure]:
    prefix = "model." if size == "full" else f"model.{size}."
    figures = []
    for name, reference in REFERENCE.items():
        # Another machine's time is no goal; the ratios below are.
        note = f"(published code: {reference:g})" if size == "full" else ""
        figures.append(Figure(prefix + name, found[name], "ms", note))
    for name in ANCHORS:
        figures.append(Figure.at_most(prefix + name, found[name], 1.0))
    ratio = found["decode_ms_per_layer"] / found["read_ms_per_layer"]
    figures.append(Figure(f"{prefix}decode_x_memory_read", ratio))
    if "unit.loop" in found:
        if size == "tiny":
            loop = found["unit.loop"]
            figures.append(Figure.at_most("model.loop_ms_per_unit", loop, LOOP_GOAL_MS, "ms"))
        for name in ("listen", "listen_early", "speak", "speak_early", "settle"):
            figures.append(Figure(f"{prefix}unit_{name}_ms", found[f"unit.{name}"], "ms"))
        figures.append(Figure(f"{prefix}python_percent_of_unit", found["unit.loop_percent"], "%"))
        figures.append(Figure(f"{prefix}peak_gib", gib(found["peak.unit"]), "GiB"))
    return figures


def _table(size: str, found: stages.Times) -> Table:
    table = Table(title=f"{size}: stage by stage", box=None, pad_edge=False, title_justify="left")
    for heading in ("stage", "ms", "weights", "peak memory"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")

    def row(text: str, ms: float, weights: str = "", peak: str = "") -> None:
        table.add_row(text, f"{ms:.3g}", weights, peak)

    def mib(name: str) -> str:
        return f"{found[name] / 2**20:,.0f} MiB" if name in found else ""

    row("cut a picture of 640 x 480", found["picture_ms"])
    row("encode it", found["vision_ms"], mib("bytes.vision"), mib("peak.vision"))
    row("encode a second of sound", found["audio_ms"], mib("bytes.audio"), mib("peak.audio"))
    layer = mib("bytes.llm_layer")
    row("LLM layer, read 79", found["prefill_ms_per_layer"], layer, mib("peak.llm layer"))
    row("LLM layer, read 1", found["decode_ms_per_layer"])
    row("the layer's bytes, read once", found["read_ms_per_layer"])
    row("a code of speech", found["speech_token_ms"], mib("bytes.speech"), mib("peak.speech"))
    if "unit.loop" in found:
        row("unit that listens", found["unit.listen"], "", mib("peak.unit"))
        row("the same, its picture read before", found["unit.listen_early"])
        row("unit that speaks seven words", found["unit.speak"])
        row("the same, its picture read before", found["unit.speak_early"])
        row("closing a unit", found["unit.settle"])
        row(f"of a unit, Python ({found['unit.loop_percent']:.1f} %)", found["unit.loop"])
    else:
        table.add_row(f"whole units need {gib(found['needs']):.0f} GiB of memory", "-", "", "")
    return table
