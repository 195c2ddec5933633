"""The play queue: what sounds when, and the account of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import InputError
from minicpmo_ros.media.playback import ABANDON_SAMPLES, FADE_SAMPLES, PlayQueue
from minicpmo_ros.messages import (
    NS_PER_MS,
    NS_PER_S,
    AudioChunk,
    Playback,
    PlaybackEvent,
    SpeechChunk,
    WordMark,
)

RATE = 24_000
T0 = 1_700_000_000 * NS_PER_S
STARTED, PLAYING, FINISHED, INTERRUPTED = PlaybackEvent


def ns(samples: float) -> int:
    """ROS time of a sample counted from T0."""
    return T0 + round(samples * NS_PER_S / RATE)


def ramp(count: int, first: int = 1) -> np.ndarray:
    """Samples that all differ from silence and from their neighbours."""
    return ((np.arange(count) + first) % 30_000 + 1).astype(np.int16)


def speech(samples: np.ndarray | int, turn: int = 1, **fields: object) -> SpeechChunk:
    data = ramp(samples) if isinstance(samples, int) else samples
    values: dict[str, object] = {
        "stamp_ns": 0, "epoch": 1, "turn": turn, "sequence": 0, "unit": 0, "data": data,
        "text": "", "words": (), "last": True,
    }  # fmt: skip
    return SpeechChunk(**{**values, **fields})  # type: ignore[arg-type]


@dataclass
class Device:
    """Takes blocks from a queue, as a sound card does, and keeps what came of it."""

    queue: PlayQueue
    block: int = 480
    frame: int = 0
    out: list[np.ndarray] = field(default_factory=list)
    reports: list[Playback] = field(default_factory=list)
    played: list[AudioChunk] = field(default_factory=list)

    def play(self, frames: int) -> Device:
        end = self.frame + frames
        while self.frame < end:
            count = min(self.block, end - self.frame)
            self.out.append(self.queue.take(count, ns(self.frame)))
            self.frame += count
            self.reports += self.queue.reports()
            self.played += self.queue.played()
        return self

    @property
    def samples(self) -> np.ndarray:
        return np.concatenate(self.out)

    def events(self, turn: int = 1) -> list[PlaybackEvent]:
        return [report.event for report in self.reports if report.turn == turn]

    def report(self, event: PlaybackEvent, turn: int = 1) -> Playback:
        return next(r for r in self.reports if (r.event, r.turn) == (event, turn))


def test_an_empty_queue_is_silent_and_says_nothing() -> None:
    device = Device(PlayQueue()).play(4_800)
    assert not device.samples.any()
    assert device.reports == []
    assert device.played == []


@pytest.mark.parametrize("start", [0, 1, 479, 480, 481, 1_000])
def test_speech_starts_at_its_stamp_to_the_sample(start: int) -> None:
    queue = PlayQueue()
    assert queue.push(speech(1_000, stamp_ns=ns(start)))
    device = Device(queue).play(2_400)
    np.testing.assert_array_equal(device.samples[start : start + 1_000], ramp(1_000))
    assert not device.samples[:start].any()
    assert device.report(STARTED).stamp_ns == ns(start)
    assert device.report(FINISHED).stamp_ns == ns(start + 1_000)
    assert device.report(FINISHED).turn_samples == 1_000


@pytest.mark.parametrize("stamp_ns", [0, T0 - 5 * NS_PER_S, T0 + 3_600 * NS_PER_S])
def test_speech_with_a_stamp_in_the_past_or_beyond_reason_starts_at_once(stamp_ns: int) -> None:
    queue = PlayQueue()
    device = Device(queue).play(960)
    queue.push(speech(500, stamp_ns=stamp_ns))
    device.play(960)
    np.testing.assert_array_equal(device.samples[960:1_460], ramp(500))
    assert queue.stats.wrong_stamps == (stamp_ns > T0)


def test_chunks_of_a_turn_sound_without_a_gap_whatever_their_stamps_say() -> None:
    queue = PlayQueue()
    for number, piece in enumerate(np.split(ramp(3_000), [700, 1_650])):
        chunk = speech(piece, sequence=number, stamp_ns=ns(50 * number), last=number == 2)
        assert queue.push(chunk)
    device = Device(queue).play(4_800)
    np.testing.assert_array_equal(device.samples[:3_000], ramp(3_000))
    assert device.report(FINISHED).concealed_samples == 0


def test_speech_that_comes_too_late_is_concealed_by_silence_and_counted() -> None:
    queue = PlayQueue()
    queue.push(speech(1_000, last=False))
    device = Device(queue).play(1_440)
    queue.push(speech(1_000, sequence=1))
    device.play(2_000)
    heard = device.samples
    np.testing.assert_array_equal(heard[:1_000], ramp(1_000))
    # The last sample decays instead of breaking off, and the return is faded in.
    assert (np.diff(heard[999 : 1_000 + FADE_SAMPLES].astype(int)) <= 0).all()
    assert not heard[1_000 + FADE_SAMPLES : 1_440].any()
    assert (heard[1_440 : 1_440 + FADE_SAMPLES] < ramp(FADE_SAMPLES)).all()
    np.testing.assert_array_equal(heard[1_440 + FADE_SAMPLES : 2_440], ramp(1_000)[FADE_SAMPLES:])
    finished = device.report(FINISHED)
    assert (finished.turn_samples, finished.concealed_samples) == (2_000, 440)
    assert finished.stamp_ns == ns(2_440)


def paused(samples: int, pause: int) -> np.ndarray:
    """Sound with a pause in its middle."""
    data = ramp(samples)
    data[(samples - pause) // 2 : (samples + pause) // 2] = 0
    return data


def test_gaps_are_counted_and_what_comes_in_time_again_catches_up_in_its_pauses() -> None:
    device = Device(PlayQueue(), block=240)
    pieces = [ramp(RATE), ramp(RATE), paused(RATE, 9_600), paused(RATE, 9_600)]
    # 300 ms too late, and from then on as much before it is needed.
    for sequence, piece in enumerate(pieces):
        device.queue.push(speech(piece, sequence=sequence, last=sequence == 3))
        device.play(RATE + 7_200 if sequence == 0 else RATE - 7_200 if sequence == 1 else RATE)
    stats = device.queue.stats
    assert (stats.underruns, stats.concealed_samples) == (1, 7_200)
    # Of a pause 60 ms stay.
    assert stats.caught_up_samples == 7_200
    device.play(RATE)
    finished = device.report(FINISHED)
    assert (finished.turn_samples, finished.concealed_samples) == (4 * RATE, 0)
    assert finished.stamp_ns == ns(4 * RATE)


def test_nothing_is_left_out_of_a_turn_that_is_in_time() -> None:
    device = Device(PlayQueue())
    sound = paused(2 * RATE, RATE)
    device.queue.push(speech(sound))
    device.play(3 * RATE)
    np.testing.assert_array_equal(device.samples[: 2 * RATE], sound)
    assert device.queue.stats.caught_up_samples == 0


def test_what_always_comes_too_late_is_not_hurried_into_the_next_gap() -> None:
    device = Device(PlayQueue(), block=240)
    # Each piece comes as the one before has ended, 100 ms after the first time.
    device.queue.push(speech(paused(RATE, 9_600), last=False))
    device.play(RATE + 2_400)
    for sequence in range(1, 6):
        device.queue.push(speech(paused(RATE, 9_600), sequence=sequence, last=False))
        device.play(RATE)
    stats = device.queue.stats
    assert (stats.underruns, stats.concealed_samples, stats.caught_up_samples) == (1, 2_400, 0)


def test_a_turn_that_is_ended_late_has_not_been_concealed() -> None:
    queue = PlayQueue()
    queue.push(speech(1_000, last=False))
    device = Device(queue).play(6_000)
    queue.push(speech(0, sequence=1, last=True))
    device.play(480)
    finished = device.report(FINISHED)
    assert (finished.turn_samples, finished.concealed_samples) == (1_000, 0)
    assert finished.stamp_ns == ns(1_000)


def test_turns_sound_in_the_order_in_which_they_came() -> None:
    queue = PlayQueue()
    queue.push(speech(ramp(700), turn=2, stamp_ns=ns(100)))
    queue.push(speech(ramp(900, 500), turn=1, stamp_ns=ns(0)))
    device = Device(queue).play(2_400)
    np.testing.assert_array_equal(device.samples[100:800], ramp(700))
    np.testing.assert_array_equal(device.samples[800:1_700], ramp(900, 500))
    assert device.report(STARTED, turn=1).stamp_ns == ns(800)


def test_a_turn_that_waits_for_more_lets_no_other_in_for_two_seconds_and_is_then_given_up() -> None:
    queue = PlayQueue()
    queue.push(speech(1_000, turn=1, last=False))
    queue.push(speech(500, turn=2))
    device = Device(queue).play(2 * RATE)
    assert device.events(turn=2) == []
    device.play(2_000)
    assert device.report(STARTED, turn=2).stamp_ns == ns(1_000 + 2 * RATE)
    assert device.report(FINISHED, turn=1).turn_samples == 1_000
    assert not queue.push(speech(10, turn=1, sequence=1))


def test_a_turn_that_is_never_ended_is_given_up_after_ten_seconds() -> None:
    queue = PlayQueue()
    queue.push(speech(1_000, last=False))
    device = Device(queue).play(1_000 + ABANDON_SAMPLES + 480)
    assert device.events()[-1] is FINISHED
    assert queue.stats.abandoned == 1
    assert queue.idle


def test_an_empty_last_chunk_alone_is_a_turn_that_is_over() -> None:
    queue = PlayQueue()
    queue.push(speech(0, turn=5))
    assert Device(queue).play(480).events(turn=5) == [FINISHED]


def test_an_empty_beginning_holds_nobody_up() -> None:
    queue = PlayQueue()
    queue.push(speech(0, turn=1, last=False))
    queue.push(speech(600, turn=2))
    device = Device(queue).play(1_000)
    assert device.events(turn=2) == [STARTED, FINISHED]
    queue.push(speech(300, turn=1, sequence=1))
    assert device.play(1_000).events(turn=1) == [STARTED, FINISHED]


@pytest.mark.parametrize("block", [120, 480, 2_400])
def test_an_interruption_is_silent_within_its_block(block: int) -> None:
    queue = PlayQueue()
    queue.push(speech(RATE, text="one two three four"))
    device = Device(queue, block).play(9_600)
    queue.interrupt(2)
    cut = queue.reports()
    device.play(4_800)
    np.testing.assert_array_equal(device.samples[:9_600], ramp(9_600))
    assert not device.samples[9_600 + FADE_SAMPLES :].any()
    assert (np.diff(device.samples[9_599 : 9_600 + FADE_SAMPLES].astype(int)) < 0).all()
    assert [(r.event, r.turn_samples, r.heard, r.stamp_ns) for r in cut] == [
        (INTERRUPTED, 9_600, "one", ns(9_600))
    ]
    assert queue.queued_samples == 0


def test_an_interruption_ends_waiting_turns_too_and_what_comes_late_of_them_is_refused() -> None:
    queue = PlayQueue()
    queue.push(speech(4_800, turn=1))
    queue.push(speech(4_800, turn=2))
    device = Device(queue).play(960)
    queue.interrupt(2)
    device.play(480)
    assert device.events(1)[-1] is INTERRUPTED
    assert device.events(2) == [INTERRUPTED]
    assert device.report(INTERRUPTED, turn=2).turn_samples == 0
    assert not queue.push(speech(10, turn=2, sequence=1))
    assert queue.push(speech(10, turn=3, epoch=2))
    assert queue.stats.refused == 1


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_epoch_that_is_not_newer_interrupts_nothing(epoch: int) -> None:
    queue = PlayQueue()
    queue.push(speech(1_000))
    queue.interrupt(epoch)
    assert Device(queue).play(1_440).events() == [STARTED, FINISHED]


def test_speech_of_a_newer_epoch_interrupts_what_is_older() -> None:
    queue = PlayQueue()
    queue.push(speech(4_800, turn=1, epoch=1))
    device = Device(queue).play(480)
    queue.push(speech(ramp(600, 9_000), turn=2, epoch=2))
    device.play(1_440)
    np.testing.assert_array_equal(device.samples[480:1_080], ramp(600, 9_000))
    assert device.events(1) == [STARTED, INTERRUPTED]
    assert device.events(2) == [STARTED, FINISHED]


def test_a_chunk_that_comes_twice_sounds_once() -> None:
    queue = PlayQueue()
    assert queue.push(speech(500, last=False))
    assert not queue.push(speech(500, last=False))
    assert queue.push(speech(100, sequence=1))
    assert Device(queue).play(1_440).report(FINISHED).turn_samples == 600


def test_a_chunk_of_a_turn_that_is_over_is_refused() -> None:
    queue = PlayQueue()
    queue.push(speech(100))
    Device(queue).play(480)
    assert not queue.push(speech(100, sequence=1))


def test_a_lost_chunk_is_counted() -> None:
    queue = PlayQueue()
    queue.push(speech(100, last=False))
    queue.push(speech(100, sequence=3))
    assert queue.stats.missing == 2


def test_whoever_speaks_may_restart_from_zero_after_a_reset() -> None:
    queue = PlayQueue()
    queue.push(speech(4_800, turn=7, epoch=9))
    queue.reset()
    assert [report.event for report in queue.reports()] == [INTERRUPTED]
    assert queue.push(speech(480, turn=1, epoch=0))
    assert Device(queue).play(960).events() == [STARTED, FINISHED]


def test_what_waits_is_bounded() -> None:
    queue = PlayQueue()
    minute = np.ones(60 * RATE, np.int16)
    pushed = [queue.push(speech(minute, turn=turn)) for turn in range(1, 13)]
    assert pushed == [True] * 10 + [False] * 2


def test_progress_comes_every_tenth_of_a_second_and_tells_the_words_heard_so_far() -> None:
    queue = PlayQueue()
    words = (
        WordMark("Hello", 0, 2_000),
        WordMark("big", 2_500, 4_800),
        WordMark("world", 5_000, 7_000),
    )
    queue.push(speech(7_200, text="Hello, big world!", words=words, stamp_ns=ns(100)))
    device = Device(queue).play(9_600)
    seen = [
        (r.event, r.stamp_ns, r.turn_samples, r.heard, r.queued_samples) for r in device.reports
    ]
    assert seen == [
        (STARTED, ns(100), 0, "", 7_200),
        (PLAYING, ns(2_500), 2_400, "Hello,", 4_800),
        (PLAYING, ns(4_900), 4_800, "Hello, big", 2_400),
        (PLAYING, ns(7_300), 7_200, "Hello, big world!", 0),
        (FINISHED, ns(7_300), 7_200, "Hello, big world!", 0),
    ]


def test_what_was_played_is_there_in_contiguous_chunks_of_20_ms() -> None:
    queue = PlayQueue()
    queue.push(speech(1_000, stamp_ns=ns(130)))
    device = Device(queue).play(4_800)
    assert [len(chunk.data) for chunk in device.played] == [480, 480, 480]
    assert [chunk.sequence for chunk in device.played] == [0, 1, 2]
    assert device.played[0].stamp_ns == ns(130)
    assert all(b.stamp_ns == a.end_ns for a, b in pairwise(device.played))
    joined = np.concatenate([chunk.data for chunk in device.played])
    np.testing.assert_array_equal(joined, device.samples[130 : 130 + len(joined)])


def test_when_the_device_lost_time_the_tape_has_a_seam() -> None:
    queue = PlayQueue()
    queue.push(speech(4_800, stamp_ns=ns(100)))
    for k in range(3):
        queue.take(480, ns(480 * k))
    for k in range(3, 12):
        queue.take(480, ns(480 * k + 5_000))
    chunks = queue.played()
    # The chunk that was being filled is closed where the device stopped.
    assert [len(chunk.data) for chunk in chunks[:4]] == [480, 480, 380, 480]
    assert chunks[2].stamp_ns == ns(1_060)
    assert chunks[3].stamp_ns == ns(480 * 3 + 5_000)


def test_when_a_device_comes_back_what_was_cut_off_long_ago_does_not_fade_out_on_it() -> None:
    queue = PlayQueue()
    queue.push(speech(4_800))
    assert queue.take(480, T0).any()
    queue.clear()
    assert not queue.take(480, T0 + NS_PER_S).any()


def test_a_device_whose_clock_drifts_takes_the_stamps_with_it() -> None:
    queue = PlayQueue()
    queue.push(speech(24_000))
    drift_ns = 5_000  # a block
    for k in range(50):
        queue.take(480, ns(480 * k) + k * drift_ns)
    chunks = queue.played()
    half_a_sample_ns = 20_834
    assert all(
        abs(chunk.stamp_ns - ns(480 * k) - k * drift_ns) <= half_a_sample_ns
        for k, chunk in enumerate(chunks)
    )


def test_stamps_that_tremble_by_less_than_half_a_sample_change_nothing() -> None:
    queue = PlayQueue()
    queue.push(speech(4_800))
    for k in range(12):
        queue.take(480, ns(480 * k) + (-1) ** k * 15_000 * (k > 0))
    chunks = queue.played()
    assert all(b.stamp_ns == a.end_ns for a, b in pairwise(chunks))


def test_reports_can_be_held_back_until_they_have_happened() -> None:
    queue = PlayQueue()
    queue.push(speech(4_800))
    queue.take(4_800, T0 + 40 * NS_PER_MS)
    assert queue.reports(until_ns=T0) == []
    assert [r.event for r in queue.reports(until_ns=T0 + 140 * NS_PER_MS)] == [STARTED, PLAYING]
    assert [r.event for r in queue.reports()] == [PLAYING, FINISHED]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"data": np.zeros(10, np.float32)}, "float32"),
        ({"data": np.zeros((10, 2), np.int16)}, r"\(10, 2\)"),
        ({"data": np.zeros(10, np.int16), "sample_rate": 16_000}, "16000 Hz"),
    ],
)
def test_a_chunk_of_the_wrong_kind_is_named(fields: dict[str, object], wrong: str) -> None:
    with pytest.raises(InputError, match=wrong):
        PlayQueue().push(speech(0, **fields))


def test_the_samples_are_those_at_the_time_of_the_push() -> None:
    queue = PlayQueue()
    data = ramp(480)
    queue.push(speech(data))
    data[:] = 0
    np.testing.assert_array_equal(queue.take(480, T0), ramp(480))


def test_a_strided_block_can_be_filled_in_place() -> None:
    queue = PlayQueue()
    queue.push(speech(480))
    stereo = np.full((480, 2), 7, np.int16)
    queue.take(480, T0, stereo[:, 0])
    np.testing.assert_array_equal(stereo[:, 0], ramp(480))
    assert (stereo[:, 1] == 7).all()


# What happens at which multiple of a common step: pushes fall between blocks of any size.
STEP = 960
pushes = st.lists(
    st.tuples(
        st.integers(0, 20),  # step at which it is pushed
        st.integers(1, 3),  # turn
        st.integers(0, 2_500),  # samples
        st.integers(-20 * NS_PER_MS, 300 * NS_PER_MS),  # stamp after T0
        st.sampled_from(["", "one", "two words", "你好世界", "and so on."]),
        st.booleans(),  # last
        st.sampled_from([0, 1_000, 2_000]),  # of its samples are a pause
    ),
    max_size=12,
)
interruptions = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 3)), max_size=2)


def run(plan: list[tuple], cuts: list[tuple[int, int]], block: int) -> Device:
    queue = PlayQueue()
    device = Device(queue, block)
    sequences: dict[tuple[int, int], int] = {}
    for step in range(21):
        for at, epoch in cuts:
            if at == step:
                queue.interrupt(epoch)
        for at, turn, samples, offset_ns, text, last, pause in plan:
            if at == step:
                key = (queue.epoch, turn)
                queue.push(
                    speech(
                        paused(samples, min(samples, pause)),
                        turn,
                        epoch=queue.epoch,
                        sequence=sequences.get(key, 0),
                        stamp_ns=T0 + offset_ns,
                        text=text,
                        last=last,
                    )
                )
                sequences[key] = sequences.get(key, 0) + 1
        device.play(STEP)
    return device.play(2 * STEP)


@settings(max_examples=150, deadline=None)
@given(plan=pushes, cuts=interruptions, block=st.sampled_from([1, 60, 96, 320, 480, 960]))
def test_block_sizes_change_neither_sound_nor_account(
    plan: list[tuple], cuts: list[tuple[int, int]], block: int
) -> None:
    one, other = run(plan, cuts, STEP), run(plan, cuts, block)
    np.testing.assert_array_equal(one.samples, other.samples)
    assert one.reports == other.reports
    assert len(one.played) == len(other.played)
    for mine, theirs in zip(one.played, other.played, strict=True):
        assert mine.stamp_ns == theirs.stamp_ns
        np.testing.assert_array_equal(mine.data, theirs.data)


@settings(max_examples=150, deadline=None)
@given(plan=pushes, cuts=interruptions)
def test_the_account_adds_up(plan: list[tuple], cuts: list[tuple[int, int]]) -> None:
    device = run(plan, cuts, 480)
    turns = {(r.epoch, r.turn) for r in device.reports}
    for key in turns:
        reports = [r for r in device.reports if (r.epoch, r.turn) == key]
        ends = [r for r in reports if r.event in (FINISHED, INTERRUPTED)]
        assert len(ends) <= 1
        assert not ends or reports[-1] is ends[0]
        assert [r.event for r in reports].count(STARTED) <= 1
        counts = [r.turn_samples for r in reports]
        assert counts == sorted(counts)
        assert all(b.heard.startswith(a.heard) for a, b in pairwise(reports))
        playing = [r.stamp_ns for r in reports if r.event in (STARTED, PLAYING)]
        assert all(abs(b - a - 100 * NS_PER_MS) <= 1 for a, b in pairwise(playing))
    # All that sounded is on the tape, sample by sample, where the tape says it was.
    tape = np.zeros(len(device.samples) + 480, np.int16)
    for chunk in device.played:
        first = round((chunk.stamp_ns - T0) * RATE / NS_PER_S)
        tape[first : first + len(chunk.data)] = chunk.data
    end = len(device.samples) - 480  # the last chunk may not be full yet
    np.testing.assert_array_equal(tape[:end], device.samples[:end])


def test_an_interruption_from_another_thread_leaves_the_account_whole() -> None:
    queue = PlayQueue()
    over = threading.Event()
    device = Device(queue)

    def play() -> None:
        while not over.is_set():
            device.play(480)

    player = threading.Thread(target=play)
    player.start()
    for epoch in range(1, 120):
        queue.push(speech(2_400, turn=epoch, epoch=epoch))
        queue.interrupt(epoch + 1)
    over.set()
    player.join()
    device.play(960)
    for turn in range(1, 120):
        events = device.events(turn)
        assert events[-1] in (INTERRUPTED, FINISHED)
        assert len([e for e in events if e in (INTERRUPTED, FINISHED)]) == 1
