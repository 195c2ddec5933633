"""espeak-ng speaks: repeatable samples, marks where the words are, any text, clear errors."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import ConfigError, DeviceError
from minicpmo_ros.media.espeak import Synthesiser, list_voices

SENTENCE = "I heard a loud sound, and it is dark."

try:
    list_voices()
except DeviceError as missing:
    pytest.skip(str(missing), allow_module_level=True)


@pytest.fixture(scope="module")
def english() -> Synthesiser:
    return Synthesiser("en-us")


def test_speech_is_audible_mono_and_of_a_plausible_length(english):
    utterance = english.speak(SENTENCE)
    assert utterance.data.dtype == np.int16
    assert utterance.data.ndim == 1
    assert utterance.rate_hz == 24_000
    assert utterance.text == SENTENCE
    assert 1.5 < utterance.duration_s < 4.0
    assert 3_000 < np.abs(utterance.data.astype(int)).max() < 32_767


@given(before=st.lists(st.text(max_size=30), max_size=3), text=st.text(min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_the_same_text_is_the_same_samples_whatever_was_spoken_before(before, text):
    english = Synthesiser("en-us")
    first = english.speak(text)
    for other in before:
        english.speak(other)
    again = english.speak(text)
    assert np.array_equal(first.data, again.data)
    assert first.words == again.words


@pytest.mark.parametrize("voice", ["en-us", "de", "en-us+whisper", "en-us+klatt"])
def test_voices_do_not_disturb_one_another(voice, english):
    synthesiser = Synthesiser(voice)
    first = synthesiser.speak(SENTENCE)
    english.speak("Something else entirely.")
    Synthesiser("fr", rate_wpm=300, pitch=90).speak("Bonjour.")
    assert np.array_equal(synthesiser.speak(SENTENCE).data, first.data)


def test_another_process_speaks_the_same_samples(english):
    code = (
        "import sys; from minicpmo_ros.media.espeak import Synthesiser; "
        f"sys.stdout.buffer.write(Synthesiser('en-us').speak({SENTENCE!r}).data.tobytes())"
    )
    spoken = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert spoken == english.speak(SENTENCE).data.tobytes()


def test_a_process_that_holds_the_library_for_itself_disturbs_nothing(english):
    code = (
        "import ctypes, sys; theirs = ctypes.CDLL('libespeak-ng.so.1'); "
        "theirs.espeak_Initialize(2, 0, None, 0x8000); "
        "from minicpmo_ros.media.espeak import Synthesiser; english = Synthesiser('en-us'); "
        f"said = [english.speak({SENTENCE!r}).data.tobytes() for _ in range(3)]; "
        "assert said[0] == said[1] == said[2]; sys.stdout.buffer.write(said[0])"
    )
    spoken = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, timeout=60
    ).stdout
    assert spoken == english.speak(SENTENCE).data.tobytes()


def test_threads_may_share_a_synthesiser(english):
    alone = english.speak(SENTENCE).data
    spoken: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: spoken.append(english.speak(SENTENCE).data))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(spoken) == 4
    assert all(np.array_equal(data, alone) for data in spoken)


@pytest.mark.parametrize(
    "text",
    [
        SENTENCE,
        'The state-of-the-art café costs $12.50, in 2026! "Yes," she said... 3rd e.g. Dr. Smith\'s',
        "a < b <break time='3s'/> &amp; [[h@loU]] = end = .",
        "  Wait !  Stop .\nNow\t- or never",
    ],
)
def test_marks_are_ordered_and_their_words_put_together_are_the_text(english, text):
    utterance = english.speak(text)
    assert " ".join(word.text for word in utterance.words) == " ".join(text.split())
    place = 0
    for word in utterance.words:
        assert place <= word.start_sample < word.end_sample <= len(utterance.data)
        place = word.end_sample


def test_a_mark_is_where_its_word_sounds(english):
    utterance = english.speak("One, two, three.")
    sounding = np.abs(utterance.data.astype(int)) > 60
    assert [word.text for word in utterance.words] == ["One,", "two,", "three."]
    for before, after in zip(utterance.words, utterance.words[1:], strict=False):
        # Between the words lies the pause that the comma makes, and it is silent.
        assert after.start_sample - before.end_sample > 2_000
        assert not sounding[before.end_sample + 30 : after.start_sample - 30].any()
        assert sounding[after.start_sample : after.start_sample + 2_400].any()
    assert not sounding[utterance.words[-1].end_sample + 30 :].any()


def test_a_script_without_spaces_has_its_marks_by_character():
    utterance = Synthesiser("zh").speak("你好。今天下雨。")
    assert [word.text for word in utterance.words] == ["你", "好。", "今", "天", "下", "雨。"]


# espeak-ng says nothing for the first 120 ms of what stands in brackets.
@pytest.mark.parametrize("text", [SENTENCE, "(hello)"])
def test_silence_at_the_ends_is_short_and_the_marks_know_what_was_cut(english, text):
    utterance = english.speak(text)
    loud = np.flatnonzero(np.abs(utterance.data.astype(int)) > 64)
    assert loud[0] <= 0.05 * utterance.rate_hz
    assert utterance.words[0].start_sample <= loud[0] + 240
    assert len(utterance.data) - loud[-1] <= 0.15 * utterance.rate_hz


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "...", "\x00\x01\x1b", "\ud800", "\ue000"])
def test_text_without_anything_to_say_gives_no_samples(english, text):
    utterance = english.speak(text)
    assert len(utterance.data) == 0
    assert utterance.words == ()
    assert utterance.text == text


def test_markup_is_spoken_and_not_obeyed(english):
    plain = english.speak("wait here")
    marked = english.speak("wait <break time='9s'/> here")
    assert plain.duration_s < marked.duration_s < plain.duration_s + 5.0
    assert len(marked.words) > len(plain.words)


def test_control_characters_are_spaces_and_not_commands(english):
    # Control-A opens an embedded command of espeak-ng: this one would set the speed to 80.
    assert np.array_equal(english.speak("one \x0180S two").data, english.speak("one  80S two").data)
    assert np.array_equal(english.speak("one\x00two").data, english.speak("one two").data)


def test_a_very_long_text_is_spoken_to_its_end(english):
    utterance = english.speak(f"{SENTENCE} " * 300)
    assert len(utterance.words) == 300 * len(SENTENCE.split())
    assert utterance.words[-1].end_sample > len(utterance.data) - 24_000 // 4


def test_a_higher_rate_is_shorter_and_a_volume_of_zero_is_silent(english):
    slow = Synthesiser("en-us", rate_wpm=120).speak(SENTENCE)
    fast = Synthesiser("en-us", rate_wpm=240).speak(SENTENCE)
    assert fast.duration_s < 0.7 * slow.duration_s
    assert len(Synthesiser("en-us", volume=0).speak(SENTENCE).data) == 0


@pytest.mark.parametrize(
    ("asked", "found"),
    [("en_US", "en-us"), ("EN-us", "EN-us"), ("zh", "cmn"), ("zh-CN", "cmn"), ("de-AT", "de"),
     ("en-us+f3", "en-us+f3")],
)  # fmt: skip
def test_voices_are_found_by_tag(asked, found):
    assert Synthesiser(asked).voice == found


@pytest.mark.parametrize(
    ("settings_", "named"),
    [
        ({"voice": "klingon?"}, "klingon"),
        ({"voice": ""}, "no such voice"),
        ({"voice": "en-us+nobody"}, "nobody"),
        ({"rate_wpm": 20}, "rate_wpm is 20: must be 80 to 450"),
        ({"pitch": 100}, "pitch is 100"),
        ({"volume": -1}, "volume is -1"),
    ],
)
def test_a_wrong_setting_is_named(settings_, named):
    with pytest.raises(ConfigError, match=named.replace("?", r"\?")):
        Synthesiser(**settings_)


def test_a_missing_library_names_the_package_to_install():
    with pytest.raises(DeviceError, match="apt-get install espeak-ng"):
        Synthesiser(library="/nowhere/libespeak-ng.so.1")


def test_the_installed_voices_are_listed():
    tags = {tag for voice in list_voices() for tag in voice.tags}
    assert {"en-us", "de", "cmn"} <= tags
