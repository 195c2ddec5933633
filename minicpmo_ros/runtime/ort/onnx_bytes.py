"""Small ONNX graphs as bytes, without the package onnx, which a robot need not have.

Only what the graphs of `device_rows` are made of: operations with whole numbers as attributes,
inputs and outputs of which the rank is known. Numbers of fields and types: onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

FLOAT, INT64, FLOAT16 = 1, 7, 10
"""Types of elements."""
_IR_VERSION = 8
_ATTRIBUTE_INT = 2


@dataclass(frozen=True)
class Node:
    """One operation: its inputs and outputs by name."""

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph, of any size."""

    name: str
    element: int
    rank: int


def model(
    nodes: Sequence[Node], inputs: Sequence[Tensor], outputs: Sequence[Tensor], opset: int = 18
) -> bytes:
    """A file's content, for onnxruntime to load."""
    graph = b"".join(_bytes(1, _node(node)) for node in nodes) + _text(2, "graph")
    graph += b"".join(_bytes(11, _tensor(one)) for one in inputs)
    graph += b"".join(_bytes(12, _tensor(one)) for one in outputs)
    return _number(1, _IR_VERSION) + _bytes(7, graph) + _bytes(8, _text(1, "") + _number(2, opset))


def _node(node: Node) -> bytes:
    content = b"".join(_text(1, name) for name in node.inputs)
    content += b"".join(_text(2, name) for name in node.outputs)
    content += _text(4, node.kind)
    for name, value in node.attributes.items():
        content += _bytes(5, _text(1, name) + _number(3, value) + _number(20, _ATTRIBUTE_INT))
    return content


def _tensor(tensor: Tensor) -> bytes:
    shape = _bytes(1, b"") * tensor.rank
    kind = _bytes(1, _number(1, tensor.element) + _bytes(2, shape))
    return _text(1, tensor.name) + _bytes(2, kind)


def _number(at: int, value: int) -> bytes:
    return _varint(at << 3) + _varint(value)


def _text(at: int, text: str) -> bytes:
    return _bytes(at, text.encode())


def _bytes(at: int, content: bytes) -> bytes:
    return _varint(at << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; numbers below zero as those of 64 bits."""
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes(found) + bytes([value])
