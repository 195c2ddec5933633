"""`minicpmo bench engines`: what runs from files, against a read of the same bytes, torch and
llama.cpp, all in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from rich.table import Table

from minicpmo_ros.bench import apart, card, llamacpp, speech
from minicpmo_ros.bench.encoders import encoder_ms
from minicpmo_ros.bench.figures import Figure, show
from minicpmo_ros.bench.growth import HOUR, STEPS, growth_ms, last_over_first, session_ms
from minicpmo_ros.bench.layers import head_ms, layer_ms, model_ms
from minicpmo_ros.bench.noise import random_tokenizer
from minicpmo_ros.bench.random_pieces import write_random
from minicpmo_ros.bench.whole import least_tokens
from minicpmo_ros.errors import ConfigError, EngineError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.flow.config import FlowConfig
from minicpmo_ros.model.hift.config import HiftConfig
from minicpmo_ros.model.tiny import SIZES, config_json
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.runtime.api import Network
from minicpmo_ros.runtime.engines import recipe
from minicpmo_ros.runtime.engines.disk import check_disk
from minicpmo_ros.runtime.engines.host_memory import available_bytes
from minicpmo_ros.runtime.engines.pieces import pieces
from minicpmo_ros.runtime.engines.planning import planned, run_memory, vocoder_memory
from minicpmo_ros.runtime.export.vocoder_weights import sized
from minicpmo_ros.runtime.load import assemble

# The published PyTorch code at full size in bfloat16, on two cores of an EPYC server (ms).
REFERENCE = {"vision": 6500.0, "audio": 334.0}
FASTER = 1.5  # than that, the encoders are to be
FLOOR = 1.25  # times a read of the same bytes, a token may take
MEMORY_GB = 8.0
STEADY = 1.1  # a session's last units over its first
RECIPE = "cpu"
# At full size a unit takes seconds: how its time grows is looked at in smaller networks.
GROWTH_SIZE, SESSION_SIZE = "quarter", "tiny"

Found = dict[str, float]


def bench(
    size: str = "full",
    units: int = 16,
    tokens: int = 4096,
    hours: float = 2.0,
    threads: int = 0,
    json: Path | None = None,
) -> None:
    """Measure, print, and with a path write the figures as JSON.

    Args:
        size: of the layers, the encoders and the whole network, of SIZES.
        units: that the whole network lives through: of eight it listens in five and speaks in
            three, and from the ninth on, their pictures are looked at before they close.
        tokens: of context that are in use then.
        hours: of the long session; 0 leaves it out.

    Raises:
        ConfigError: an unknown size, or more units than tokens have room for. EngineError: too
            little memory or disk.
    """
    if size not in SIZES:
        raise ConfigError(f"size '{size}': there are {', '.join(SIZES)}")
    config = ModelConfig.from_json(config_json(size))
    if tokens < (least := least_tokens(config, units)):
        raise ConfigError(f"tokens: {tokens} must be {least} or more for {units} units")
    wanted = recipe.load(RECIPE)
    if threads:
        torch.set_num_threads(threads)
    _check_room(config, wanted, tokens, size)
    growth, session = (GROWTH_SIZE, SESSION_SIZE) if size == "full" else (size, size)
    seconds = int(hours * HOUR)
    total = 3 + len(pieces(config, wanted)) + 3 * units + STEPS + seconds
    with Progress(transient=True) as bar:
        task = bar.add_task("layers", total=total)

        def advance(count: int = 1) -> None:
            bar.advance(task, count)

        layers = layer_ms(config, threads)
        advance()
        bar.update(task, description="encoders")
        encoders = encoder_ms(config, threads)
        advance()
        with tempfile.TemporaryDirectory(prefix="minicpmo_bench_") as folder:
            bar.update(task, description=f"{size}: files")
            files = write_random(
                config, pieces(config, wanted), Path(folder), lambda name: advance()
            )
            bar.update(task, description=f"{size}: head")
            head = next(piece for piece in files if piece.name == "llm.head")
            heads = head_ms(config, head, files[head], threads)
            advance()
            spec = {
                "config": config_json(size),
                "recipe": _plain(RECIPE),
                "folder": folder,
                "units": units,
                "tokens": tokens,
                "threads": threads,
            }
            bar.update(task, description=f"{size}: units")
            whole = apart.measured(spec, advance)
            bar.update(task, description=f"{size}: units, its own voice")
            whole |= _voiced(apart.own_voice(spec, *_vocoder(size), speech.VOICE_TOKENS, advance))
        bar.update(task, description="growth")
        grown = _lived(growth, threads, lambda one, words: growth_ms(one, words, advance))
        bar.update(task, description=f"{hours:g} hours")
        times: list[float] = []
        if seconds:
            times = _lived(
                session, threads, lambda one, words: session_ms(one, words, seconds, advance)
            )
        bar.update(task, description=f"{size}: in torch on the card")
        cards = _card_figures(size, config) if torch.cuda.is_available() else []
        model = model_ms(config, layers, heads)
        if size != "full":
            # A small layer's time is that of the call, and tells nothing of a head's.
            model.pop("llama.cpp", None)
        bar.console.print(_layers_table(layers))
        bar.console.print(_model_table(config.llm.layers, model))
        bar.console.print(_encoders_table(encoders))
        bar.console.print(_growth_table(growth, grown))
    figures = _figures(size, layers, encoders, whole)
    prefix = _prefix(size)
    figures += _model_figures(prefix, model)
    figures += [Figure(f"{prefix}unit_ms.{name}", ms, "ms") for name, ms in grown.items()]
    if times:
        name = f"{prefix}session_{hours:g}h_unit_time_ratio"
        figures.append(Figure.at_most(name, last_over_first(times), STEADY))
    figures += cards
    import onnxruntime

    conditions = {
        "recipe": RECIPE,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "llama.cpp": llamacpp.missing() or "installed",
    }
    show("minicpmo bench engines", figures, json, conditions)


def _check_room(config: ModelConfig, wanted: recipe.Recipe, tokens: int, size: str) -> None:
    """Raise EngineError before files are written that nothing can be measured with."""
    voice = sized(*_vocoder(size))
    disk = planned(config, wanted, set(), voice).disk
    check_disk(Path(tempfile.gettempdir()), 2 * disk, "the random network")
    need = run_memory(config, wanted, tokens).total + vocoder_memory(voice, wanted)
    free = available_bytes()
    if free and need > free:
        raise EngineError(
            f"the network with a vocoder takes {need / 1e9:.1f} GB of memory,"
            f" {free / 1e9:.1f} GB are free;"
            f" --size takes {', '.join(SIZES)}"
        )


def _vocoder(size: str) -> tuple[FlowConfig, HiftConfig]:
    """Sizes of the one that goes with a network: the published one's, or those of tests."""
    return speech.SIZES["full" if size == "full" else "tiny"]


def _voiced(found: Found) -> Found:
    """Beside the figures of a network without a vocoder."""
    sounds = {name: value for name, value in found.items() if name.startswith("unit.")}
    return sounds | {"rss.voiced": found["rss.peak"]}


def _plain(name: str) -> dict[str, Any]:
    """A recipe as its file has it."""
    import yaml

    from minicpmo_ros.share import share_directory

    content: dict[str, Any] = yaml.safe_load(
        (share_directory() / "engines" / f"{name}.yaml").read_text()
    )
    return content


def _lived(size: str, threads: int, live: Callable[[Network, Tokenizer], Any]) -> Any:
    """What comes of a network of some size, from files."""
    config = ModelConfig.from_json(config_json(size))
    wanted = recipe.load(RECIPE)
    with tempfile.TemporaryDirectory(prefix="minicpmo_bench_") as folder:
        files = write_random(config, pieces(config, wanted), Path(folder))
        network = assemble(config, wanted, files, threads)
        return live(network, random_tokenizer(config.llm.vocab))


def _prefix(size: str) -> str:
    """Of names of figures: those without a size are of the full one."""
    return "engines." if size == "full" else f"engines.{size}."


def _figures(size: str, layers: Found, encoders: Found, whole: Found) -> list[Figure]:
    name = _prefix(size)

    def at_most(name: str, value: float, limit: float, unit: str = "") -> Figure:
        """Goals are those of the full size."""
        if size != "full":
            return Figure(name, value, unit)
        return Figure.at_most(name, value, limit, unit)

    ours, read = layers["decode.ours"], layers["decode.read"]
    figures = [at_most(f"{name}decode_over_floor", ours / read, FLOOR)]
    for step in ("decode", "prefill"):
        mine = layers[f"{step}.ours"]
        if f"{step}.llama.cpp" in layers:
            ratio = mine / layers[f"{step}.llama.cpp"]
            figures.append(at_most(f"{name}{step}_over_llamacpp", ratio, 1.0))
        ratio = mine / layers[f"{step}.torch bf16"]
        figures.append(at_most(f"{name}{step}_over_torch_bf16", ratio, 1.0))
        figures.append(Figure(f"{name}{step}_ms_per_layer", mine, "ms"))
    for stage, reference in REFERENCE.items():
        mine = encoders[f"{stage}.ours"]
        limit = round(reference / FASTER, 1)
        figures.append(at_most(f"{name}{stage}_ms_{size}", mine, limit, "ms"))
        for other in ("torch bf16", "torch fp32"):
            ratio = mine / encoders[f"{stage}.{other}"]
            figures.append(Figure(f"{name}{stage}_over_{other.replace(' ', '_')}", ratio))
    peak = whole["rss.peak"] / 1e9
    figures.append(at_most(f"{name}rss_gb_{size}_int4", peak, MEMORY_GB, "GB"))
    figures.append(Figure(f"{name}rss_gb_loaded", whole["rss.loaded"] / 1e9, "GB"))
    figures.append(Figure(f"{name}loading_s", whole["loading_s"], "s"))
    if "rss.voiced" in whole:
        figures.append(Figure(f"{name}rss_gb_with_vocoder", whole["rss.voiced"] / 1e9, "GB"))
    kinds = ("listen", "speak", "first_sound", "first_own_sound")
    for unit in (*kinds, *(f"{kind}_early" for kind in kinds), "settle"):
        if f"unit.{unit}" in whole:
            figures.append(Figure(f"{name}unit_{unit}_ms", whole[f"unit.{unit}"], "ms"))
    return figures


def _model_figures(prefix: str, model: dict[str, Found]) -> list[Figure]:
    """Of a token of the whole language model. Ours has no suffix."""
    figures = []
    for way, found in model.items():
        suffix = {"ours": "", "llama.cpp": ".llamacpp"}.get(way, f".{way.replace(' ', '_')}")
        figures.append(Figure(f"{prefix}model_token_ms{suffix}", found["token"], "ms"))
        figures.append(Figure(f"{prefix}model_tokens_per_s{suffix}", found["rate"], "1/s"))
    return [*figures, Figure(f"{prefix}head_ms", model["ours"]["head"], "ms")]


def _card_figures(size: str, config: ModelConfig) -> list[Figure]:
    """Of the network in torch on the first card."""
    figures = []
    for precision in ("bf16", "int4"):
        found = card.measure(config, torch.device("cuda"), precision)
        figures += card.figures(found, f"{_prefix(size)}cuda.{precision}", size == "full")
    return figures


def _layers_table(found: Found) -> Table:
    table = Table(title="a layer, behind 512 tokens (ms)", title_justify="left", box=None)
    ways = list(dict.fromkeys(name.split(".", 1)[1] for name in found))
    for heading in ("", *ways):
        table.add_column(heading, justify="right")
    for step, text in (("decode", "read 1"), ("prefill", "read 74")):
        cells = (found.get(f"{step}.{way}") for way in ways)
        table.add_row(text, *("" if ms is None else f"{ms:.2f}" for ms in cells))
    return table


def _model_table(layers: int, model: dict[str, Found]) -> Table:
    title = (
        "a token of the whole model, reckoned from a layer and the head; llama.cpp's head by its"
    )
    table = Table(title=f"{title} bytes", title_justify="left", box=None)
    for heading in ("", *model):
        table.add_column(heading, justify="right")
    rows = {"layers": f"{layers} layers, ms", "head": "head, ms", "token": "a token, ms"}
    for name, text in (rows | {"rate": "tokens a second"}).items():
        table.add_row(text, *(f"{found[name]:.4g}" for found in model.values()))
    return table


def _encoders_table(found: Found) -> Table:
    table = Table(title="encoders (ms)", title_justify="left", box=None)
    for heading in ("", "ours, int8", "torch fp32", "torch bf16", "published"):
        table.add_column(heading, justify="right")
    for stage, text in (("vision", "a picture of 640 x 480"), ("audio", "a second of sound")):
        ways = ("ours", "torch fp32", "torch bf16")
        times = [*(found[f"{stage}.{way}"] for way in ways), REFERENCE[stage]]
        table.add_row(text, *(f"{ms:.4g}" for ms in times))
    return table


def _growth_table(size: str, found: Found) -> Table:
    table = Table(title=f"{size}: a unit that listens (ms)", title_justify="left", box=None)
    table.add_column("", justify="left")
    table.add_column("ms", justify="right")
    for name, ms in found.items():
        kind, count = name.split(".")
        text = {"pictures": "pictures", "slices": "slices", "context": "tokens of context"}[kind]
        table.add_row(f"{count} {text}", f"{ms:.1f}")
    return table
