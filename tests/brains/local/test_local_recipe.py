"""The local brain with a recipe: settings that it brings, units without torch, and what is said
where it cannot be built or fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.brains.api import ChatRequest, SessionSetup
from minicpmo_ros.brains.build import OmniSettings, make_brain
from minicpmo_ros.errors import ConfigError, EngineError, MinicpmoError
from minicpmo_ros.messages import Action
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.runtime import load
from minicpmo_ros.runtime.engines import recipe, room
from minicpmo_ros.runtime.engines.planning import run_memory
from minicpmo_ros.runtime.ort import stages as ort
from tests.brains.local.robot import NOBODY, picture, second
from tests.built_network import write_recipe
from tests.vocoder_assets import write_assets


def brain_of(**settings: Any):
    """The brain as the omni node makes it, without a reserve unless that is asked for."""
    return make_brain(OmniSettings(**{"brain": "local", "fallback": "none", **settings}), None)


def config_of(**settings: Any):
    return brain_of(**settings).config


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A recipe of its own, in single precision."""
    window = {"kind": "basic", "high": 450, "low": 300}
    return write_recipe(tmp_path / "own.yaml", kv_capacity=512, window=window)


@pytest.fixture
def settings(tiny_checkpoint: Path, own: Path, engines: Path, monkeypatch) -> dict[str, Any]:
    """Of a brain over what is built in the tests' own cache."""
    monkeypatch.setenv("MINICPMO_ENGINES", str(engines))
    return {"checkpoint": str(tiny_checkpoint), "recipe": str(own), "forced_listens": 0}


# -- settings -------------------------------------------------------------------------------


def test_without_a_recipe_the_context_is_that_of_the_demo() -> None:
    config = config_of(checkpoint="one/of/ones/own")
    duplex = config.duplex
    assert config.recipe is None
    assert duplex.kv_capacity == 8192
    window = duplex.window
    assert (window.mode, window.high_tokens, window.low_tokens) == ("basic", 4000, 3500)


# Sizes that fit together, whoever says which of them.
LOW, HIGH, CAPACITY = (st.integers(a, b) for a, b in ((1, 300), (300, 600), (600, 5000)))


@given(
    st.tuples(CAPACITY, HIGH, LOW),
    st.tuples(*(st.one_of(st.just(0), size) for size in (CAPACITY, HIGH, LOW))),
    st.sampled_from(["basic", "context", "off"]),
    st.sampled_from(["auto", "basic", "context", "off"]),
)
def test_parameters_go_before_the_recipe_one_by_one(
    tmp_path_factory, says, asked, kind, window
) -> None:
    file = write_recipe(
        tmp_path_factory.getbasetemp() / "any.yaml",
        kv_capacity=says[0],
        window={"kind": kind, "high": says[1], "low": says[2]},
    )
    names = ("kv_capacity", "window_high_tokens", "window_low_tokens")
    duplex = config_of(
        recipe=str(file), window=window, **dict(zip(names, asked, strict=True))
    ).duplex
    found = (duplex.kv_capacity, duplex.window.high_tokens, duplex.window.low_tokens)
    assert found == tuple(mine or its for mine, its in zip(asked, says, strict=True))
    assert duplex.window.mode == (kind if window == "auto" else window)


def test_the_recipe_says_the_steps_of_the_vocoder_where_the_parameter_does_not(tmp_path) -> None:
    file = str(write_recipe(tmp_path / "quick.yaml", vocoder={"steps": 3}))
    assert config_of(recipe=file).speech_steps == 3
    assert config_of(recipe=file, speech_steps=5).speech_steps == 5
    assert config_of(recipe="cpu").speech_steps == 10
    assert config_of(checkpoint="one/of/ones/own").speech_steps == 10


def test_the_checkpoint_that_ships_runs_by_its_own_recipe() -> None:
    chosen = config_of(checkpoint="nano").recipe
    assert chosen is not None and chosen.name == "nano"
    assert config_of(checkpoint="nano", recipe="cpu").recipe.name == "cpu"
    assert config_of(checkpoint="nano", device="cpu").recipe is None
    assert config_of(checkpoint="other").recipe is None


@pytest.mark.parametrize("parameter", [{"device": "cpu"}, {"precision": "fp32"}])
def test_what_the_recipe_says_itself_is_refused_beside_it(parameter) -> None:
    (name,) = parameter
    with pytest.raises(ConfigError, match=f"{name}: .* has no effect with the recipe 'cpu'"):
        config_of(recipe="cpu", **parameter)


def test_engines_of_tensorrt_hold_no_more_than_they_were_built_for() -> None:
    most = recipe.load("rtx").kv_capacity
    assert config_of(recipe="rtx", kv_capacity=most).duplex.kv_capacity == most
    with pytest.raises(ConfigError, match=rf"kv_capacity: {most + 1} is above the {most} tokens"):
        config_of(recipe="rtx", kv_capacity=most + 1)
    assert config_of(recipe="cpu", kv_capacity=2 * most).duplex.kv_capacity == 2 * most


@pytest.mark.parametrize("name", ["", "cpu"])
def test_a_context_too_small_for_a_prompt_is_refused(name: str) -> None:
    assert config_of(recipe=name, kv_capacity=128, window="off").duplex.kv_capacity == 128
    with pytest.raises(ConfigError, match="kv_capacity: 127 must be 128 or more, or 0"):
        config_of(recipe=name, kv_capacity=127, window="off")


def test_an_unknown_recipe_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"recipe 'cpus' is unknown \(did you mean 'cpu'\?\)"):
        config_of(recipe="cpus")


def test_a_wrong_key_is_told_with_the_file(tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "own.yaml", kv_capasity=512)
    with pytest.raises(ConfigError, match=r"own\.yaml: key 'kv_capasity' is unknown"):
        config_of(recipe=str(file))


# -- units ----------------------------------------------------------------------------------


def test_it_says_what_runs_and_how_far_it_is(settings) -> None:
    brain = brain_of(**settings)
    told: list[tuple[str, float]] = []
    brain.progress = lambda what, share: told.append((what, share))
    brain.open(SessionSetup())
    assert brain.about.startswith("recipe own on onnxruntime, weights of ")
    assert "KV cache of 512 tokens" in brain.about
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == 1.0
    # As it stands behind "loading local:".
    assert {"vision", "llm.01", "speech.head"} <= {what for what, _ in told}


@pytest.mark.parametrize("assets", [False, True])
def test_what_holds_loading_up_is_shown_and_logged(
    assets: bool, settings, own_checkpoint, monkeypatch, caplog
) -> None:
    def held_up(*given: Any, progress: Any, say: Any, **how: Any) -> Any:
        progress("building vision", 0.5)
        say("waiting for process 7")
        progress("building the next", 0.25)
        progress("llm.00", 1.0)
        raise EngineError("no")

    monkeypatch.setattr(load, "load_network", held_up)
    if assets:
        write_assets(own_checkpoint)
    brain = brain_of(**{**settings, "checkpoint": str(own_checkpoint)})
    told: list[tuple[str, float]] = []
    brain.progress = lambda what, share: told.append((what, share))
    with pytest.raises(EngineError, match="no"):
        brain.open(SessionSetup())
    end = 0.8 if assets else 1.0  # then the vocoder comes
    assert told == [
        ("building vision", end / 2),
        ("waiting for process 7", end / 2),
        ("building the next", end / 2),
        ("llm.00", end),
    ]
    assert "waiting for process 7" in caplog.messages


def test_threads_of_the_parameter_go_before_those_of_the_recipe(settings, monkeypatch) -> None:
    threads = []
    session = ort.session

    def noted(file: Path, count: int = 0, *more: Any) -> Any:
        threads.append(count)
        return session(file, count, *more)

    monkeypatch.setattr(ort, "session", noted)
    brain_of(**settings).open(SessionSetup())
    assert set(threads) == {1}
    threads.clear()
    brain_of(**settings, threads=2).open(SessionSetup())
    assert set(threads) == {2}


@pytest.mark.parametrize("mode", ["duplex", "streaming"])
def test_it_decides_as_torch_does(settings, mode: str) -> None:
    found = []
    for name in (settings["recipe"], ""):
        more = {} if name else {"precision": "fp32", "kv_capacity": 512}
        more |= {"window_high_tokens": 450, "window_low_tokens": 300}
        brain = brain_of(**{**settings, **more, "recipe": name})
        brain.open(SessionSetup(mode=mode, seed=3))
        results = [brain.unit(second(k, picture(k + 0.5)), NOBODY) for k in range(3)]
        said = [(r.action, r.text, r.kv_length, r.kv_capacity) for r in results]
        answer = "".join(brain.chat(ChatRequest("What is that?", max_tokens=12)))
        found.append((said, answer, [r.p_listen for r in results]))
        brain.close()
    assert found[0][:2] == found[1][:2]
    np.testing.assert_allclose(found[0][2], found[1][2], rtol=1e-4)


def test_units_need_no_torch(settings) -> None:
    """In a process of its own, once all is built."""
    brain_of(**settings).open(SessionSetup())
    code = f"""
import json, sys
sys.modules["torch"] = sys.modules["onnx"] = None  # as if they were not installed
from minicpmo_ros.brains.api import SessionSetup
from minicpmo_ros.brains.build import OmniSettings, make_brain
from tests.brains.local.robot import NOBODY, picture, second
brain = make_brain(OmniSettings(brain="local", fallback="none", **{settings!r}), None)
brain.open(SessionSetup())
results = [brain.unit(second(k, picture(k + 0.5)), NOBODY) for k in range(2)]
brain.settle()
assert not {{"transformers", "onnxscript"}} & set(sys.modules)
print(json.dumps([(r.text, r.kv_length, r.p_listen) for r in results]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    brain = brain_of(**settings)
    brain.open(SessionSetup())
    results = [brain.unit(second(k, picture(k + 0.5)), NOBODY) for k in range(2)]
    assert json.loads(done.stdout) == [[r.text, r.kv_length, r.p_listen] for r in results]


# -- what cannot be -------------------------------------------------------------------------


def test_what_cannot_be_built_here_is_told_and_can_be_tried_again(
    settings, engines, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("MINICPMO_ENGINES", str(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    brain = brain_of(**settings)
    with pytest.raises(EngineError, match=r"pip install 'minicpmo_ros\[model,export\]'"):
        brain.open(SessionSetup())
    assert not list((tmp_path / "empty").glob("*/stage.onnx"))
    monkeypatch.setenv("MINICPMO_ENGINES", str(engines))
    brain.open(SessionSetup())
    assert np.isfinite(brain.unit(second(0), NOBODY).p_listen)


def test_a_library_that_is_missing_is_told_before_anything_is_built(
    settings, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("MINICPMO_ENGINES", str(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr("minicpmo_ros.runtime.trt.library._loaded", {})
    with pytest.raises(EngineError, match=r"tensorrt"):
        brain_of(**{**settings, "recipe": "rtx"}).open(SessionSetup())
    assert not (tmp_path / "empty").exists()


def test_memory_is_asked_for_the_context_that_there_will_be(settings, monkeypatch) -> None:
    """That of the parameter: what a machine is too small for can be made to fit without another
    recipe."""
    large = {**settings, "kv_capacity": 2000}
    brain_of(**large).open(SessionSetup())
    sizes, wanted = ModelConfig.load(settings["checkpoint"]), recipe.load(settings["recipe"])
    have = run_memory(sizes, wanted, 1500).total
    monkeypatch.setattr(room, "total_bytes", lambda: have)
    with pytest.raises(EngineError, match=r"2000 tokens of context .* kv_capacity: 1280 would fit"):
        brain_of(**large).open(SessionSetup())
    brain_of(**{**large, "kv_capacity": 1280}).open(SessionSetup())
    # What the recipe says itself counts where the parameter says nothing.
    monkeypatch.setattr(room, "total_bytes", lambda: run_memory(sizes, wanted, 511).total)
    with pytest.raises(EngineError, match=r"512 tokens of context"):
        brain_of(**settings).open(SessionSetup())


class Broken:
    """What onnxruntime gives for its runs of a stage, once `how` says so."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.how = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, outputs: Any, feed: dict[str, Any], *options: Any) -> list[np.ndarray]:
        if self.how == "raises":
            # Its own error, of its own kind.
            return self._session.run(outputs, {})
        found = self._session.run(outputs, feed, *options)
        return [one * np.nan for one in found] if self.how == "nan" else found


@pytest.mark.parametrize(("how", "told"), [("nan", "NumericsError"), ("raises", "hidden")])
def test_a_reserve_decides_while_the_runtime_fails(settings, monkeypatch, how, told) -> None:
    made: list[Broken] = []
    session = ort.session

    def broken(file: Path, *more: Any) -> Broken:
        made.append(Broken(session(file, *more)))
        return made[-1]

    monkeypatch.setattr(ort, "session", broken)
    more = {"fallback": "reflex", "fallback_failures": 2, "fallback_retry_units": 2}
    brain = brain_of(**{**settings, **more})
    brain.open(SessionSetup())
    assert brain.name == "local"
    first = brain.unit(second(0), NOBODY)
    brain.settle()
    for one in made:
        if [given.name for given in one.get_inputs()] == ["hidden"]:
            one.how = how
    with pytest.raises(Exception, match="NaN" if how == "nan" else told):
        brain.unit(second(1), NOBODY)
    results = [brain.unit(second(k), NOBODY) for k in (2, 3)]
    assert {result.action for result in results} == {Action.LISTEN}
    assert brain.name == "reflex"
    assert "local failed" in brain.trouble
    assert told in brain.trouble
    for one in made:
        one.how = ""
    back = brain.unit(second(4), NOBODY)
    assert brain.name == "local"
    assert "local is back" in back.reason
    assert np.isfinite(back.p_listen)
    assert back.kv_length == first.kv_length  # a session of its own


def test_a_recipe_that_cannot_be_built_gives_the_reserve_no_chance_to_hide_it(
    settings, tmp_path, monkeypatch
) -> None:
    """As any brain that cannot begin: the first opening fails."""
    monkeypatch.setenv("MINICPMO_ENGINES", str(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(MinicpmoError, match="building needs"):
        brain_of(**settings, fallback="reflex").open(SessionSetup())
