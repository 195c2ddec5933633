"""Stretches of speech from given probabilities: hysteresis, lengths, stamps."""

from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.media.speech_segments import SpeechSegmenter, SpeechWindow
from minicpmo_ros.messages import NS_PER_MS, VoiceActivity

WINDOW_NS = 32 * NS_PER_MS


def segmenter(**changed: float) -> SpeechSegmenter:
    settings = {
        "start_threshold": 0.5,
        "stop_threshold": 0.35,
        "min_speech_ms": 96.0,
        "min_silence_ms": 320.0,
    }
    return SpeechSegmenter(**(settings | changed))


def follow(segments: SpeechSegmenter, probabilities: list[float]) -> list[VoiceActivity]:
    events = (
        segments.add(SpeechWindow(k * WINDOW_NS, (k + 1) * WINDOW_NS, p, -20.0 - k))
        for k, p in enumerate(probabilities)
    )
    return [event for event in events if event]


def windows(events: list[VoiceActivity]) -> list[tuple[bool, float]]:
    return [(event.speaking, event.stamp_ns / WINDOW_NS) for event in events]


def test_speech_starts_with_its_first_window_and_stops_with_its_last():
    events = follow(segmenter(), [0.0] * 5 + [0.9] * 10 + [0.1] * 20)
    assert windows(events) == [(True, 5), (False, 15)]
    assert [event.segment for event in events] == [1, 1]


def test_an_event_carries_the_window_that_decided():
    started, stopped = follow(segmenter(), [0.0] * 5 + [0.7, 0.8, 0.9, 0.9] + [0.1] * 10 + [0.2])
    assert (started.probability, started.loudness) == (0.9, -27.0)
    assert (stopped.probability, stopped.loudness) == (0.1, -38.0)


def test_less_speech_than_the_least_is_none():
    assert follow(segmenter(), ([0.9] * 2 + [0.1]) * 20) == []
    assert windows(follow(segmenter(min_speech_ms=64.0), [0.9] * 2)) == [(True, 0)]


def test_a_start_may_waver_between_the_thresholds():
    assert windows(follow(segmenter(), [0.1, 0.9, 0.4, 0.9, 0.4, 0.9])) == [(True, 1)]


def test_between_the_thresholds_nothing_starts():
    assert follow(segmenter(), [0.45] * 50) == []


def test_between_the_thresholds_speech_goes_on():
    segments = segmenter()
    assert windows(follow(segments, [0.9] * 5 + [0.4] * 50)) == [(True, 0)]
    assert segments.voiced_until_ns == 55 * WINDOW_NS


def test_between_the_thresholds_a_pause_goes_on():
    events = follow(segmenter(), [0.9] * 5 + [0.1] + [0.4] * 20)
    assert windows(events) == [(True, 0), (False, 5)]


def test_a_pause_shorter_than_the_least_silence_ends_nothing():
    segments = segmenter()
    assert windows(follow(segments, [0.9] * 5 + [0.1] * 9 + [0.9] * 5)) == [(True, 0)]
    assert segments.speaking_since_ns == 0
    assert segments.voiced_until_ns == 19 * WINDOW_NS


def test_the_next_stretch_has_the_next_number_also_after_a_reset():
    segments = segmenter()
    speech = [0.9] * 5 + [0.1] * 12
    assert [event.segment for event in follow(segments, speech + speech)] == [1, 1, 2, 2]
    segments.reset()
    assert segments.voiced_until_ns == 0
    assert [event.segment for event in follow(segments, speech)] == [3, 3]


def test_closing_stops_speech_that_goes_on_and_only_that():
    segments = segmenter()
    assert segments.close() is None
    follow(segments, [0.9] * 5 + [0.1] * 2)
    stopped = segments.close()
    assert stopped is not None
    assert windows([stopped]) == [(False, 5)]
    assert segments.speaking_since_ns is None
    assert segments.close() is None


def test_an_onset_before_a_close_does_not_count_after_it():
    segments = segmenter()
    follow(segments, [0.9] * 2)
    segments.close()
    assert follow(segments, [0.9, 0.9]) == []


@given(st.lists(st.floats(0.0, 1.0), max_size=200))
def test_starts_and_stops_alternate_in_order_with_growing_numbers(probabilities):
    segments = segmenter()
    events = follow(segments, probabilities)
    assert [event.speaking for event in events] == [k % 2 == 0 for k in range(len(events))]
    assert [event.segment for event in events] == [k // 2 + 1 for k in range(len(events))]
    stamps = [event.stamp_ns for event in events]
    assert stamps == sorted(stamps)
    assert (segments.speaking_since_ns is not None) == (len(events) % 2 == 1)
    for start, stop in zip(events[::2], events[1::2], strict=False):
        assert stop.stamp_ns - start.stamp_ns >= 96 * NS_PER_MS
