"""Which runtime takes which precision, and which keys of a recipe go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minicpmo_ros.errors import ConfigError

if TYPE_CHECKING:
    from minicpmo_ros.runtime.engines.recipe import Recipe

RUNTIMES = ("onnxruntime", "tensorrt_rtx", "tensorrt", "torch")
TENSORRT = ("tensorrt_rtx", "tensorrt")
# auto and bf16 are torch's alone.
PRECISIONS = ("fp32", "fp16", "int8", "int4", "bf16", "auto")
TABLE_PRECISIONS = ("fp32", "fp16", "int8", "int4", "bf16", "auto")
VOCODER_PRECISIONS = ("fp32", "fp16", "int8", "bf16")
# What TensorRT-RTX can build for; it has neither Jetson nor data-centre cards of Hopper.
TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
DEVICE = (r"auto|cpu|cuda(:\d+)?", "auto, cpu, cuda or cuda:N")

_TORCH = ("auto", "fp32", "bf16", "fp16", "int4")
_BLOCKS = "blocks of 128 do not divide all of its matrices"
_EIGHT_BITS = "weights of eight bits are onnxruntime's"
# By key, what each runtime takes. The vision encoder has 4304 and 588 inputs to some matrices:
# onnxruntime's stage can leave those as they are, TensorRT's parser refuses the graph.
_TAKES: dict[str, dict[str, tuple[str, ...]]] = {
    "vision.precision": {"onnxruntime": ("fp32", "fp16", "int8"), "tensorrt": ("fp16",)},
    "audio.precision": {"onnxruntime": ("fp32", "fp16", "int8", "int4"), "tensorrt": ("fp16",)},
    **{
        key: {"onnxruntime": ("fp32", "fp16", "int8", "int4"), "tensorrt": ("fp16", "int4")}
        for key in ("llm.precision", "llm.head", "speech.precision", "speech.head")
    },
    # Numpy looks these up, whatever runs the rest.
    **{
        key: dict.fromkeys(("onnxruntime", "tensorrt"), ("fp32", "fp16", "int8", "int4"))
        for key in ("llm.embeddings", "speech.embeddings")
    },
}
# On a CPU, and on a card.
_VOCODER_TAKES = {
    "onnxruntime": (("fp32", "int8"), ("fp16", "int8")),
    "tensorrt_rtx": ((), ("fp16",)),
    "tensorrt": ((), ("fp16",)),
    "torch": (("fp32", "fp16", "bf16"), ("fp32", "fp16", "bf16")),
}
_WHY = {
    ("vision.precision", "tensorrt", "int4"): _BLOCKS,
    ("vision.precision", "onnxruntime", "int4"): _BLOCKS,
    **{(key, "tensorrt", "int8"): _EIGHT_BITS for key in _TAKES},
}


def check_together(recipe: Recipe) -> None:
    """Hold the keys of a filled recipe against each other; raises ConfigError."""
    on_torch = [name for name, part in recipe.parts.items() if part.runtime == "torch"]
    if on_torch and len(on_torch) < len(recipe.parts):
        raise ConfigError(
            f"{on_torch[0]}.runtime: 'torch' runs the whole network or nothing of it; give all"
            f" parts 'runtime: torch', or this one {', '.join(RUNTIMES[:-1])}"
        )
    for key, runtime, precision in _precisions(recipe):
        if on_torch:
            _check_torch(recipe, key, precision)
        else:
            _check_takes(recipe, key, runtime, precision)
    _check_vocoder(recipe)
    _check_device(recipe)
    _check_no_effect(recipe)
    if recipe.window.kind == "basic" and recipe.window.high > recipe.kv_capacity:
        raise ConfigError(
            f"window.high: {recipe.window.high} is above kv_capacity, {recipe.kv_capacity}; lower"
            " the one or raise the other"
        )


def _precisions(recipe: Recipe) -> list[tuple[str, str, str]]:
    """(key, runtime, precision) of each part, head and table."""
    return [
        (f"{name}.{which}", part.runtime, getattr(part, which))
        for name, part in recipe.parts.items()
        for which in ("precision", "head", "embeddings")
        if hasattr(part, which)
    ]


def _check_torch(recipe: Recipe, key: str, precision: str) -> None:
    if recipe.precision not in _TORCH:
        raise ConfigError(
            f"precision: {recipe.precision!r} is not torch's; must be one of {', '.join(_TORCH)}"
        )
    if precision != recipe.precision:
        raise ConfigError(
            f"{key}: {precision!r} has no effect: torch has one precision, which 'precision' gives"
            f" ({recipe.precision}); leave this key out"
        )


def _check_takes(recipe: Recipe, key: str, runtime: str, precision: str) -> None:
    family = "tensorrt" if runtime in TENSORRT else runtime
    takes = _TAKES[key][family]
    if not precision:
        raise ConfigError(f"{key}: is missing; {runtime} takes {', '.join(takes)}")
    if precision not in takes:
        why = _WHY.get((key, family, precision))
        raise ConfigError(
            f"{key}: {precision!r} is not for {runtime}, which takes {', '.join(takes)} here"
            + (f" ({why})" if why else "")
        )
    computes = not key.endswith("embeddings")
    on_card = runtime == "onnxruntime" and recipe.on_card(runtime)
    if computes and precision == "fp32" and on_card:
        raise ConfigError(
            f"{key}: 'fp32' is not for onnxruntime on a card, which computes in fp16; take fp16,"
            " int8 or int4, or 'device: cpu'"
        )
    if computes and precision == "fp16" and runtime == "onnxruntime" and recipe.device == "cpu":
        raise ConfigError(
            f"{key}: 'fp16' is not for onnxruntime on a CPU, which computes in fp32; take fp32,"
            " int8 or int4, or 'device: cuda'"
        )
    if precision == "int4" and runtime == "tensorrt_rtx" and "sm75" in recipe.targets and computes:
        raise ConfigError(
            f"targets: 'sm75' has no products of four bits, which {key} asks for; leave it out, or"
            " take fp16"
        )


def _check_vocoder(recipe: Recipe) -> None:
    runtime, precision = recipe.vocoder.runtime, recipe.vocoder.precision
    on_card = recipe.on_card(runtime)
    takes = _VOCODER_TAKES[runtime][on_card]
    if precision not in takes:
        where = "a card" if on_card else "a CPU"
        raise ConfigError(
            f"vocoder.precision: {precision!r} is not for {runtime} on {where}, which takes"
            f" {', '.join(takes)} here"
        )


def _check_device(recipe: Recipe) -> None:
    runtimes = {*recipe.runtimes, recipe.vocoder.runtime}
    if recipe.device == "auto" and runtimes != {"torch"}:
        raise ConfigError(
            "device: 'auto' is for torch alone, for what is built belongs to one device; must be"
            " cpu, cuda or cuda:N"
        )
    first = "TensorRT takes the first card; CUDA_VISIBLE_DEVICES says which one that is"
    if recipe.device != "cpu" and runtimes <= set(TENSORRT):
        raise ConfigError(f"device: {recipe.device!r} has no effect: {first}; leave it out")
    if int(recipe.device.partition(":")[2] or 0) and runtimes & set(TENSORRT):
        raise ConfigError(
            f"device: {recipe.device!r} is not where all of it would run: {first}; take 'cuda'"
        )


def _check_no_effect(recipe: Recipe) -> None:
    """Refuse what would be silently without effect."""
    runtimes = recipe.runtimes
    vision = recipe.vision
    if vision.patches and vision.runtime not in TENSORRT:
        raise ConfigError(
            f"vision.patches: {list(vision.patches)} has no effect: {vision.runtime} takes any"
            " number; leave it out"
        )
    if vision.runtime in TENSORRT and not vision.patches:
        raise ConfigError(
            f"vision.patches: is missing; {vision.runtime} needs the most patches of a slice, e.g."
            " [1056, 1536]"
        )
    if recipe.targets and "tensorrt_rtx" not in {*runtimes, recipe.vocoder.runtime}:
        raise ConfigError(
            f"targets: {list(recipe.targets)} has no effect: only tensorrt_rtx builds for other"
            " machines; leave it out"
        )
    if len(set(recipe.targets)) < len(recipe.targets):
        raise ConfigError(f"targets: {list(recipe.targets)} has one twice; name each once")
    for key in ("prefill", "layers_per_file") if recipe.llm.runtime == "torch" else ():
        value = getattr(recipe.llm, key)
        if value != getattr(type(recipe.llm), key):
            raise ConfigError(f"llm.{key}: {value} has no effect with torch; leave it out")
    if recipe.threads and not {*runtimes, recipe.vocoder.runtime} & {"onnxruntime", "torch"}:
        raise ConfigError(f"threads: {recipe.threads} has no effect with TensorRT; leave it out")
    if recipe.scaling == "awq" and ("torch" in runtimes or recipe.llm.precision != "int4"):
        raise ConfigError(
            "scaling: 'awq' has no effect: it is for a language model of four bits that is"
            " exported; must be none, or llm.precision int4 with another runtime than torch"
        )
