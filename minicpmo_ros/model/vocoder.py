"""The vocoder of a checkpoint whole: its assets, how large its networks are, and what marks them.

No torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model import conversion
from minicpmo_ros.model.fingerprint import Progress, digests
from minicpmo_ros.model.flow.config import (
    GUIDANCE,
    ConformerConfig,
    EstimatorConfig,
    FlowConfig,
)
from minicpmo_ros.model.flow.settings import FlowSettings
from minicpmo_ros.model.hift.config import HiftConfig

ASSETS = Path("assets") / "token2wav"
"""In a checkpoint's directory."""
FLOW_FILE, FLOW_SETTINGS = "flow.pt", "flow.yaml"
# In asset sets since minicpmo-utils 1.0.7, whose hift.pt is another network, the first of these is
# what hift.pt was before.
HIFT_FILES = ("hift_original.pt", "hift.pt")
# In front of the names of weights, so that both networks' are told apart.
FLOW, HIFT = "flow.", "hift."


@dataclass(frozen=True)
class VocoderConfig:
    """shapes: of all weights, by their names in flow.pt behind FLOW and in hift.pt behind HIFT, a
    norm's folded."""

    flow: FlowConfig
    hift: HiftConfig
    shapes: Mapping[str, tuple[int, ...]] = field(hash=False, repr=False)

    def save(self, file: Path) -> None:
        """As JSON, whole or not at all by the caller's means."""
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> VocoderConfig:
        """What `save` wrote.

        Raises:
            OSError, ValueError, KeyError, TypeError: it is anything else.
        """
        found = json.loads(file.read_text(encoding="utf-8"))
        flow = dict(found["flow"])
        flow["conformer"] = ConformerConfig(**flow["conformer"])
        flow["estimator"] = EstimatorConfig(**flow["estimator"])
        hift: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in found["hift"].items()}
        shapes = {name: tuple(shape) for name, shape in found["shapes"].items()}
        return cls(FlowConfig(**flow), HiftConfig(**hift), shapes)

    @classmethod
    def of_conversions(cls, assets: Path) -> VocoderConfig | None:
        """Of weights that were converted before (`conversion`), None if they were not all.

        Raises:
            CheckpointError: they are of another network.
        """
        files = (assets / FLOW_FILE, hift_file(assets))
        places = [conversion.find(file) for file in files]
        if places[0] is None or places[1] is None:
            return None
        flow, hift = (conversion.shapes(place) for place in places if place)
        settings = assets / FLOW_SETTINGS
        guidance = FlowSettings(settings).guidance if settings.exists() else GUIDANCE
        named = {FLOW + name: shape for name, shape in flow.items()}
        named |= {HIFT + name: shape for name, shape in hift.items()}
        return cls(FlowConfig.from_shapes(flow, guidance), HiftConfig.from_shapes(hift), named)


def assets_of(directory: Path) -> Path | None:
    """The folder of a checkpoint's vocoder; None where it has none, neither flow nor HiFT."""
    assets = directory / ASSETS
    flow = (FLOW_FILE, Path(FLOW_FILE).with_suffix(".safetensors"))
    there = any((assets / name).is_file() for name in (*flow, *HIFT_FILES))
    return assets if there else None


def hift_file(assets: Path) -> Path:
    """The weights of this vocoder in a folder of assets.

    Raises:
        CheckpointError: there are none.
    """
    for name in HIFT_FILES:
        if (assets / name).is_file():
            return assets / name
    raise CheckpointError(f"{assets} has no vocoder, {HIFT_FILES[-1]}")


def vocoder_fingerprint(
    assets: Path, memory: Path | None, progress: Progress = lambda done, total: None
) -> str:
    """SHA-256 over the bytes of the files that a vocoder is built of; see `model.fingerprint`.

    Raises:
        CheckpointError: one is missing, cannot be read, or changed while it was read.
    """
    assets = assets.resolve()
    flow, settings = assets / FLOW_FILE, assets / FLOW_SETTINGS
    files = [hift_file(assets).resolve()]
    marks = []
    if flow.exists():
        files.append(flow.resolve())
    elif of := conversion.about(flow.with_suffix(".safetensors")).get("of_sha256"):
        marks.append(of)
    else:
        raise CheckpointError(f"{flow} is missing; `minicpmo checkpoint fetch` brings it")
    marks = [*digests(files, memory, progress), *marks]
    if settings.exists():
        marks += digests([settings.resolve()], memory)
    return hashlib.sha256(" ".join(marks).encode()).hexdigest()
