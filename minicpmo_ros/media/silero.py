"""Silero's voice activity network: 32 ms of sound in, the probability of speech out.

The ONNX file comes with the package silero-vad, whose code is never imported (it would bring
torch); onnxruntime runs it on one thread.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from minicpmo_ros.errors import DeviceError
from minicpmo_ros.messages import MIC_RATE_HZ

WINDOW = 512
_CONTEXT = 64
_STATE_SHAPE = (2, 1, 128)
INSTALL = "pip install onnxruntime && pip install --no-deps silero-vad"


def find_model() -> Path:
    """The installed ONNX file; raises `DeviceError` saying what to install."""
    try:
        spec = find_spec("silero_vad")
    except ValueError:
        spec = None
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "silero_vad.onnx"
        if path.is_file():
            return path
    raise DeviceError(
        "voice detector silero: the package silero-vad with its silero_vad.onnx is not installed: "
        "run 'pip install --no-deps silero-vad', or use voice_detector energy"
    )


class SileroModel:
    """The network and its recurrent state; sound must come in order, window after window.

    Raises `DeviceError` where onnxruntime or the ONNX file is missing or of another version.
    """

    name = "silero"

    def __init__(self, path: Path | None = None) -> None:
        try:
            import onnxruntime
        except (ImportError, OSError) as error:
            raise DeviceError(
                f"voice detector silero needs onnxruntime, which cannot be imported ({error}): "
                f"run '{INSTALL}', or use voice_detector energy"
            ) from error
        path = path or find_model()
        options = onnxruntime.SessionOptions()
        # A window takes 0.1 ms: more threads, or one that spins between windows, only cost power.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has an exception class for every failure
            raise DeviceError(f"voice detector silero: {path} cannot be run: {error}") from error
        inputs = sorted(i.name for i in self._session.get_inputs())
        if inputs != ["input", "sr", "state"]:
            raise DeviceError(
                f"voice detector silero: {path} has inputs {', '.join(inputs)}, not those of "
                "silero-vad 5 and later: run 'pip install --no-deps --upgrade silero-vad'"
            )
        self._rate = np.array(MIC_RATE_HZ, dtype=np.int64)
        self.reset()

    def reset(self) -> None:
        """Forget what was heard."""
        self._state = np.zeros(_STATE_SHAPE, dtype=np.float32)
        self._input = np.zeros((1, _CONTEXT + WINDOW), dtype=np.float32)

    def probability(self, window: np.ndarray) -> float:
        """Of speech, 0 to 1, in int16 [512] at 16 kHz."""
        self._input[0, :_CONTEXT] = self._input[0, -_CONTEXT:]
        np.divide(window, 32768.0, out=self._input[0, _CONTEXT:], casting="unsafe")
        output, self._state = self._session.run(
            None, {"input": self._input, "state": self._state, "sr": self._rate}
        )
        return float(output[0, 0])
