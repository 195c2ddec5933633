"""The files of one small language model, which are long in the making. Only to be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from minicpmo_ros.model.llm import Llm

TurnGraph = Callable[[int, str], Path]


@pytest.fixture(scope="session")
def llm() -> Llm:
    from tests.runtime.networks import random_llm

    return random_llm()


@pytest.fixture(scope="session")
def single(llm: Llm, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Single precision, so that what differs from torch is a mistake. Two layers, one, the head."""
    from tests.runtime.networks import llm_files

    return llm_files(llm, tmp_path_factory.mktemp("fp32"), "float32", "fp32", 2)


@pytest.fixture(scope="session")
def half(llm: Llm, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same as for a card: half precision, matrices of four bits but for the head's."""
    from tests.runtime.networks import llm_files

    return llm_files(llm, tmp_path_factory.mktemp("int4"), "float16", "int4", 2)


@pytest.fixture(scope="session")
def turn_graph(tmp_path_factory: pytest.TempPathFactory) -> TurnGraph:
    """The graph that turns keys of so many numbers in a dtype."""
    folder = tmp_path_factory.mktemp("turn")

    def graph(dim: int, dtype: str) -> Path:
        pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
        from minicpmo_ros.runtime.export.turn import turn_plan
        from minicpmo_ros.runtime.export.writer import export

        file = folder / f"{dim}.{dtype}.onnx"
        if not file.exists():
            export(turn_plan(dim, dtype=dtype), _none, file)
        return file

    return graph


def _none(name: str) -> np.ndarray:
    raise AssertionError(f"there is no weight {name}")
