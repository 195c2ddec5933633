"""Graphs that write, move and make room for rows of caches where these lie, for onnxruntime.

A cache is [kv_heads, rows, head_dim]. Who runs a graph gives one piece of memory as input `cache`
and as output `out`: ScatterElements copies what it is given to what it makes unless both are the
same memory, and then writes nothing but the rows.
"""

from __future__ import annotations

from minicpmo_ros.runtime.ort.onnx_bytes import FLOAT, INT64, Node, Tensor, model

# Numbers of rows, [1, N, 1], for each head and column.
_SPREAD = Node("Expand", ["numbers", "shape"], ["index"])
_NUMBERS = Tensor("numbers", INT64, 3)


def writer(caches: int, element: int) -> bytes:
    """Rows into caches.

    Inputs `numbers` int64 [1, N, 1] and, for each cache, `cache.N` and `rows.N` [kv_heads, N,
    head_dim]; outputs `out.N`.
    """
    nodes = [Node("Shape", ["rows.0"], ["shape"]), _SPREAD]
    inputs, outputs = [_NUMBERS], []
    for number in range(caches):
        cache, rows, out = (f"{name}.{number}" for name in ("cache", "rows", "out"))
        nodes.append(Node("ScatterElements", [cache, "index", rows], [out], {"axis": 1}))
        inputs += [Tensor(cache, element, 3), Tensor(rows, element, 3)]
        outputs.append(Tensor(out, element, 3))
    return model(nodes, inputs, outputs)


def mover(element: int, turned: bool) -> bytes:
    """Rows of a cache to other rows of it.

    Inputs `cache`; `taken` int64 [N], from where; `numbers` int64 [1, N, 1], to where; and, where
    they are turned (keys), `cos` and `sin` float32 [N, head_dim / 2]; output `out`. All rows are
    taken before the first is written, so they may lie in each other's way.
    """
    nodes = [Node("Gather", ["cache", "taken"], ["rows"], {"axis": 1})]
    inputs = [Tensor("cache", element, 3), Tensor("taken", INT64, 1), _NUMBERS]
    if turned:
        nodes += _turn(element)
        inputs += [Tensor("cos", FLOAT, 2), Tensor("sin", FLOAT, 2)]
    moved = "turned" if turned else "rows"
    nodes += [
        Node("Shape", [moved], ["shape"]),
        _SPREAD,
        Node("ScatterElements", ["cache", "index", moved], ["out"], {"axis": 1}),
    ]
    return model(nodes, inputs, [Tensor("out", element, 3)])


def grower(element: int) -> bytes:
    """A cache with zeros behind its rows, in memory of its own.

    Inputs `cache` and `pads` int64 [6]; output `out`.
    """
    nodes = [Node("Pad", ["cache", "pads"], ["out"])]
    inputs = [Tensor("cache", element, 3), Tensor("pads", INT64, 1)]
    return model(nodes, inputs, [Tensor("out", element, 3)])


def _turn(element: int) -> list[Node]:
    """As `kv.rotate`, in single precision."""
    return [
        Node("Cast", ["rows"], ["wide"], {"to": FLOAT}),
        Node("Split", ["wide"], ["first", "second"], {"axis": -1, "num_outputs": 2}),
        Node("Mul", ["first", "cos"], ["first_cos"]),
        Node("Mul", ["second", "sin"], ["second_sin"]),
        Node("Sub", ["first_cos", "second_sin"], ["low"]),
        Node("Mul", ["second", "cos"], ["second_cos"]),
        Node("Mul", ["first", "sin"], ["first_sin"]),
        Node("Add", ["second_cos", "first_sin"], ["high"]),
        Node("Concat", ["low", "high"], ["turned_wide"], {"axis": -1}),
        Node("Cast", ["turned_wide"], ["turned"], {"to": element}),
    ]
