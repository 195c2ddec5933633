"""A stage to one ONNX file and one file of weights, without ever holding its weights.

The graph is traced with tensors that have shapes and no memory. Weights are then copied from the
checkpoint into the file beside the graph one after the other, in the precision asked for: half, or
four bits in blocks (`runtime.int4`) as DequantizeLinear in front of a MatMul, which onnxruntime and
TensorRT both keep packed.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from minicpmo_ros.runtime.int4 import BLOCK, can_quantise, quantise

OPSET = 21
# Weights begin at such places, so that they can be mapped into memory.
ALIGNMENT = 4096
Read = Callable[[str], np.ndarray]
"""Gives the float32 values of a weight, by its name in the stage."""
Progress = Callable[[int], None]
"""Called with the parameters of a weight that was just written."""


@dataclass(frozen=True)
class Plan:
    """What to make of a stage.

    make: constructs it. example: inputs, of which shapes and dtypes count. dynamic: as
    torch.onnx.export has it. inputs, outputs: names. int4: whether a weight of this name, a
    matrix, is to have four bits. dtype: of all other weights: float32 or float16.
    """

    make: Callable[[], nn.Module]
    example: Callable[[], tuple[Any, ...]]
    dynamic: Any
    inputs: Sequence[str]
    outputs: Sequence[str]
    int4: Callable[[str], bool] = lambda name: False
    dtype: str = "float32"


def export(plan: Plan, read: Read, file: Path, progress: Progress = lambda count: None) -> None:
    """Write `file` and, beside it, `file` with .bin for .onnx.

    Both are written under other names first: an export that was cut off leaves nothing that could
    be taken for a whole one.
    """
    model = trace(plan)
    data = file.with_suffix(".bin")
    part, data_part = (path.with_suffix(path.suffix + ".part") for path in (file, data))
    with data_part.open("wb") as out:
        writer = _Writer(out, data.name, plan)
        for name, value in list(model.graph.initializers.items()):
            if _is_weight(value):
                weights = read(name)
                writer.place(model, value, weights)
                progress(weights.size)
    ir.save(model, part)
    data_part.replace(data)
    part.replace(file)


def trace(plan: Plan) -> ir.Model:
    """The graph, its weights without values."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with FakeTensorMode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = plan.make().eval()
        if plan.dtype == "float16":
            module = module.half()
        program = torch.onnx.export(
            module,
            plan.example(),
            dynamo=True,
            dynamic_shapes=plan.dynamic,
            opset_version=OPSET,
            input_names=list(plan.inputs),
            output_names=list(plan.outputs),
            optimize=False,
            verbose=False,
        )
    assert program is not None
    return program.model


def _is_weight(value: ir.Value) -> bool:
    """Parameters have names with dots; constants of the graph have not."""
    return "." in (value.name or "")


class _Writer:
    """Puts weights into the file, and what stands for them into the graph."""

    def __init__(self, out: BinaryIO, location: str, plan: Plan) -> None:
        self._out = out
        self._location = location
        self._plan = plan

    def place(self, model: ir.Model, value: ir.Value, weights: np.ndarray) -> None:
        name = value.name or ""
        uses = list(value.uses())
        if self._plan.int4(name) and can_quantise(weights.shape):
            assert all(use.node.op_type == "Gemm" for use in uses), name
            self._place_int4(model, value, weights)
        else:
            array = weights.astype(self._plan.dtype)
            value.const_value = self._external(name, array, ir.DataType.from_numpy(array.dtype))

    def _place_int4(self, model: ir.Model, value: ir.Value, weights: np.ndarray) -> None:
        """Gemm(x, W transposed) becomes MatMul(x, DequantizeLinear(codes, scales))."""
        name = value.name or ""
        found = quantise(weights.astype(np.float32))
        outputs, inputs = weights.shape
        codes = ir.Value(
            name=f"{name}.codes",
            shape=ir.Shape((inputs, outputs)),
            type=ir.TensorType(ir.DataType.INT4),
            const_value=self._external(
                f"{name}.codes", found.packed(), ir.DataType.INT4, (inputs, outputs)
            ),
        )
        scales = np.ascontiguousarray(found.scales.T).astype(self._plan.dtype)
        scale = ir.Value(
            name=f"{name}.scales",
            shape=ir.Shape(scales.shape),
            type=ir.TensorType(ir.DataType.from_numpy(scales.dtype)),
            const_value=self._external(
                f"{name}.scales", scales, ir.DataType.from_numpy(scales.dtype)
            ),
        )
        model.graph.initializers.add(codes)
        model.graph.initializers.add(scale)
        for use in list(value.uses()):
            gemm = use.node
            plain = ir.node("DequantizeLinear", [codes, scale], {"axis": 0, "block_size": BLOCK})
            product = ir.node("MatMul", [gemm.inputs[0], plain.outputs[0]])
            old, new = gemm.outputs[0], product.outputs[0]
            new.name, new.shape, new.type = old.name, old.shape, old.type
            model.graph.insert_before(gemm, [plain, product])
            ir.convenience.replace_all_uses_with(old, new)
            for index, output in enumerate(model.graph.outputs):
                if output is old:
                    model.graph.outputs[index] = new
            model.graph.remove(gemm, safe=True)
        del model.graph.initializers[name]

    def _external(
        self, name: str, array: np.ndarray, dtype: ir.DataType, shape: tuple[int, ...] | None = None
    ) -> ir.ExternalTensor:
        self._out.write(b"\0" * (-self._out.tell() % ALIGNMENT))
        offset = self._out.tell()
        self._out.write(np.ascontiguousarray(array).tobytes())
        return ir.ExternalTensor(
            self._location,
            offset=offset,
            length=array.nbytes,
            dtype=dtype,
            shape=ir.Shape(array.shape if shape is None else shape),
            name=name,
        )
