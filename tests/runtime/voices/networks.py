"""Small networks with the inputs and outputs of the two that hear a voice, as ONNX files, and the
same in numpy. Convolutions and the code book's rounding are those of the published tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

DIGITS, MELS, BANK, SPEAKER = 8, 128, 80, 192
POWERS = 3 ** np.arange(DIGITS)


class Tokenizer:
    """Two convolutions of stride two, eight digits of base three.

    Args:
        strides: of the convolutions; (2, 1) gives 50 tokens a second.
        base: of the digits; more than three gives tokens that there are not.
        length: type of the second input.
        pads: frames of zeros before and after the second convolution's.
    """

    def __init__(
        self,
        seed: int = 0,
        strides: tuple[int, int] = (2, 2),
        base: int = 3,
        length: str = "INT32",
        mels: int = MELS,
        pads: tuple[int, int] = (1, 1),
    ) -> None:
        random = np.random.default_rng(seed)
        self.first = (random.standard_normal((DIGITS, mels, 3)) / 8).astype(np.float32)
        self.second = random.standard_normal((DIGITS, DIGITS, 3)).astype(np.float32)
        self.strides, self.base, self.length, self.mels = strides, base, length, mels
        self.pads = pads

    def __call__(self, log_mel: NDArray[np.float32]) -> NDArray[np.int64]:
        """[frames / 4], as the file computes it."""
        hidden = np.maximum(convolved(log_mel, self.first, self.strides[0]), 0)
        digits = np.rint(np.tanh(convolved(hidden, self.second, self.strides[1])) * 0.999) + 1
        return (POWERS @ digits).astype(np.int64)

    def write(self, file: Path) -> Path:
        onnx = pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
        node, kind = onnx.helper.make_node, onnx.TensorProto
        nodes = [
            # Only as many frames as are said to be there.
            node("Cast", ["feats_length"], ["length"], to=kind.INT64),
            node("Slice", ["feats", "zero", "length", "two"], ["heard"]),
            node("Conv", ["heard", "first"], ["a"], strides=[self.strides[0]], pads=[1, 1]),
            node("Relu", ["a"], ["b"]),
            node("Conv", ["b", "second"], ["c"], strides=[self.strides[1]], pads=self.pads),
            node("Tanh", ["c"], ["d"]),
            node("Mul", ["d", "nearly"], ["e"]),
            node("Round", ["e"], ["f"]),
            node("Add", ["f", "one"], ["g"]),
            node("Mul", ["g", "powers"], ["h"]),
            node("ReduceSum", ["h", "axis"], ["i"], keepdims=0),
            node("Cast", ["i"], ["indices"], to=kind.INT32),
        ]
        powers = (float(self.base) ** np.arange(DIGITS)).astype(np.float32)
        weights = {
            "zero": np.array([0]),
            "two": np.array([2]),
            "axis": np.array([1]),
            "first": self.first,
            "second": self.second,
            "nearly": np.array(0.999, np.float32),
            "one": np.array(1, np.float32),
            "powers": powers[None, :, None],
        }
        inputs = [
            ("feats", kind.FLOAT, [1, self.mels, "frames"]),
            ("feats_length", getattr(kind, self.length), [1]),
        ]
        return saved(onnx, file, nodes, inputs, ("indices", kind.INT32, None), weights)


class SpeakerNetwork:
    """Means of squares over time, multiplied by a matrix."""

    def __init__(self, seed: int = 0, size: int = SPEAKER, factor: float = 1.0) -> None:
        matrix = np.random.default_rng(seed).standard_normal((BANK, size))
        self.matrix = (factor * matrix / BANK).astype(np.float32)

    def __call__(self, bank: NDArray[np.float32]) -> NDArray[np.float32]:
        """[192]."""
        return np.mean(np.square(bank), axis=0) @ self.matrix

    def write(self, file: Path) -> Path:
        onnx = pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
        node, kind = onnx.helper.make_node, onnx.TensorProto
        nodes = [
            node("Mul", ["input", "input"], ["a"]),
            node("ReduceMean", ["a", "axis"], ["b"], keepdims=0),
            node("MatMul", ["b", "matrix"], ["output"]),
        ]
        weights = {"axis": np.array([1]), "matrix": self.matrix}
        inputs = [("input", kind.FLOAT, ["batch", "frames", BANK])]
        return saved(onnx, file, nodes, inputs, ("output", kind.FLOAT, None), weights)


def convolved(
    sound: NDArray[np.float32], weights: NDArray[np.float32], stride: int
) -> NDArray[np.float32]:
    """[in, frames] to [out, ceil(frames / stride)], three frames wide."""
    padded = np.pad(sound, ((0, 0), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=1)[:, ::stride]
    return np.einsum("oik,itk->ot", weights, windows)


def saved(
    onnx: Any,
    file: Path,
    nodes: list[Any],
    inputs: list[tuple[str, int, Any]],
    output: tuple[str, int, Any],
    weights: dict[str, NDArray[Any]],
) -> Path:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "voice",
        [value(*one) for one in inputs],
        [value(*output)],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), file)
    return file
