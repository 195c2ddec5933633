"""A stage to one ONNX file and one file of weights, without ever holding its weights.

The graph is traced with tensors that have shapes and no memory. Weights are then copied from the
checkpoint into the file beside the graph one after the other, in the precision asked for: single,
half, or four or eight bits in blocks (`runtime.int4`) as DequantizeLinear in front of a MatMul. Of
four bits onnxruntime and TensorRT both keep them packed, of eight onnxruntime does. A matrix that
was to have so few bits, and that blocks do not divide, has half precision in the file.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from minicpmo_ros.runtime.engines.pieces import BITS
from minicpmo_ros.runtime.int4 import BLOCK, can_quantise, quantise

OPSET = 21
# Weights begin at such places, so that they can be mapped into memory.
ALIGNMENT = 4096
Read = Callable[[str], np.ndarray]
"""Gives the float32 values of a weight, by its name in the stage."""
Progress = Callable[[int], None]
"""Called with the parameters of a weight that was just written."""
Importance = Callable[[str], "np.ndarray | None"]
"""Gives the mean squares of a matrix's inputs, float32 [inputs], if they are known."""


@dataclass(frozen=True)
class Plan:
    """What to make of a stage.

    make: constructs it. example: inputs, of which shapes and kinds count; floating ones get the
    dtype. dynamic: as torch.onnx.export has it. inputs, outputs: names. bits: how many the weight
    of a linear layer with this name is to have, 4 or 8; 0: as all others. dtype: of all other
    weights and of what flows: float32 or float16. joined: by the end of a weight's name, the ends
    of those that it is made of, one below the other. same: plans of which this is equal have the
    same graph, which is then traced once; None: no other has it. single: names of inputs that are
    float32 whatever the dtype.
    """

    make: Callable[[], nn.Module]
    example: Callable[[], tuple[Any, ...]]
    dynamic: Any
    inputs: Sequence[str]
    outputs: Sequence[str]
    bits: Callable[[str], int] = lambda name: 0
    dtype: str = "float32"
    joined: Mapping[str, Sequence[str]] = field(default_factory=dict)
    same: Hashable = None
    single: Sequence[str] = ()

    def weights(self, read: Read) -> Read:
        """Reads weights as they are in the graph, of what reads those that they are made of."""

        def found(name: str) -> np.ndarray:
            parts = self._parts(name)
            return read(name) if parts is None else np.concatenate([read(one) for one in parts])

        return found

    def lies_in_half(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether a weight is to have few bits, cannot, and has sixteen in a graph of float32."""
        few = self.dtype == "float32" and self.bits(name) > 0 and len(shape) == 2
        return few and not can_quantise(shape)

    def importance(self, of: Importance) -> Importance:
        """The same for what is known of inputs: all that is joined has the same."""

        def found(name: str) -> np.ndarray | None:
            parts = self._parts(name)
            return of(name if parts is None else parts[0])

        return found

    def _parts(self, name: str) -> list[str] | None:
        for whole, parts in self.joined.items():
            if name.endswith(whole):
                return [name.removesuffix(whole) + part for part in parts]
        return None


def matrices(precision: str, *layers: str) -> Callable[[str], int]:
    """For `Plan.bits`: of the weights of linear layers whose names end so; of all others none."""
    bits = BITS[precision]
    ends = tuple(f"{layer}.weight" for layer in layers)
    return lambda name: bits if name.endswith(ends) else 0


def export(
    plan: Plan,
    read: Read,
    file: Path,
    progress: Progress = lambda count: None,
    importance: Importance = lambda name: None,
) -> None:
    """Write `file` and, beside it, `file` with .bin for .onnx.

    Both are written under other names first: an export that was cut off leaves nothing that could
    be taken for a whole one.
    """
    model = trace(plan)
    data = file.with_suffix(".bin")
    part, data_part = (path.with_suffix(path.suffix + ".part") for path in (file, data))
    with data_part.open("wb") as out:
        writer = _Writer(out, data.name, plan, plan.importance(importance))
        whole = plan.weights(read)
        for name, value in list(model.graph.initializers.items()):
            if _is_weight(value):
                weights = whole(name)
                writer.place(model, value, weights)
                progress(weights.size)
    ir.save(model, part)
    data_part.replace(data)
    part.replace(file)


def trace(plan: Plan) -> ir.Model:
    """The graph, its weights without values."""
    if plan.same is None:
        return _traced(plan)
    key = plan.same, plan.dtype
    if key not in _TRACES:
        _TRACES.clear()  # files of the same kind follow each other
        _TRACES[key] = _traced(plan)
    return _TRACES[key].clone()


_TRACES: dict[Hashable, ir.Model] = {}


def _traced(plan: Plan) -> ir.Model:
    from torch._subclasses.fake_tensor import FakeTensorMode

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with FakeTensorMode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dtype = getattr(torch, plan.dtype)
        program = torch.onnx.export(
            _made(plan, dtype),
            _example(plan, dtype),
            dynamo=True,
            dynamic_shapes=plan.dynamic,
            opset_version=OPSET,
            input_names=list(plan.inputs),
            output_names=list(plan.outputs),
            optimize=False,
            verbose=False,
        )
    assert program is not None
    _fold(program.model)
    _forget_origin(program.model)
    return program.model


def _forget_origin(model: ir.Model) -> None:
    """Take out what the tracer wrote about where each node stems from: most of a graph's bytes, and
    the folders of the machine that built it, for files may ship."""
    model.metadata_props.clear()
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        graph.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()


def _fold(model: ir.Model) -> None:
    """Compute what depends on no input: TensorRT asks for axes and the like to be constants."""
    from onnxscript.optimizer import fold_constants

    for value in model.graph.initializers.values():
        if _is_weight(value):
            value.const_value = None  # a fake tensor, with which nothing can be computed
    fold_constants(model)


def _made(plan: Plan, dtype: torch.dtype) -> nn.Module:
    """The stage in its dtype from the start: fake parameters cannot be converted."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return plan.make().eval()
    finally:
        torch.set_default_dtype(before)


def _example(plan: Plan, dtype: torch.dtype) -> tuple[Any, ...]:
    # Caches are one list and many names, the last of each.
    named = zip(plan.inputs, plan.example(), strict=False)
    return tuple(one if name in plan.single else _in_dtype(one, dtype) for name, one in named)


def _in_dtype(example: Any, dtype: torch.dtype) -> Any:
    if isinstance(example, (tuple, list)):
        return type(example)(_in_dtype(one, dtype) for one in example)
    return example.to(dtype) if example.is_floating_point() else example


def _is_weight(value: ir.Value) -> bool:
    """Parameters have names with dots; constants of the graph have not."""
    return "." in (value.name or "")


class _Writer:
    """Puts weights into the file, and what stands for them into the graph."""

    def __init__(self, out: BinaryIO, location: str, plan: Plan, importance: Importance) -> None:
        self._out = out
        self._location = location
        self._plan = plan
        self._importance = importance

    def place(self, model: ir.Model, value: ir.Value, weights: np.ndarray) -> None:
        name = value.name or ""
        expected = tuple(value.shape) if value.shape is not None else ()
        assert tuple(weights.shape) == expected, f"{name}: {weights.shape} is not {expected}"
        bits = self._plan.bits(name)
        if bits and can_quantise(weights.shape):
            self._place_quantised(model, value, weights, bits)
        elif self._plan.lies_in_half(name, weights.shape):
            self._place_half(model, value, weights)
        else:
            array = weights.astype(self._plan.dtype, copy=False)
            value.const_value = self._external(name, array, ir.DataType.from_numpy(array.dtype))

    def _place_quantised(
        self, model: ir.Model, value: ir.Value, weights: np.ndarray, bits: int
    ) -> None:
        """x W^T becomes MatMul(x, DequantizeLinear(codes, scales)), codes [inputs, outputs]."""
        name = value.name or ""
        found = quantise(weights.astype(np.float32, copy=False), self._importance(name), bits)
        outputs, inputs = weights.shape
        kind = ir.DataType.INT4 if bits == 4 else ir.DataType.INT8
        codes = self._constant(model, f"{name}.codes", found.stored(), kind, (inputs, outputs))
        scales = np.ascontiguousarray(found.scales.T).astype(self._plan.dtype)
        scale = self._constant(
            model, f"{name}.scales", scales, ir.DataType.from_numpy(scales.dtype), scales.shape
        )
        for use in list(value.uses()):
            product = use.node
            plain = ir.node("DequantizeLinear", [codes, scale], {"axis": 0, "block_size": BLOCK})
            if product.op_type == "Transpose":  # MatMul(x, Transpose(W))
                model.graph.insert_before(product, [plain])
                _replace(product.outputs[0], plain.outputs[0])
            else:  # Gemm(x, W, bias), which transposes W itself
                assert product.op_type == "Gemm" and product.inputs[1] is value, name
                nodes = [plain, ir.node("MatMul", [product.inputs[0], plain.outputs[0]])]
                if len(product.inputs) > 2 and product.inputs[2] is not None:
                    nodes.append(ir.node("Add", [nodes[-1].outputs[0], product.inputs[2]]))
                model.graph.insert_before(product, nodes)
                _replace(product.outputs[0], nodes[-1].outputs[0])
            model.graph.remove(product, safe=True)
        del model.graph.initializers[name]

    def _place_half(self, model: ir.Model, value: ir.Value, weights: np.ndarray) -> None:
        """W becomes Cast(half), which onnxruntime computes once, when it loads the graph."""
        name = value.name or ""
        half = self._constant(
            model, f"{name}.half", weights.astype(np.float16), ir.DataType.FLOAT16, weights.shape
        )
        cast = ir.node("Cast", [half], {"to": ir.DataType.FLOAT})
        single = cast.outputs[0]
        single.name, single.shape, single.type = f"{name}.single", value.shape, value.type
        model.graph.insert_before(model.graph[0], [cast])
        ir.convenience.replace_all_uses_with(value, single)
        del model.graph.initializers[name]

    def _constant(
        self,
        model: ir.Model,
        name: str,
        array: np.ndarray,
        dtype: ir.DataType,
        shape: tuple[int, ...],
    ) -> ir.Value:
        value = ir.Value(
            name=name,
            shape=ir.Shape(shape),
            type=ir.TensorType(dtype),
            const_value=self._external(name, array, dtype, shape),
        )
        model.graph.initializers.add(value)
        return value

    def _external(
        self, name: str, array: np.ndarray, dtype: ir.DataType, shape: tuple[int, ...] | None = None
    ) -> ir.ExternalTensor:
        self._out.write(b"\0" * (-self._out.tell() % ALIGNMENT))
        offset = self._out.tell()
        self._out.write(np.ascontiguousarray(array).data)
        return ir.ExternalTensor(
            self._location,
            offset=offset,
            length=array.nbytes,
            dtype=dtype,
            shape=ir.Shape(array.shape if shape is None else shape),
            name=name,
        )


def _replace(old: ir.Value, new: ir.Value) -> None:
    """Put a new value where an old one is used, or given back."""
    new.name, new.shape, new.type = old.name, old.shape, old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
