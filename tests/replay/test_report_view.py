"""What a report says of a recording: every figure is checked against messages made by hand."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import ConfigError, InputError
from minicpmo_ros.messages import (
    NS_PER_MS,
    NS_PER_S,
    SPEECH_RATE_HZ,
    Action,
    Alert,
    AudioChunk,
    Decision,
    Picture,
    Playback,
    PlaybackEvent,
    SessionState,
    Severity,
    SpeechChunk,
    StageTiming,
    State,
    VoiceActivity,
    WordMark,
)
from minicpmo_ros.replay.report import ReportBuilder, ReportLimits, ReportView
from minicpmo_ros.replay.report.envelope import EnvelopeBuilder
from minicpmo_ros.replay.report.latency import slowest_of_each
from minicpmo_ros.replay.report.view import Outcome
from tests.replay.report_conversation import SILENT_S, at, conversation

RATE = SPEECH_RATE_HZ


def view_of(logged, limits: ReportLimits | None = None) -> ReportView:
    builder = ReportBuilder(limits)
    for topic, log_ns, message in logged:
        builder.add(topic, log_ns, message)
    return builder.build()


@pytest.fixture(scope="module")
def view() -> ReportView:
    return view_of(conversation())


def decision(unit: int, **more) -> Decision:
    return Decision(at(unit + 1), unit, 0, more.pop("action", Action.LISTEN), **more)


def speech(start_s: float, seconds: float, words: str, **more) -> SpeechChunk:
    """Speech with its words at equal distances."""
    count = round(seconds * RATE)
    names = words.split()
    marks = tuple(
        WordMark(w, count * i // len(names), count * (i + 1) // len(names))
        for i, w in enumerate(names)
    )
    fields = {"epoch": 0, "turn": 1, "sequence": 0, "unit": 0, "last": True, **more}
    data = np.full(count, 1_000, np.int16)
    return SpeechChunk(at(start_s), data=data, text=words, words=marks, **fields)


def report(stamp_s: float, event: PlaybackEvent, seconds: float, **more) -> Playback:
    fields = {"epoch": 0, "turn": 1, **more}
    return Playback(at(stamp_s), event=event, turn_samples=round(seconds * RATE), **fields)


def told(*messages) -> ReportView:
    """A view of messages that were received the moment they were stamped."""
    topics = {SpeechChunk: "audio/speech", Playback: "playback", AudioChunk: "audio/mic"}
    return view_of(
        [(topics.get(type(m), type(m).__name__.lower()), m.stamp_ns, m) for m in messages]
    )


def test_the_summary_counts_the_conversation(view):
    s = view.summary
    assert s.length_ms == 30_000
    assert (s.units, s.listen_units, s.speak_units) == (30, 28, 2)
    assert s.listen_share + s.speak_share == 1
    assert (s.turns, s.interruptions) == (2, 1)
    assert s.alerts == ((Severity.WARNING, 1), (Severity.NOTICE, 1))
    assert s.filled_ms == 300
    assert s.pictures == 137
    assert s.voice_ms == pytest.approx(3_800)
    assert s.brains == ("reflex",)


def test_words_are_heard_up_to_the_interruption_and_not_beyond(view):
    answer, story = view.turns
    assert answer.outcome is Outcome.FINISHED
    assert all(word.heard for word in answer.words)
    assert answer.unheard is None
    assert story.outcome is Outcome.INTERRUPTED
    assert story.sounded.stop_ns == at(SILENT_S)
    for word in story.words:
        assert word.heard == (word.span.stop_ns <= at(SILENT_S))
    assert story.heard_text == " ".join(w.text for w in story.words if w.heard)
    assert story.unheard is not None
    assert story.unheard.start_ns == at(SILENT_S)
    assert view.summary.words_heard == sum(bool(w.heard) for t in view.turns for w in t.words)


def test_percentiles_of_latency_are_those_of_all_messages():
    ms = np.random.default_rng(3).uniform(1, 400, 999)
    logged = [("decision", at(i + 1) + round(m * NS_PER_MS), decision(i)) for i, m in enumerate(ms)]
    hop = view_of(logged).hop("decision")
    assert hop is not None
    assert hop.count == 999
    assert hop.p50_ms == pytest.approx(np.percentile(ms, 50), abs=1e-3)
    assert hop.p99_ms == pytest.approx(np.percentile(ms, 99), abs=1e-3)
    assert hop.max_ms == pytest.approx(ms.max(), abs=1e-3)


def test_every_hop_is_measured_between_its_two_ends(view):
    # The conversation was made with these delays.
    assert view.hop("mic").max_ms == 6
    assert (view.hop("picture").p50_ms, view.hop("picture").max_ms) == (14, 17)
    assert view.hop("decision").max_ms == 10
    assert view.hop("sound").p50_ms == pytest.approx(18)  # 6.030 s - 6.012 s
    assert view.hop("schedule").p50_ms == pytest.approx(30)
    assert view.hop("silence").max_ms == pytest.approx(35, abs=0.1)  # epoch at 16.200 s
    assert view.hop("barge-in").max_ms == pytest.approx(235, abs=0.1)  # voice at 16.000 s


def test_decision_to_speech_is_measured_on_receipt():
    first = speech(1.0, 0.5, "hello")
    logged = [
        ("decision", at(1.010), decision(0, action=Action.SPEAK, turn=1)),
        ("audio/speech", at(1.014), first),
    ]
    assert view_of(logged).hop("speech").p50_ms == pytest.approx(4)


def test_it_does_not_matter_in_which_order_the_topics_were_logged():
    first = speech(1.0, 0.5, "hello")
    logged = [
        ("playback", at(1.02), report(1.03, PlaybackEvent.STARTED, 0)),
        ("audio/speech", at(1.02), first),
        ("decision", at(1.02), decision(0, action=Action.SPEAK, turn=1)),
    ]
    view = view_of(logged)
    assert view.hop("speech").p50_ms == 0
    assert view.hop("sound").p50_ms == pytest.approx(10)
    assert view.hop("schedule").p50_ms == pytest.approx(30)


def test_stages_of_the_brain_have_hops_of_their_own():
    timings = (StageTiming("vision", 12.5), StageTiming("decode", 40.0))
    view = told(decision(0, timings=timings), decision(1, timings=timings))
    assert view.hop("stage vision").p50_ms == 12.5
    assert view.hop("stage decode").count == 2


def test_a_thinned_out_lane_keeps_its_slowest_moments():
    ms = np.ones(10_000)
    ms[[17, 5_000, 9_999]] = 80
    kept = slowest_of_each(ms, 500)
    assert len(kept) == 500
    assert {17, 5_000, 9_999} <= set(kept.tolist())


def test_words_move_with_a_turn_that_sounds_late_and_with_silence_put_into_it():
    # Planned at 1.0 s, begins at 1.5 s; 0.3 s of silence lie between its two words.
    view = told(
        speech(1.0, 2.0, "late words"),
        report(1.5, PlaybackEvent.STARTED, 0),
        report(2.5, PlaybackEvent.PLAYING, 1.0),
        report(3.0, PlaybackEvent.PLAYING, 1.2, concealed_samples=round(0.3 * RATE)),
        report(3.8, PlaybackEvent.FINISHED, 2.0, concealed_samples=round(0.3 * RATE)),
    )
    (turn,) = view.turns
    late, words = turn.words
    assert late.span.start_ns == at(1.5)
    assert late.span.stop_ns == at(2.5)
    assert words.span.stop_ns == at(3.8)
    assert turn.concealed_ms == pytest.approx(300)
    assert turn.sounded.ms == pytest.approx(2_300)


def test_a_turn_is_as_planned_where_nothing_reports_what_was_heard():
    view = told(speech(1.0, 2.0, "two words"))
    (turn,) = view.turns
    assert turn.outcome is Outcome.UNKNOWN
    assert [w.heard for w in turn.words] == [None, None]
    assert (turn.sounded.start_ns, turn.sounded.stop_ns) == (at(1), at(3))
    assert view.summary.words_heard is None
    assert view.summary.heard_ms is None


def test_a_turn_that_an_interruption_overtook_was_never_heard():
    view = told(
        speech(1.0, 1.0, "first"),
        report(1.0, PlaybackEvent.STARTED, 0),
        report(1.4, PlaybackEvent.INTERRUPTED, 0.4),
        speech(2.0, 1.0, "dropped", turn=2),
    )
    assert [t.outcome for t in view.turns] == [Outcome.INTERRUPTED, Outcome.NEVER_HEARD]
    assert view.turns[1].heard_text == ""
    assert view.turns[1].unheard.ms == pytest.approx(1_000)


def test_a_turn_cut_by_the_end_of_the_recording_is_unfinished():
    view = told(
        speech(1.0, 2.0, "two words"),
        report(1.0, PlaybackEvent.STARTED, 0),
        report(2.1, PlaybackEvent.PLAYING, 1.1),
    )
    (turn,) = view.turns
    assert turn.outcome is Outcome.UNFINISHED
    assert [w.heard for w in turn.words] == [True, False]


def test_words_without_marks_are_placed_by_their_letters():
    chunk = SpeechChunk(at(1), 0, 1, 0, 0, np.zeros(RATE, np.int16), "a longword", last=True)
    (turn,) = told(chunk).turns
    short, long = turn.words
    assert short.estimated
    assert short.span.start_ns == at(1)
    assert long.span.stop_ns == at(2)
    assert short.span.ms < long.span.ms


def test_a_chunk_that_came_twice_counts_once_and_a_second_session_counts_anew():
    first, again = speech(1.0, 1.0, "one two"), speech(9.0, 1.0, "three")
    view = told(first, first, again)
    assert [t.text for t in view.turns] == ["one two", "three"]
    assert view.summary.spoken_ms == pytest.approx(2_000)


def test_speech_that_was_not_recorded_still_shows_what_was_heard():
    view = told(
        report(1.0, PlaybackEvent.STARTED, 0),
        report(2.0, PlaybackEvent.FINISHED, 1.0, heard="from the speaker alone"),
    )
    (turn,) = view.turns
    assert turn.text == turn.heard_text == "from the speaker alone"
    assert turn.clip is None


def test_an_alert_ends_when_cleared_when_expired_or_with_the_recording():
    def alert(s: float, number: int, active: bool = True, **more) -> Alert:
        fields = {"severity": Severity.NOTICE, "text": "t", "unit": 0, "epoch": 0, **more}
        return Alert(at(s), f"kind {number}", number, active=active, **fields)

    view = told(
        *(decision(i) for i in range(20)),
        alert(2, 1, expires_ns=at(15)),
        alert(3, 2, expires_ns=at(8)),
        alert(4, 3),
        alert(5, 1, active=False),
        alert(6, 4, active=False),
    )
    ended = {a.number: (a.span.ms, a.ended) for a in view.alerts}
    assert ended == {
        1: (3_000, "cleared"),
        2: (5_000, "expired"),
        3: (16_000, "end of the recording"),
    }


def test_an_alert_said_again_lives_on_and_may_get_worse():
    raised = Alert(at(2), "k", 1, Severity.NOTICE, True, "t", 1, 0, expires_ns=at(4))
    worse = Alert(at(3), "k", 1, Severity.CRITICAL, True, "worse", 2, 0, expires_ns=at(9))
    (alert,) = told(*(decision(i) for i in range(10)), raised, worse).alerts
    assert (alert.span.start_ns, alert.span.stop_ns) == (at(2), at(9))
    assert (alert.severity, alert.text) == (Severity.CRITICAL, "worse")


def test_an_alert_kept_from_before_the_recording_does_not_stretch_the_timeline():
    old = Alert(at(-5_000), "k", 1, Severity.WARNING, True, "old", 0, 0)
    view = view_of(
        [("alert", at(0.1), old), *(("decision", at(i + 1), decision(i)) for i in (0, 1))]
    )
    assert view.span.start_ns == at(0)
    assert view.alerts[0].span.start_ns == at(0)


def test_voice_pairs_starts_with_stops_and_holds_on_at_both_ends():
    def voice(s: float, speaking: bool, segment: int) -> VoiceActivity:
        return VoiceActivity(at(s), speaking, segment, 0.9, -20.0)

    chunk = AudioChunk(at(0), np.zeros(160_000, np.int16))
    view = told(chunk, voice(1, False, 1), voice(4, True, 2), voice(5, False, 2), voice(8, True, 3))
    spans = [(v.span.start_ns, v.span.stop_ns) for v in view.voice]
    assert spans == [(at(0), at(1)), (at(4), at(5)), (at(8), at(10))]
    assert [v.open for v in view.voice] == [False, False, True]


def test_states_follow_one_another_and_the_epoch_grows(view):
    assert [s.state for s in view.states] == [
        State.LISTENING,
        State.SPEAKING,
        State.LISTENING,
        State.SPEAKING,
        State.LISTENING,
    ]
    assert all(
        a.span.stop_ns == b.span.start_ns
        for a, b in zip(view.states, view.states[1:], strict=False)
    )
    (epoch,) = view.epochs
    assert (epoch.epoch, epoch.stamp_ns) == (1, at(16.2))


def test_lost_sound_and_lost_pictures_are_named(view):
    (lost,) = view.mic.lost
    assert (lost.start_ns, lost.stop_ns) == (at(27.0), at(27.3))
    (gap,) = view.pictures.gaps
    assert (gap.start_ns, gap.stop_ns) == (at(23.8), at(26.6))


def test_a_muted_microphone_is_named():
    chunks = [
        AudioChunk(at(i / 10), np.zeros(1_600, np.int16), muted=3 <= i < 7) for i in range(10)
    ]
    (muted,) = told(*chunks).mic.muted
    assert (muted.start_ns, muted.stop_ns) == (at(0.3), at(0.7))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_outline_is_the_same_however_sound_is_cut(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1_000)))
    sound = rng.integers(-20_000, 20_000, 16_000, dtype=np.int16)
    cuts = sorted(data.draw(st.lists(st.integers(1, 15_999), max_size=8)))
    built = EnvelopeBuilder(bins=64)
    for a, b in zip([0, *cuts], [*cuts, 16_000], strict=True):
        built.add(at(0) + a * NS_PER_S // 16_000, sound[a:b], 16_000)
    whole = EnvelopeBuilder(bins=64)
    whole.add(at(0), sound, 16_000)
    one, other = built.build(), whole.build()
    assert one.bin_ns == other.bin_ns
    assert len(one.low) <= 64
    np.testing.assert_array_equal(one.low, other.low)
    np.testing.assert_array_equal(one.high, other.high)
    assert one.low.min() == sound.min()
    assert one.high.max() == sound.max()


def test_thumbnails_are_few_spread_evenly_and_only_they_are_decoded():
    decoded = []

    def picture(i: int) -> Picture:
        def decode() -> np.ndarray:
            decoded.append(i)
            return np.full((48, 64, 3), i % 256, np.uint8)

        return Picture(at(i / 10), decode)

    limits = ReportLimits(thumbnails=20, thumbnail_width=32)
    logged = [("image_raw", at(i / 10), picture(i)) for i in range(6_000)]
    view = view_of(logged, limits)
    shots = view.pictures.thumbnails
    assert view.pictures.count == 6_000
    assert 10 <= len(shots) <= 20
    assert len(decoded) < 200
    assert (shots[0].width, shots[0].height) == (32, 24)
    assert shots[0].jpeg.startswith(b"\xff\xd8")
    steps = np.diff([s.stamp_ns for s in shots])
    assert steps.max() <= 1.1 * steps.min()


def test_a_picture_that_cannot_be_decoded_is_counted_and_the_next_one_serves():
    def broken() -> np.ndarray:
        raise InputError("encoding 'bayer_odd' is not known")

    good = Picture.of(at(0.1), np.zeros((4, 4, 3), np.uint8))
    view = view_of([("image_raw", at(0), Picture(at(0), broken)), ("image_raw", at(0.1), good)])
    assert view.pictures.unreadable == 1
    assert [t.stamp_ns for t in view.pictures.thumbnails] == [at(0.1)]


def test_a_long_recording_takes_little_more_memory_than_a_short_one():
    sound = np.random.default_rng(0).integers(-9_000, 9_000, 1_600, dtype=np.int16)

    def peak(seconds: int) -> int:
        builder = ReportBuilder(ReportLimits(thumbnails=10, sound_s=4_000))
        tracemalloc.start()
        for i in range(seconds * 10):
            stamp = at(i / 10)
            builder.add("audio/mic", stamp + 100 * NS_PER_MS, AudioChunk(stamp, sound))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    # 1140 s more are 36 MB of sound; what may stay is 12 bytes for each message's latency.
    assert peak(1_200) - peak(60) < 1_000_000


def test_a_stamp_of_zero_and_one_from_nowhere_are_left_out_and_counted():
    logged = [("decision", at(i + 1), decision(i)) for i in range(5)]
    logged.insert(0, ("audio/mic", at(0.5), AudioChunk(0, np.zeros(160, np.int16))))
    logged.insert(3, ("voice", at(2), VoiceActivity(at(90_000), True, 1, 0.5, -20.0)))
    view = view_of(logged)
    assert view.span.ms == 5_000
    assert "2 messages are left out" in view.notes[0]


def test_a_recording_logged_on_another_clock_says_so_instead_of_wrong_latencies():
    day = 86_400 * NS_PER_S
    logged = [("decision", at(i + 1) + day, decision(i)) for i in range(40)]
    view = view_of(logged)
    assert view.hop("decision") is None
    assert view.summary.units == 40
    assert "another clock" in view.notes[0]


def test_sound_beyond_the_limit_is_drawn_but_not_played_and_the_page_is_told():
    chunks = [
        ("audio/mic", at(i + 1), AudioChunk(at(i), np.ones(16_000, np.int16))) for i in range(5)
    ]
    view = view_of(chunks, ReportLimits(sound_s=3))
    assert view.conversation is None
    assert view.mic.envelope is not None
    assert "longer than 3 s" in view.notes[0]


def test_the_conversation_is_stereo_with_every_sample_at_its_time(view):
    data, rate = soundfile.read(io.BytesIO(view.conversation.data), dtype="int16")
    assert (rate, data.shape) == (16_000, (30 * 16_000, 2))
    mic = np.concatenate([m.data for t, _, m in conversation() if t == "audio/mic"])
    np.testing.assert_array_equal(data[: 27 * 16_000, 0], mic[: 27 * 16_000])
    assert not data[27 * 16_000 : int(27.3 * 16_000), 0].any()
    sounds = np.flatnonzero(np.abs(data[:, 1].astype(int)) > 200)
    assert sounds[0] / 16_000 == pytest.approx(6.03, abs=0.01)
    assert sounds[-1] / 16_000 == pytest.approx(SILENT_S, abs=0.06)


def test_a_long_conversation_is_ogg_of_the_same_length():
    chunks = [
        ("audio/mic", at(i + 1), AudioChunk(at(i), np.ones(16_000, np.int16))) for i in range(4)
    ]
    clip = view_of(chunks, ReportLimits(wav_s=2)).conversation
    assert clip.mime == "audio/ogg"
    assert soundfile.info(io.BytesIO(clip.data)).frames == 64_000


def test_a_turn_plays_all_of_its_sound_heard_or_not(view):
    for turn in view.turns:
        data, rate = soundfile.read(io.BytesIO(turn.clip.data))
        assert rate == RATE
        assert len(data) / rate * 1000 == pytest.approx(turn.spoken_ms)


def test_sound_of_another_rate_and_of_two_channels_is_placed_all_the_same():
    tone = np.sin(np.arange(44_100) / 20) * 8_000
    stereo = np.stack([tone, tone], axis=1).astype(np.int16)
    view = told(AudioChunk(at(0), stereo, 44_100), AudioChunk(at(1), stereo, 44_100))
    assert view.span.ms == pytest.approx(2_000)
    assert view.conversation.duration_ms == pytest.approx(2_000)
    assert view.mic.envelope.high.max() > 7_900


def test_building_twice_gives_the_same_and_more_may_follow():
    builder = ReportBuilder()
    entries = conversation()
    for entry in entries[:400]:
        builder.add(*entry)
    assert builder.build().summary == builder.build().summary
    for entry in entries[400:]:
        builder.add(*entry)
    assert builder.build().summary == view_of(entries).summary


def test_nothing_at_all_is_a_second_of_nothing():
    view = ReportBuilder().build()
    assert view.span.ms == 1_000
    assert view.summary.units == view.summary.turns == 0
    assert view.conversation is None


def test_only_states_still_make_a_timeline():
    view = told(SessionState(at(1), State.LISTENING), SessionState(at(3), State.FAULT))
    assert view.span.start_ns == at(1)
    assert [s.state for s in view.states] == [State.LISTENING]


@pytest.mark.parametrize(
    "topic, message, says",
    [
        ("audio/other", AudioChunk(at(0), np.zeros(1, np.int16)), "audio/mic or audio/played"),
        ("camera_info", "text", "a str on camera_info"),
    ],
)
def test_what_has_no_lane_is_refused_by_name(topic, message, says):
    with pytest.raises(InputError, match=says):
        ReportBuilder().add(topic, at(0), message)


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="thumbnails = 0: it must be above 0"):
        ReportLimits(thumbnails=0)
