"""The local brain over a checkpoint that has no speech decoder: its words are text, as ever."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minicpmo_ros.brains.api import ChatRequest, SessionSetup
from minicpmo_ros.brains.build import OmniSettings, make_brain
from minicpmo_ros.duplex.config import DuplexConfig
from minicpmo_ros.duplex.conversation import Conversation
from minicpmo_ros.errors import BrainError, CheckpointError
from minicpmo_ros.model import shipped
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.runtime.engines import commands
from minicpmo_ros.runtime.torch_runtime import TorchNetwork
from tests.brains.local.robot import NOBODY, picture, second, somebody
from tests.nano_network import nano_checkpoint

__all__ = ["nano_checkpoint"]

ROOT = Path(__file__).parents[3]
SMALL = {"kv_capacity": 512, "window_high_tokens": 450, "window_low_tokens": 300}


def brain_of(**settings: Any):
    wanted = {"brain": "local", "fallback": "none", "forced_listens": 0, **SMALL, **settings}
    return make_brain(OmniSettings(**wanted), None)


@pytest.fixture(params=["torch", "cpu", "nano"])
def settings(
    request: pytest.FixtureRequest, nano_checkpoint: Path, engines: Path, monkeypatch
) -> dict[str, Any]:
    monkeypatch.setenv("MINICPMO_ENGINES", str(engines))
    runs = {"precision": "fp32"} if request.param == "torch" else {"recipe": request.param}
    return {"checkpoint": str(nano_checkpoint), "threads": 1, **runs}


@pytest.mark.parametrize("mode", ["duplex", "streaming"])
def test_it_converses_and_chats(settings: dict[str, Any], mode: str) -> None:
    brain = brain_of(**settings)
    brain.open(SessionSetup(mode=mode, seed=3))
    around = [somebody(0.2, None), somebody(0.2, None), somebody(0.2, 2.1)]
    results = [brain.unit(second(k, picture(k + 0.5)), around[k]) for k in range(3)]
    brain.settle()
    lengths = [result.kv_length for result in results]
    assert lengths == sorted(set(lengths))
    if mode == "duplex":
        assert all(0 <= result.p_listen <= 1 for result in results)
    else:
        assert results[-1].text
    answer = list(brain.chat(ChatRequest("What is that?", max_tokens=6)))
    assert "".join(answer)


def test_a_conversation_that_is_to_make_codes_is_refused(nano_checkpoint: Path) -> None:
    network = TorchNetwork.load(nano_checkpoint)
    tokenizer = Tokenizer(nano_checkpoint)
    with pytest.raises(BrainError, match="has no speech decoder"):
        Conversation(network, tokenizer, DuplexConfig(kv_capacity=4096))
    Conversation(network, tokenizer, DuplexConfig(kv_capacity=4096, speaks=False))


# -- as it ships ----------------------------------------------------------------------------


@pytest.fixture
def package(nano_checkpoint: Path, engines: Path, tmp_path: Path, monkeypatch) -> Path:
    """A package with the checkpoint inside, built for its recipe."""
    directory = tmp_path / "package" / "nano" / "checkpoint"
    shutil.copytree(nano_checkpoint, directory)
    monkeypatch.setenv("MINICPMO_ENGINES", str(engines))
    commands.build(directory, "nano", ship=True)
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "package")
    return tmp_path / "package"


def test_by_its_name_it_runs_without_torch_and_builds_nothing(package: Path, monkeypatch) -> None:
    code = f"""
import json, sys
from pathlib import Path
sys.modules["torch"] = sys.modules["onnx"] = sys.modules["safetensors"] = None
from minicpmo_ros.model import shipped
shipped._PACKAGE = Path({str(package)!r})
from minicpmo_ros.brains.api import SessionSetup
from minicpmo_ros.brains.build import OmniSettings, make_brain
from tests.brains.local.robot import NOBODY, picture, second
settings = OmniSettings(
    brain="local", fallback="none", forced_listens=0, checkpoint="nano", recipe="nano"
)
brain = make_brain(settings, None)
brain.open(SessionSetup())
assert brain.about.startswith("recipe nano on onnxruntime"), brain.about
results = [brain.unit(second(k, picture(k + 0.5)), NOBODY) for k in range(2)]
print(json.dumps([r.p_listen for r in results]))
"""
    monkeypatch.setenv("MINICPMO_ENGINES", "/proc/nowhere")  # where nothing can be written
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=60
    )
    brain = make_brain(
        OmniSettings(
            brain="local", fallback="none", forced_listens=0, checkpoint="nano", recipe="nano"
        ),
        None,
    )
    brain.open(SessionSetup())
    results = [brain.unit(second(k, picture(k + 0.5)), NOBODY) for k in range(2)]
    assert json.loads(done.stdout) == [result.p_listen for result in results]
    assert np.isfinite(json.loads(done.stdout)).all()


@pytest.mark.parametrize("recipe", ["nano", ""])
@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_an_altered_file_is_told_by_its_name(name: str, recipe: str, package: Path) -> None:
    file = package / "nano" / "checkpoint" / name
    file.write_bytes(file.read_bytes()[:1000])  # neither can be read
    brain = brain_of(checkpoint="nano", recipe=recipe)
    with pytest.raises(CheckpointError, match=rf"of \d+ files, {name} has other bytes"):
        brain.open(SessionSetup())
