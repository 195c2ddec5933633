"""The omni node with the local brain: a small random network decides, and the node tells of it."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros import topics
from minicpmo_ros.media.compressed import encode_jpeg
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S
from minicpmo_ros.nodes.base import FAILURE, SUCCESS
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.ros_types import TYPES, header, message_class, uint8_array
from minicpmo_ros.runtime.engines import build, room
from minicpmo_ros.srv import SetMode, SetPrompt
from tests.built_network import write_recipe
from tests.nodes.robot import level, our_threads, tone
from tests.nodes.test_chat import ask, jpeg
from tests.nodes.test_loading import Gate

pytest.importorskip("torch", reason="the network needs the extra model")

LISTEN, SPEAK = 0, 1


@pytest.fixture
def local(tiny_checkpoint):
    """Parameters of the node."""
    return {
        "brain": "local",
        "checkpoint": str(tiny_checkpoint),
        "kv_capacity": 512,
        "window_high_tokens": 400,
        "window_low_tokens": 300,
        "forced_listens": 1,
        "image_transport": "compressed",
    }


@pytest.fixture
def talk(simulation):
    """Lets a node hear and see for some seconds; returns its decisions. silent: no voice."""

    def talk(omni, seconds: float, *, silent: bool = False, sees: bool = True):
        if not hasattr(talk, "decisions"):
            talk.decisions = simulation.hear(topics.DECISION)
            talk.pictures = simulation.talk(topics.IMAGE_COMPRESSED)
            simulation.until(lambda: omni.readers(topics.DECISION), "the listener")
            simulation.until(talk.pictures.get_subscription_count, "somebody to see pictures")
            simulation.tick(simulation.now_ns)

        def second(at_ns: int) -> np.ndarray:
            if sees and at_ns % (NS_PER_S // 2) == 400 * NS_PER_MS:
                seen = omni.traffic.received[topics.IMAGE_COMPRESSED.name]
                talk.pictures.publish(picture(at_ns))
                simulation.until(
                    lambda: omni.traffic.received[topics.IMAGE_COMPRESSED.name] > seen,
                    "the picture to arrive",
                )
            return tone(0.1, level=0.0 if silent else 8000.0)

        before = len(talk.decisions)
        simulation.live(seconds, sound=second, omni=omni)
        simulation.until(lambda: len(talk.decisions) >= before + int(seconds), "the decisions")
        return talk.decisions[before:]

    return talk


def picture(at_ns: int):
    rgb = np.random.default_rng(at_ns // NS_PER_MS).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return TYPES.new(
        topics.IMAGE_COMPRESSED.type,
        header=header(at_ns, "camera"),
        format="jpeg",
        data=uint8_array(encode_jpeg(rgb)),
    )


def test_decisions_carry_chances_lengths_and_timings(simulation, talk, local):
    omni = simulation.run(OmniNode, **local)
    decisions = talk(omni, 4.0)
    assert [(d.unit, d.brain, d.mode) for d in decisions] == [
        (k, "local", "duplex") for k in range(4)
    ]
    assert decisions[0].action == LISTEN
    for decision in decisions:
        assert 0 < decision.p_listen < 1 and 0 < decision.p_speak < 1
        assert decision.kv_capacity == 512
        assert len(decision.pictures) == 1
        stages = {timing.stage: timing.ms for timing in decision.timings}
        assert {"audio", "prefill", "decode", "brain"} <= stages.keys()
        assert all(ms >= 0 for ms in stages.values())
    lengths = [decision.kv_length for decision in decisions]
    assert all(b - a >= 77 for a, b in itertools.pairwise(lengths))


def test_the_log_says_what_runs_in_how_much_memory(simulation, local, capfd):
    simulation.run(OmniNode, **local)
    assert "KV cache of 512 tokens" in capfd.readouterr().err


@pytest.mark.parametrize(("wrong", "reason"), [
    ({"checkpoint": ""}, "needs a checkpoint"),
    ({"checkpoint": "/nowhere"}, "/nowhere: there is no such directory"),
    ({"device": "cuda:99"}, "this machine has auto, cpu"),
    ({"reference_voice": "/nowhere.wav"}, "/nowhere.wav does not exist"),
    ({"prompt_file": "/nowhere.txt"}, "/nowhere.txt cannot be read"),
    ({"window_high_tokens": 4000}, "4000 tokens come together, the KV cache holds 512"),
    ({"precision": "int3"}, "'int3' is not one of auto, fp32, bf16, fp16, int4"),
    ({"mode": "dream"}, "'dream' is not one of duplex, streaming, chat"),
    ({"recipe": "cpus"}, "recipe 'cpus' is unknown (did you mean 'cpu'?)"),
    ({"recipe": "/nowhere.yaml"}, "recipe /nowhere.yaml cannot be read"),
    ({"recipe": "cpu", "device": "cpu"}, "has no effect with the recipe 'cpu'"),
    ({"recipe": "rtx", "kv_capacity": 9000}, "above the 8192 tokens that the recipe 'rtx' builds"),
])  # fmt: skip
def test_what_it_cannot_begin_with_fails_the_configuration_with_the_reason(
    robot, local, wrong, reason
):
    node = robot.add(OmniNode, **{**local, **wrong})
    assert node.trigger_configure() == FAILURE
    assert reason in node.failure
    assert our_threads() == []
    status = robot.diagnosis("/omni: node", lambda status: level(status) == 2)
    assert status.message == node.failure
    right = {name: local.get(name, default) for name, default in DEFAULTS.items() if name in wrong}
    assert robot.set_parameters(node, **right).successful
    assert node.trigger_configure() == SUCCESS, node.failure


DEFAULTS = {
    "checkpoint": "",
    "recipe": "",
    "device": "auto",
    "reference_voice": "",
    "prompt_file": "",
    "window_high_tokens": 400,
    "precision": "auto",
    "mode": "duplex",
}


@pytest.fixture
def own(tmp_path) -> Path:
    """A recipe of one's own."""
    window = {"kind": "basic", "high": 400, "low": 300}
    return write_recipe(tmp_path / "own.yaml", kv_capacity=640, window=window)


def test_a_recipe_is_built_while_the_node_is_configured_and_diagnostics_say_how_far_it_is(
    robot, local, own, built, engines, tmp_path, monkeypatch
):
    built("fp32")
    # All but one: what is built was seen elsewhere to be right.
    copy = shutil.copytree(engines, tmp_path / "engines")
    for entry in copy.glob("speech.head-*"):
        shutil.rmtree(entry)
    monkeypatch.setenv("MINICPMO_ENGINES", str(copy))
    gate, make, said = Gate(), build.make_piece, []
    monkeypatch.setattr(build, "make_piece", lambda *given: (gate.wait(), make(*given)))
    node = robot.add(OmniNode, **{**local, "recipe": str(own)})
    diagnose = node.diagnose
    monkeypatch.setattr(node, "diagnose", lambda: (diagnose(), gate.diagnosed()))

    def note(array) -> None:
        said.extend((s.message, level(s)) for s in array.status if s.name == "/omni: brain")

    kind = message_class("diagnostic_msgs/msg/DiagnosticArray")
    robot.friend.create_subscription(kind, "/diagnostics", note, 100)
    robot.diagnosis("/omni: node")
    assert node.trigger_configure() == SUCCESS, node.failure
    told = ("loading local: building speech.head 9 %", 0)
    robot.until(lambda: told in said, "what was said meanwhile")
    assert list(copy.glob("speech.head-*/stage.onnx"))


def test_too_little_memory_fails_the_configuration_with_what_would_fit_and_nothing_is_built(
    robot, local, own, built, engines, tmp_path, monkeypatch
):
    built("fp32")
    monkeypatch.setenv("MINICPMO_ENGINES", str(tmp_path / "empty"))
    node = robot.add(OmniNode, **{**local, "recipe": str(own)})
    with monkeypatch.context() as small:
        small.setattr(room, "total_bytes", lambda: 10**8)
        assert node.trigger_configure() == FAILURE
    assert "recipe 'own' the network takes 0." in node.failure
    assert "there are 0.10 GB; even with 512 tokens it takes" in node.failure
    assert not list((tmp_path / "empty").glob("*/stage.onnx"))
    assert node.phase == "unconfigured" and our_threads() == []
    status = robot.diagnosis("/omni: node", lambda status: level(status) == 2)
    assert status.message == node.failure
    monkeypatch.setenv("MINICPMO_ENGINES", str(engines))
    assert node.trigger_configure() == SUCCESS, node.failure
    robot.diagnosis("/omni: node", lambda status: level(status) == 0)


def test_a_recipe_decides_units_in_the_context_that_it_says(
    simulation, talk, local, own, built, engines, monkeypatch, capfd
):
    built("fp32")
    monkeypatch.setenv("MINICPMO_ENGINES", str(engines))
    says = {"kv_capacity": 0, "window_high_tokens": 0, "window_low_tokens": 0}
    omni = simulation.run(OmniNode, **{**local, "recipe": str(own), **says})
    decisions = talk(omni, 2.0)
    assert [d.brain for d in decisions] == ["local"] * 2
    for decision in decisions:
        assert 0 < decision.p_listen < 1
        assert decision.kv_capacity == 640
    log = capfd.readouterr().err
    assert "recipe own on onnxruntime, weights of" in log
    assert "KV cache of 640 tokens" in log


def test_modes_are_switched_while_it_runs(simulation, talk, local):
    omni = simulation.run(OmniNode, **local)
    talk(omni, 2.0, silent=True)
    assert simulation.call(SetMode, "set_mode", mode="streaming").success
    assert talk(omni, 1.0, silent=True)[-1].reason == "nobody speaks"
    heard = talk(omni, 2.0)
    assert {d.mode for d in heard} == {"streaming"}
    assert all(math.isnan(d.p_listen) for d in heard)
    assert heard[-1].reason == "the user's turn goes on"
    replies = talk(omni, 2.0, silent=True)
    assert SPEAK in [d.action for d in replies]
    assert any(d.reason.startswith("the user is silent for") for d in replies)
    assert simulation.call(SetMode, "set_mode", mode="duplex").success
    (last,) = talk(omni, 1.0, silent=True)
    assert (last.mode, last.action) == ("duplex", LISTEN)  # of a new session, the first
    assert 0 < last.p_listen < 1
    assert simulation.call(SetPrompt, "set_prompt", prompt="简短。", language="zh").success
    assert talk(omni, 1.0, silent=True)[0].brain == "local"


def test_a_question_is_answered_in_streamed_text_and_units_go_on(robot, local):
    robot.run(OmniNode, **{**local, "kv_capacity": 2048})
    result, _, pieces = ask(
        robot,
        text="What is this?",
        pictures=[jpeg(40)],
        sound=robot.chunk(1, tone(1.0)),
        max_tokens=30,
    )
    assert result.success, result.message
    assert result.answer
    robot.until(lambda: "".join(pieces) == result.answer, "all pieces of the answer")
    again, _, _ = ask(robot, text="word " * 3000)
    assert not again.success
    assert "2048 tokens" in again.message


def test_a_network_that_fails_gives_way_to_the_reflex_and_comes_back(simulation, talk, local):
    import torch

    omni = simulation.run(OmniNode, **{**local, "fallback_failures": 2, "fallback_retry_units": 2})
    norm = omni.session.brain._primary._loaded[0].stages["llm"].model.norm.weight
    kept = norm.detach().clone()
    talk(omni, 1.0)
    with torch.no_grad():
        norm.fill_(math.nan)
    failed, *reflex = talk(omni, 3.0)
    assert failed.reason.startswith("brain failed: NumericsError")
    assert {d.brain for d in reflex} == {"reflex"}
    with torch.no_grad():
        norm.copy_(kept)
    back = talk(omni, 2.0)[-1]
    assert back.brain == "local"
    assert 0 < back.p_listen < 1
