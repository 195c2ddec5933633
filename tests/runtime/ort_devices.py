"""Where stages of onnxruntime are tried: in main memory, and on a card where there is one."""

from __future__ import annotations

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.ort.device import Device


def _missing() -> str:
    """Why there is no card here; empty where there is one."""
    try:
        Device("cuda")
    except EngineError as error:
        return str(error)
    return ""


NO_CARD = _missing()
DEVICES = ["cpu"] if NO_CARD else ["cpu", "cuda"]
