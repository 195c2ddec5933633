"""Voices by name, heard once."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros.errors import CheckpointError, ConfigError, InputError
from minicpmo_ros.model.mel import mirrored_log_mel
from minicpmo_ros.model.voice_features import fbank, prompt_mel
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.voices import cache as module
from minicpmo_ros.runtime.voices.assets import SPEAKER, TOKENIZER, VoiceAssets
from minicpmo_ros.runtime.voices.cache import VoiceCache
from minicpmo_ros.runtime.voices.library import VoiceLibrary
from minicpmo_ros.runtime.voices.reference import ReferenceVoice, hear
from minicpmo_ros.runtime.voices.sound import VoiceSound
from tests.runtime.voices.networks import SpeakerNetwork, Tokenizer
from tests.runtime.voices.sounds import speech, spoken, written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "voices").mkdir()
    return tmp_path / "voices"


@pytest.fixture
def cache(tmp_path: Path) -> VoiceCache:
    return VoiceCache(EngineCache(tmp_path / "engines"))


@pytest.fixture
def library(folder: Path, assets: VoiceAssets, cache: VoiceCache) -> VoiceLibrary:
    return VoiceLibrary(folder, assets, cache)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the voices for which a network had to run."""
    names: list[str] = []
    hear = module.hear

    def noted(name: str, *given: object) -> ReferenceVoice:
        names.append(name)
        return hear(name, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "hear", noted)
    return names


def assert_same(one: ReferenceVoice, other: ReferenceVoice) -> None:
    assert np.array_equal(one.tokens, other.tokens)
    assert np.array_equal(one.speaker, other.speaker)
    assert np.array_equal(one.mel, other.mel)
    assert one.notes == other.notes


# -- what is heard --------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [16_000, 24_000])
@pytest.mark.parametrize("samples", [48_000, 48_160, 48_320, 48_479, 48_500])
def test_a_voice_is_tokens_speaker_and_mel_of_twice_as_many_frames(
    library: VoiceLibrary, folder: Path, samples: int, rate_hz: int
) -> None:
    sound = speech(5, rate_hz)[:samples]
    written(folder / "anna.wav", sound, rate_hz)
    voice = library.get("anna")
    count = -(-(round(samples * 16_000 / rate_hz) // 160) // 4)
    assert voice.name == "anna" and voice.notes == ()
    assert voice.tokens.dtype == np.int64 and voice.tokens.shape == (count,)
    assert voice.speaker.dtype == np.float32 and voice.speaker.shape == (192,)
    assert voice.mel.dtype == np.float32 and voice.mel.shape == (2 * count, 80)
    assert voice.seconds == count / 25
    if rate_hz == 16_000:
        assert np.array_equal(voice.tokens, Tokenizer()(mirrored_log_mel(sound)))
        assert np.allclose(voice.speaker, SpeakerNetwork()(fbank(sound)), atol=1e-4)
    else:
        mel = prompt_mel(sound)
        assert np.array_equal(voice.mel[: len(mel)], mel)
        assert (voice.mel[len(mel) :] == mel[-1]).all() and 2 * count - len(mel) in (0, 1, 2)


def test_what_is_not_well_with_a_recording_is_kept_with_its_voice(
    library: VoiceLibrary, folder: Path, heard: list[str]
) -> None:
    written(folder / "anna.wav", np.stack([np.clip(9 * speech(20), -1, 1)] * 2, axis=1), 16_000)
    first, second = library.get("anna"), library.get("anna")
    assert heard == ["anna"]
    assert [note.split(" ")[1] for note in first.notes] == ["2", "is", "20.00"]
    assert_same(first, second)


def test_a_mel_of_too_many_frames_is_cut_to_the_tokens(assets: VoiceAssets) -> None:
    """Rates are rounded apart."""
    voice = hear("anna", VoiceSound(speech(2), speech(2.1, 24_000)), assets)
    assert voice.mel.shape == (100, 80)
    assert np.array_equal(voice.mel, prompt_mel(speech(2.1, 24_000))[:100])


def test_arrays_that_are_no_voice_are_refused_by_name() -> None:
    tokens, speaker, mel = np.zeros(5, np.int64), np.ones(192, np.float32), np.ones((10, 80))
    with pytest.raises(InputError, match=r"mel of the voice 'a' is float64 \[10, 80\]; float32"):
        ReferenceVoice("a", tokens, speaker, mel)
    with pytest.raises(InputError, match=r"mel of the voice 'a' is .*\[9, 80\]; .*\[10, 80\]"):
        ReferenceVoice("a", tokens, speaker, mel[:9].astype(np.float32))


# -- heard once -----------------------------------------------------------------------------


def test_a_voice_is_heard_once_and_by_no_network_again(
    library: VoiceLibrary, folder: Path, assets: VoiceAssets, cache: VoiceCache, monkeypatch
) -> None:
    spoken(folder / "anna.wav")
    first = library.get("anna")
    for name in ("tokens", "speaker"):
        monkeypatch.setattr(VoiceAssets, name, None)
    monkeypatch.setattr(module, "read_voice_sound", None)
    assert_same(VoiceLibrary(folder, assets, cache).get("anna"), first)


def test_another_recording_is_heard_and_another_name_is_not(
    library: VoiceLibrary, folder: Path, heard: list[str]
) -> None:
    first = library.get(spoken(folder / "anna.wav").stem)
    (folder / "anna.wav").rename(folder / "berta.wav")
    renamed = library.get("berta")
    assert renamed.name == "berta" and heard == ["anna"]
    assert_same(renamed, first)
    spoken(folder / "berta.wav", seed=1)
    assert not np.array_equal(library.get("berta").mel, first.mel)
    assert heard == ["anna", "berta"]


@pytest.mark.parametrize(("name", "network"), [(TOKENIZER, Tokenizer), (SPEAKER, SpeakerNetwork)])
def test_other_networks_hear_anew(
    library: VoiceLibrary, folder: Path, assets: VoiceAssets, heard: list[str], name: str, network
) -> None:
    first = library.get(spoken(folder / "anna.wav").stem)
    network(seed=7).write(assets.folder / name)
    second = library.get("anna")
    assert heard == ["anna"] * 2
    field = {TOKENIZER: "tokens", SPEAKER: "speaker"}[name]
    assert not np.array_equal(getattr(first, field), getattr(second, field))


def test_a_new_way_of_hearing_hears_anew(
    library: VoiceLibrary, folder: Path, heard: list[str], monkeypatch
) -> None:
    library.get(spoken(folder / "anna.wav").stem)
    monkeypatch.setattr(module, "VERSION", "next")
    library.get("anna")
    assert heard == ["anna"] * 2


@pytest.mark.parametrize("damage", ["changed", "said to be encrypted", "cut", "gone"])
def test_a_damaged_entry_is_heard_again_and_mended(
    library: VoiceLibrary, folder: Path, cache: VoiceCache, heard: list[str], damage: str
) -> None:
    first = library.get(spoken(folder / "anna.wav").stem)
    (file,) = cache.folder.glob("*/voice.npz")
    content = bytearray(file.read_bytes())
    content[content.rfind(b"PK\1\2") + 8 if "said" in damage else len(content) // 2] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-100] if damage == "cut" else content)
    assert_same(library.get("anna"), first)
    assert_same(library.get("anna"), first)
    assert heard == ["anna"] * 2


def test_a_cache_that_cannot_be_written_to_costs_a_line_in_the_log(
    folder: Path, assets: VoiceAssets, tmp_path: Path, heard: list[str], caplog
) -> None:
    (tmp_path / "engines").write_text("no folder")
    library = VoiceLibrary(folder, assets, VoiceCache(EngineCache(tmp_path / "engines")))
    spoken(folder / "anna.wav")
    with caplog.at_level(logging.WARNING):
        assert_same(library.get("anna"), library.get("anna"))
    assert heard == ["anna"] * 2
    assert "the voice 'anna' cannot be kept" in caplog.text


def test_a_user_without_a_folder_for_engines_has_voices(
    folder: Path, assets: VoiceAssets, heard: list[str], caplog, monkeypatch
) -> None:
    """As in a container whose user has no home directory."""
    monkeypatch.setenv("MINICPMO_ENGINES", "~nobody-of-this-name/engines")
    with caplog.at_level(logging.WARNING):
        library = VoiceLibrary(folder, assets, VoiceCache())
    assert "no voice can be kept" in caplog.text
    spoken(folder / "anna.wav")
    assert_same(library.get("anna"), library.get("anna"))
    assert heard == ["anna"] * 2


def test_voices_lie_beside_engines_where_the_user_has_them(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MINICPMO_ENGINES", str(tmp_path / "here"))
    assert VoiceCache().folder == tmp_path / "here" / "voices"


def test_a_voice_that_was_refused_leaves_nothing(
    library: VoiceLibrary, folder: Path, cache: VoiceCache
) -> None:
    written(folder / "mute.wav", np.zeros(32_000, np.float32))
    for _ in range(2):
        with pytest.raises(InputError, match=r"mute\.wav: .*silent"):
            library.get("mute")
    assert not list(cache.folder.glob("*/*"))


def test_without_the_networks_it_says_so_even_for_a_voice_that_was_heard(
    library: VoiceLibrary, folder: Path, assets: VoiceAssets
) -> None:
    """What it would be to another network is not known."""
    library.get(spoken(folder / "anna.wav").stem)
    (assets.folder / SPEAKER).unlink()
    with pytest.raises(CheckpointError, match=r"campplus\.onnx is missing"):
        library.get("anna")


# -- names ----------------------------------------------------------------------------------


def test_voices_are_named_as_their_files(library: VoiceLibrary, folder: Path) -> None:
    assert library.names() == []
    for name in ("berta.flac", "anna.b.WAV", "Carl.ogg"):
        spoken(folder / name)
    for name in ("notes.txt", ".hidden.wav", "model.onnx", "wav"):
        (folder / name).write_text("no voice")
    (folder / "folder.wav").mkdir()
    assert library.names() == ["Carl", "anna.b", "berta"]
    assert [library.get(name).name for name in library.names()] == ["Carl", "anna.b", "berta"]


def test_a_link_to_a_file_is_a_voice(library: VoiceLibrary, folder: Path, tmp_path: Path) -> None:
    (folder / "anna.wav").symlink_to(spoken(tmp_path / "elsewhere.wav"))
    (folder / "berta.wav").symlink_to(tmp_path / "nowhere.wav")
    assert library.names() == ["anna"]
    assert library.get("anna").name == "anna"


@pytest.mark.parametrize("name", ["dora", "", "anna.wav", "../voices/anna", "ANNA"])
def test_an_unknown_name_is_answered_with_those_that_are_known(
    library: VoiceLibrary, folder: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match=r"there is none: put \.wav, \.flac, \.ogg files there"):
        library.get(name)
    for known in ("berta", "anna"):
        spoken(folder / f"{known}.wav")
    with pytest.raises(ConfigError, match=rf"no voice '{name}' in .*; there is anna, berta$"):
        library.get(name)


def test_two_files_of_one_name_are_refused_with_both(library: VoiceLibrary, folder: Path) -> None:
    spoken(folder / "anna.wav")
    spoken(folder / "anna.flac")
    assert library.names() == ["anna"]
    with pytest.raises(ConfigError, match=r"more than one file, anna\.flac and anna\.wav; rename"):
        library.get("anna")


def test_a_folder_that_is_none_is_named(tmp_path: Path, assets: VoiceAssets) -> None:
    (tmp_path / "file").write_text("")
    for name in ("gone", "file"):
        library = VoiceLibrary(tmp_path / name, assets)
        for use in (library.names, lambda library=library: library.get("anna")):
            with pytest.raises(ConfigError, match=rf"voices .*{name} cannot be read .*make it"):
                use()
