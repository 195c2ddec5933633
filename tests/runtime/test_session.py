"""What a session of onnxruntime is told, and what it makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
from minicpmo_ros.runtime.export.plans import head_plan  # noqa: E402
from minicpmo_ros.runtime.export.writer import export  # noqa: E402
from minicpmo_ros.runtime.ort.stages import session  # noqa: E402
from tests.runtime.networks import CONFIG, random_llm  # noqa: E402


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("session") / "head.onnx"
    weights = random_llm().lm_head.weight.numpy()
    export(head_plan(CONFIG.hidden, CONFIG.vocab, precision="int4"), lambda name: weights, file)
    return file


def test_products_of_four_bits_round_their_inputs_to_eight(head: Path, tmp_path: Path) -> None:
    """Twice as fast as products that unpack weights to single precision: accuracy level 4."""
    session(head, threads=1, save=tmp_path / "as_run.onnx")
    graph = onnx.load(tmp_path / "as_run.onnx", load_external_data=False).graph
    (product,) = (node for node in graph.node if node.op_type == "MatMulNBits")
    attributes = {one.name: one.i for one in product.attribute}
    assert attributes["accuracy_level"] == 4
    assert (attributes["bits"], attributes["block_size"]) == (4, 128)


def test_threads_sleep_while_they_wait(head: Path) -> None:
    """As many as were asked for; one that spins would burn a core that the robot needs."""
    options = session(head, threads=2).get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
