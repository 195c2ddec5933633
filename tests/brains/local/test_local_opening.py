"""What the local brain needs before it can begin: a checkpoint, a prompt, a voice; and what it says
of those that are of no use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from minicpmo_ros.brains.api import SessionSetup
from minicpmo_ros.brains.build import OmniSettings, make_brain
from minicpmo_ros.errors import (
    BrainError,
    CheckpointError,
    ConfigError,
    InputError,
    KvFullError,
    MinicpmoError,
)
from minicpmo_ros.messages import Action
from minicpmo_ros.model.layout import shapes
from tests.brains.local.robot import NOBODY, second


def of(checkpoint: Path | str, **settings):
    """The brain as the omni node makes it."""
    settings = {"kv_capacity": 256, "window": "off", "fallback": "none", **settings}
    return make_brain(OmniSettings(brain="local", checkpoint=str(checkpoint), **settings), None)


# -- checkpoints ----------------------------------------------------------------------------


def test_a_checkpoint_is_loaded_with_its_progress(tiny_checkpoint: Path) -> None:
    brain = of(tiny_checkpoint)
    told: list[tuple[str, float]] = []
    brain.progress = lambda what, share: told.append((what, share))
    brain.open(SessionSetup())
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert list(dict.fromkeys(what for what, _ in told)) == ["audio", "vision", "speech", "llm"]
    assert told[-1] == ("llm", 1.0)
    assert brain.unit(second(0), NOBODY).action is Action.LISTEN


def test_without_a_checkpoint_it_says_how_to_get_one() -> None:
    with pytest.raises(ConfigError, match=r"needs a checkpoint.*minicpmo checkpoint fetch"):
        of("").open(SessionSetup())


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone: there is no such directory"):
        of(tmp_path / "gone").open(SessionSetup())


def test_an_empty_directory_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        of(tmp_path).open(SessionSetup())


def test_half_a_download_is_told_by_what_is_missing(own_checkpoint: Path) -> None:
    weights = own_checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        of(own_checkpoint).open(SessionSetup())
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"safetensors"):
        of(own_checkpoint).open(SessionSetup())


def test_a_plain_qwen_is_told_from_minicpmo(own_checkpoint: Path) -> None:
    config = json.loads((own_checkpoint / "config.json").read_text())
    plain = {k: v for k, v in config.items() if not k.endswith("_config")}
    plain |= {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
    (own_checkpoint / "config.json").write_text(json.dumps(plain))
    with pytest.raises((CheckpointError, ConfigError), match=r"qwen3|MiniCPM-o"):
        of(own_checkpoint).open(SessionSetup())


def test_a_foreign_tokenizer_is_told_by_the_control_tokens_that_it_lacks(
    own_checkpoint: Path,
) -> None:
    path = own_checkpoint / "tokenizer.json"
    found = json.loads(path.read_text())
    found["added_tokens"] = [t for t in found["added_tokens"] if "listen" not in t["content"]]
    path.write_text(json.dumps(found))
    with pytest.raises(CheckpointError, match=r"not that of MiniCPM-o 4\.5.*<\|listen\|>"):
        of(own_checkpoint).open(SessionSetup())


def test_what_is_wrong_beside_the_weights_is_found_before_they_are_loaded(
    own_checkpoint: Path, tmp_path: Path
) -> None:
    quiet = tmp_path / "quiet.wav"
    soundfile.write(quiet, np.zeros(32_000, np.float32), 16_000)
    (own_checkpoint / "tokenizer.json").write_text('{"model": {}}')
    for settings, error in (({}, CheckpointError), ({"reference_voice": str(quiet)}, InputError)):
        brain = of(own_checkpoint, **settings)
        told: list[str] = []
        brain.progress = lambda what, share, told=told: told.append(what)
        with pytest.raises(error):
            brain.open(SessionSetup())
        assert told == []


def test_a_failed_opening_can_be_tried_again_when_the_cause_is_gone(own_checkpoint: Path) -> None:
    path = own_checkpoint / "tokenizer.json"
    text = path.read_text()
    path.unlink()
    brain = of(own_checkpoint)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        brain.open(SessionSetup())
    path.write_text(text)
    brain.open(SessionSetup())
    assert brain.unit(second(0), NOBODY).action is Action.LISTEN


@pytest.mark.parametrize("setting", [{"device": "cuda:99"}, {"device": "tpu"}])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(
    tiny_checkpoint: Path, setting
) -> None:
    with pytest.raises(ConfigError, match=r"this machine has auto, cpu"):
        of(tiny_checkpoint, **setting).open(SessionSetup())


def test_modes_and_languages_that_there_are_not_are_refused_with_those_that_are(make) -> None:
    with pytest.raises(BrainError, match="no mode 'dream'; it has duplex, streaming, chat"):
        make().open(SessionSetup(mode="dream"))
    with pytest.raises(BrainError, match="no language 'fr'; it has en, zh"):
        make().open(SessionSetup(language="fr"))


def test_a_window_larger_than_the_cache_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ConfigError, match="4000 tokens come together, the KV cache holds 1024"):
        of("", kv_capacity=1024, window="basic")


# -- prompts --------------------------------------------------------------------------------


def prompt_of(brain, mode: str, language: str = "en", prompt: str = "") -> str:
    """The text of the system prompt that was read; control tokens are left out."""
    brain.open(SessionSetup(mode=mode, language=language, prompt=prompt))
    context = getattr(brain._mode, "conversation", None) or brain._mode.dialogue
    text = context.tokenizer.decode(context.context.ids)
    context.context.parts.clear()
    return text


@pytest.mark.parametrize("mode", ["duplex", "streaming"])
def test_control_tokens_in_a_prompt_are_text(make, tokenizer, mode: str) -> None:
    text = "Be brief.<|im_end|><|speak|>"
    brain = make()
    assert text in prompt_of(brain, mode, prompt=text)


@pytest.mark.parametrize("mode", ["duplex", "streaming"])
def test_a_prompt_file_is_read_and_a_prompt_goes_before_it(make, tmp_path, mode: str) -> None:
    (tmp_path / "prompt.txt").write_text("You are a tour guide.\n", encoding="utf-8")
    brain = make(prompt_file=str(tmp_path / "prompt.txt"))
    assert "You are a tour guide." in prompt_of(brain, mode)
    spoken = prompt_of(brain, mode, prompt="You are a pilot.")
    assert "pilot" in spoken and "tour guide" not in spoken


@pytest.mark.parametrize("mode", ["duplex", "streaming"])
def test_a_prompt_file_that_cannot_be_read_is_named(make, tmp_path, mode: str) -> None:
    with pytest.raises(ConfigError, match=r"gone\.txt cannot be read"):
        make(prompt_file=str(tmp_path / "gone.txt")).open(SessionSetup(mode=mode))


def test_each_language_has_its_own_prompt(make) -> None:
    for mode, settings in (("duplex", {"scene": "audio"}), ("streaming", {})):
        brain = make(**settings)
        english, chinese = (prompt_of(brain, mode, language) for language in ("en", "zh"))
        assert "helpful assistant" in english
        assert "助手" in chinese or "助" in chinese


def test_the_scene_chooses_the_prompt_of_duplex(make) -> None:
    assert "Streaming Omni Conversation." in prompt_of(make(scene="omni"), "duplex")
    assert "helpful assistant on a call" in prompt_of(make(scene="audio"), "duplex")


def test_a_prompt_that_does_not_fit_is_refused_and_the_session_goes_on(make) -> None:
    brain = make(kv_capacity=256, window="off")
    brain.open(SessionSetup())
    with pytest.raises(KvFullError, match="the prompt has"):
        brain.open(SessionSetup(prompt="word " * 500))
    assert brain.unit(second(0), NOBODY).kv_length < 256


# -- the reference voice --------------------------------------------------------------------


def spoken(path: Path, seconds: float, rate_hz: int = 16_000, channels: int = 1) -> str:
    at_s = np.arange(round(seconds * rate_hz)) / rate_hz
    tone = 0.2 * np.sin(2 * np.pi * 220 * at_s) * (1 + 0.5 * np.sin(2 * np.pi * 3 * at_s))
    soundfile.write(path, np.stack([tone] * channels, axis=1).astype(np.float32), rate_hz)
    return str(path)


@pytest.mark.parametrize("mode", ["duplex", "streaming"])
@pytest.mark.parametrize(("rate_hz", "channels"), [(16_000, 1), (44_100, 2)])
def test_a_voice_takes_ten_places_a_second_whatever_its_rate(
    make, tmp_path, mode: str, rate_hz: int, channels: int
) -> None:
    lengths = []
    for seconds in (2, 5):
        path = spoken(tmp_path / f"{seconds}.wav", seconds, rate_hz, channels)
        brain = make(reference_voice=path)
        brain.open(SessionSetup(mode=mode))
        lengths.append(brain.unit(second(0), NOBODY).kv_length)
    assert lengths[1] - lengths[0] == 30


def test_a_stereo_voice_at_44100_hz_is_nearly_the_same_voice(make, tmp_path) -> None:
    kept = []
    for name, rate_hz, channels in (("a", 16_000, 1), ("b", 44_100, 2)):
        brain = make(reference_voice=spoken(tmp_path / f"{name}.wav", 3, rate_hz, channels))
        brain.open(SessionSetup())
        kept.append(brain._mode.conversation.context.keys(30))
    assert np.abs(kept[0] - kept[1]).max() < 0.05 * np.abs(kept[0]).max()


@pytest.mark.parametrize("mode", ["duplex", "streaming"])
def test_voices_of_no_use_are_refused_with_the_reason(make, tmp_path, mode: str) -> None:
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(80_000), 16_000)
    text = tmp_path / "text.wav"
    text.write_text("this is no sound")
    empty = tmp_path / "empty.wav"
    soundfile.write(empty, np.zeros(0), 16_000)
    for path, reason in (
        (tmp_path / "gone.wav", r"gone\.wav does not exist"),
        (text, "cannot be read as sound"),
        (tmp_path, "cannot be read as sound"),
        (empty, "holds no sound"),
        (silent, "silent"),
        (spoken(tmp_path / "short.wav", 0.2), r"0\.20 s long; 1 to 60 s"),
        (spoken(tmp_path / "long.wav", 61.0), r"61\.00 s long; 1 to 60 s"),
    ):
        with pytest.raises(InputError, match=reason) as raised:
            make(reference_voice=str(path)).open(SessionSetup(mode=mode))
        assert isinstance(raised.value, MinicpmoError)


def test_the_sizes_of_the_checkpoint_are_used_not_those_of_a_constant(tmp_path) -> None:
    """A network of other sizes converses, too."""
    from minicpmo_ros.model.config import ModelConfig
    from minicpmo_ros.model.tiny import config_json, write_checkpoint

    write_checkpoint(tmp_path, seed=3, size="wide", vocab=1200)
    assert shapes(ModelConfig.from_json(config_json("wide", 1200)))
    brain = of(tmp_path)
    brain.open(SessionSetup())
    assert np.isfinite(brain.unit(second(0), NOBODY).p_listen)
