"""The model card: what a nano checkpoint is, what it can do, and what was measured of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from minicpmo_ros.errors import InputError

CARD = "README.md"

_TEXT = """\
# Nano

A checkpoint of MiniCPM-o 4.5's architecture with {parameters:.1f} million parameters, trained from
{start} by `minicpmo nano train` (seed {seed}, {steps} steps, {hours:.1f} hours of episodes).
No weight, text or recording of anybody else is in it.

**Trained on** episodes that code makes: voices of espeak-ng{flite} in rooms,
noise and microphones that code makes, and drawings of eight kinds of things in eight colours before
drawn backgrounds. See docs/nano.md.

**It was taught** to hold a conversation in English about what it sees of that world, in a few dozen
kinds of questions; to count, repeat and remember a word; to tell when something that it was asked
to watch for happens; to listen through pauses, and to be cut off. How well it does, is below.

**It cannot** understand free speech, recognise anything in photographs, or be relied on: its
answers are those of a toy world. It was never trained on a human voice.

**Files**: model.safetensors in half precision; `engines/`, the same in four and eight bits for
onnxruntime (recipe nano); the tokenizer, its own; SHA256SUMS.

## Measured

By `minicpmo nano eval` on voices, wordings, things, backgrounds and noises that training never had;
what the figures mean is in docs/nano.md.

{table}
"""


def write_card(directory: Path, state: dict[str, Any], figures: Path | None) -> Path:
    """Write the card of a checkpoint; figures: the JSON file of `minicpmo nano eval`.

    Raises:
        InputError: that file cannot be read.
    """
    table = "Not measured yet."
    if figures is not None:
        try:
            found = json.loads(figures.read_text(encoding="utf-8"))["figures"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{figures} is no file of `minicpmo nano eval --json`: {error}"
            ) from None
        rows = [f"| `{name}` | {value:.4g} |" for name, value in found.items()]
        table = "\n".join(["| figure | value |", "|---|---|", *rows])
    config = state["config"]
    text = _TEXT.format(
        parameters=sum(one.numel() for one in state["nano"].values()) / 1e6,
        start="the weights of another run" if config.get("start") else "random weights",
        seed=config["seed"],
        steps=state["step"],
        hours=state["units"] / 3600,
        flite=" and flite (rms, kal16)" if config.get("flite") else "",
        table=table,
    )
    path = directory / CARD
    path.write_text(text, encoding="utf-8")
    return path
