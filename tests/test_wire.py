"""Every message survives the way over the wire, with the types of bags and of rclpy alike."""

from __future__ import annotations

import dataclasses
import importlib.util
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros import messages as m
from minicpmo_ros.errors import InputError
from minicpmo_ros.replay.interfaces import BagTypes, typestore
from minicpmo_ros.wire import READERS, asked_sound, to_ros, type_name

times = st.integers(0, 2**31 * m.NS_PER_S - 1)
counts = st.integers(0, 2**32 - 1)
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
floats = st.floats(width=32, allow_nan=True)
sound = st.lists(st.integers(-32768, 32767), max_size=64).map(lambda x: np.array(x, np.int16))
marks = st.builds(m.WordMark, words, counts, counts)

KINDS = {
    m.AudioChunk: st.builds(
        m.AudioChunk, times, sound, st.integers(4000, 192_000), counts, st.booleans(), words
    ),
    m.SpeechChunk: st.builds(
        m.SpeechChunk,
        times,
        counts,
        counts,
        counts,
        counts,
        sound,
        words,
        st.lists(marks, max_size=3).map(tuple),
        st.booleans(),
        st.integers(4000, 192_000),
    ),
    m.Decision: st.builds(
        m.Decision,
        times,
        counts,
        counts,
        st.sampled_from(m.Action),
        counts,
        words,
        st.booleans(),
        words,
        words,
        words,
        floats,
        floats,
        st.lists(times, max_size=3).map(tuple),
        floats,
        counts,
        counts,
        st.lists(st.builds(m.StageTiming, words, floats), max_size=3).map(tuple),
    ),
    m.Alert: st.builds(
        m.Alert,
        times,
        words,
        counts,
        st.sampled_from(m.Severity),
        st.booleans(),
        words,
        counts,
        counts,
        st.lists(times, max_size=3).map(tuple),
        times,
    ),
    m.Playback: st.builds(
        m.Playback,
        times,
        counts,
        counts,
        st.sampled_from(m.PlaybackEvent),
        counts,
        words,
        counts,
        counts,
        st.integers(4000, 192_000),
    ),
    m.VoiceActivity: st.builds(m.VoiceActivity, times, st.booleans(), counts, floats, floats),
    m.SessionState: st.builds(
        m.SessionState,
        times,
        st.sampled_from(m.State),
        counts,
        counts,
        counts,
        words,
        words,
        words,
    ),
}


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if dataclasses.is_dataclass(a):
        fields = dataclasses.fields(a)
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_message_comes_back_from_a_bag_as_it_went_in(kind, data):
    message = data.draw(KINDS[kind])
    name = type_name(kind)
    raw = typestore().serialize_cdr(to_ros(message, BagTypes()), name)
    assert same(READERS[name](typestore().deserialize_cdr(raw, name)), message)


@pytest.mark.skipif(not importlib.util.find_spec("rclpy"), reason="rclpy is not installed")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_message_comes_back_from_rclpy_as_it_went_in(kind, data):
    from rclpy.serialization import deserialize_message, serialize_message

    from minicpmo_ros.nodes.ros_types import TYPES, message_class

    message = data.draw(KINDS[kind])
    raw = serialize_message(to_ros(message, TYPES))
    assert same(
        READERS[type_name(kind)](deserialize_message(raw, message_class(type_name(kind)))), message
    )


def test_sound_of_several_channels_keeps_its_shape():
    stereo = m.AudioChunk(5, np.arange(12, dtype=np.int16).reshape(6, 2), 48_000)
    back = READERS[type_name(m.AudioChunk)](to_ros(stereo, BagTypes()))
    assert back.channels == 2
    assert np.array_equal(back.data, stereo.data)


@pytest.mark.parametrize(
    ("channels", "samples", "text"), [(0, 4, "1 to 8"), (3, 4, "multiple of 3")]
)
def test_channels_that_cannot_be_are_refused(channels, samples, text):
    message = to_ros(m.AudioChunk(5, np.zeros(samples, np.int16)), BagTypes())
    message.channels = channels
    with pytest.raises(InputError, match=text):
        READERS[type_name(m.AudioChunk)](message)


def test_the_sound_of_a_chat_may_be_missing_and_must_fit():
    def ask(chunk):
        return asked_sound(to_ros(chunk, BagTypes()))

    assert len(ask(m.AudioChunk(0, np.zeros(0, np.int16)))) == 0
    assert len(ask(m.AudioChunk(5, np.zeros(160, np.int16)))) == 160
    with pytest.raises(InputError, match="16000 Hz and 1 channel"):
        ask(m.AudioChunk(5, np.zeros(160, np.int16), 48_000))
