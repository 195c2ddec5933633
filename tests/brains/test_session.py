"""The session with a scripted brain: epochs, barge-in, turns, failures, requests."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from minicpmo_ros.brains.api import (
    AlertNote,
    SessionSetup,
    Speech,
    UnitResult,
)
from minicpmo_ros.errors import BrainError, ConfigError, InputError
from minicpmo_ros.messages import (
    NS_PER_S,
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
    State,
    VoiceActivity,
    WordMark,
)
from tests.brains.staged import LISTEN, T0, Parrot, Script, Stage, at, talk


def test_every_unit_gives_exactly_one_decision_stamped_with_its_end():
    stage = Stage(LISTEN, talk(0.5))
    stage.hear(3.0)
    decisions = stage.of(Decision)
    assert [d.unit for d in decisions] == [0, 1, 2]
    assert [d.stamp_ns for d in decisions] == [at(1), at(2), at(3)]
    assert [d.action for d in decisions] == [Action.LISTEN, Action.SPEAK, Action.LISTEN]
    assert [d.turn for d in decisions] == [0, 1, 0]


def test_speech_is_cut_between_words_and_planned_without_gaps():
    stage = Stage(talk(2.4, "aa bb cc dd ee ff"))
    stage.hear(1.0)
    chunks = stage.of(SpeechChunk)
    assert " ".join(c.text for c in chunks) == "aa bb cc dd ee ff"
    assert sum(len(c.data) for c in chunks) == round(2.4 * 24_000)
    assert all(len(c.data) <= 24_000 for c in chunks)
    assert [c.last for c in chunks] == [False] * (len(chunks) - 1) + [True]
    for before, after in pairwise(chunks):
        assert after.stamp_ns == before.stamp_ns + before.duration_ns
    assert chunks[0].stamp_ns == at(1)
    for chunk in chunks:
        assert all(0 <= w.start_sample < w.end_sample <= len(chunk.data) for w in chunk.words)


def test_a_brain_that_speaks_over_several_units_has_one_turn():
    stage = Stage(talk(1.0, "a b", end=False), talk(1.0, "c d", end=True), talk(1.0, "e f"))
    stage.hear(3.0)
    assert [(c.turn, c.sequence, c.last) for c in stage.of(SpeechChunk)] == [
        (1, 0, False),
        (1, 1, True),
        (2, 0, True),
    ]


def test_the_brain_knows_that_the_robot_still_speaks():
    stage = Stage(talk(1.5))
    stage.hear(4.0)
    assert [around.robot_speaking for _, around in stage.brain.seen] == [False, True, False, False]


def test_voice_over_speech_stops_it_after_200_ms_and_the_epoch_grows():
    stage = Stage(talk(3.0))
    stage.hear(1.5)
    stage.hear(0.1, loud=True)
    assert stage.session.epoch == 0
    stage.hear(0.1, loud=True)
    assert stage.session.epoch == 1
    states = stage.of(SessionState)
    assert states[-1].epoch == 1
    assert states[-1].state is State.LISTENING
    # 0.7 s of 3 s had sounded: not one of four words of 0.75 s
    assert stage.brain.interrupted == [""]


def test_the_words_heard_before_an_interruption_are_told():
    stage = Stage(talk(3.0))
    stage.hear(2.6)
    stage.hear(0.2, loud=True)
    assert stage.brain.interrupted == ["one two"]


def test_voice_that_ends_as_the_robot_begins_does_not_stop_it():
    stage = Stage(talk(3.0))
    stage.hear(1.0, loud=True)
    stage.hear(0.1, loud=True)
    stage.hear(0.9)
    assert stage.session.epoch == 0


def test_barge_in_can_be_turned_off():
    stage = Stage(talk(3.0), barge_in_ms=0)
    stage.hear(1.5)
    stage.hear(1.0, loud=True)
    assert stage.session.epoch == 0


def test_what_the_brain_decided_before_an_interruption_is_not_spoken():
    stage = Stage(talk(3.0), talk(2.0))
    stage.worker.held = True
    stage.hear(1.0)
    stage.worker.run(1)
    stage.hear(1.0)
    assert stage.session.interrupt("test", stage.now).success
    stage.worker.run(2)
    assert {c.epoch for c in stage.of(SpeechChunk)} == {0}
    assert {c.turn for c in stage.of(SpeechChunk)} == {1}
    late = stage.of(Decision)[-1]
    assert late.epoch == 0
    assert "interrupted" in late.reason


def test_interrupting_silence_changes_nothing():
    stage = Stage()
    stage.hear(1.0)
    done = stage.session.interrupt("test", stage.now)
    assert not done.success
    assert stage.session.epoch == 0


def test_a_late_speaker_moves_what_counts_as_heard():
    stage = Stage(talk(3.0))
    stage.hear(1.0)
    stage.session.playback(Playback(at(1.5), 0, 1, PlaybackEvent.STARTED, 0))
    stage.hear(2.2)
    stage.session.interrupt("test", stage.now)  # 1.7 s after the real start
    assert stage.brain.interrupted == ["one two"]


def test_a_brain_that_raises_costs_its_unit_and_nothing_else():
    stage = Stage(LISTEN, RuntimeError("boom"), talk(0.5))
    stage.hear(3.0)
    decisions = stage.of(Decision)
    assert [d.action for d in decisions] == [Action.LISTEN, Action.LISTEN, Action.SPEAK]
    assert "boom" in decisions[1].reason
    assert any("boom" in text for _, text in stage.problems)
    assert State.FAULT in [s.state for s in stage.of(SessionState)]
    assert stage.of(SessionState)[-1].state is State.SPEAKING


def test_alerts_keep_their_number_from_raising_to_clearing():
    def note(kind: str, active: bool) -> UnitResult:
        alert = AlertNote(kind, Severity.WARNING, kind, active, (at(0.5),), 5.0)
        return UnitResult(Action.LISTEN, alerts=(alert,))

    stage = Stage(note("a", True), note("b", True), note("a", False), note("zz", False))
    stage.hear(4.0)
    alerts = stage.of(Alert)
    assert [(x.kind, x.number, x.active) for x in alerts] == [
        ("a", 1, True),
        ("b", 2, True),
        ("a", 1, False),
    ]
    assert alerts[0].expires_ns == at(6)


def test_an_alert_that_has_expired_is_a_new_one_when_it_comes_back():
    def bang(lifetime_s: float) -> UnitResult:
        note = AlertNote("bang", Severity.WARNING, "bang", True, (at(0.5),), lifetime_s)
        return UnitResult(Action.LISTEN, alerts=(note,))

    stage = Stage(bang(1.5), bang(1.5), LISTEN, LISTEN, bang(1.5))
    stage.hear(5.0)
    assert [x.number for x in stage.of(Alert)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s.set_mode("karaoke", T0), "karaoke.*duplex"),
        (lambda s: s.set_prompt("be nice", "en", T0), "takes no prompt"),
        (lambda s: s.set_prompt("", "xx", T0), "xx.*en, zh"),
    ],
)
def test_what_a_brain_cannot_do_is_refused_with_the_reason(change, text):
    with pytest.raises(ConfigError, match=text):
        change(Stage().session)


def test_a_reset_opens_the_brain_again_and_silences_the_robot():
    stage = Stage(talk(3.0))
    stage.hear(1.5)
    stage.session.reset(stage.now)
    assert stage.session.epoch == 1
    assert len(stage.brain.opened) == 2


def test_a_clock_that_goes_back_ends_speech_and_goes_on_listening():
    stage = Stage(talk(3.0))
    stage.hear(1.5)
    before = len(stage.of(Decision))
    stage.now = T0 - 100 * NS_PER_S
    stage.hear(2.5)
    assert stage.session.epoch == 1
    units = [d.unit for d in stage.of(Decision)]
    assert units == sorted(set(units))
    assert len(units) > before
    assert any(kind == "clock" for kind, _ in stage.problems)


def test_an_alert_of_before_the_clock_went_back_does_not_live_on():
    """It would expire at a time that does not come again for long."""
    note = AlertNote("fire", Severity.WARNING, "Fire!", True, (), 1.0)
    fire = UnitResult(Action.LISTEN, alerts=(note,))
    stage = Stage(fire, fire)
    stage.hear(1.0)
    stage.now = T0 - 100 * NS_PER_S
    stage.hear(2.5)
    assert [x.number for x in stage.of(Alert)] == [1, 2]


def test_a_prompt_for_a_brain_that_takes_none_is_refused_at_once():
    with pytest.raises(ConfigError, match="takes no prompt"):
        Stage(setup=SessionSetup(prompt="be nice"))


def test_bad_sound_is_refused_and_the_next_chunk_is_taken():
    stage = Stage()
    stage.hear(0.5)
    with pytest.raises(InputError):
        stage.session.audio(AudioChunk(0, np.zeros(1600, np.int16)), stage.now)
    stage.hear(0.5)
    assert [d.audio_filled_ms for d in stage.of(Decision)] == [0.0]


def test_units_go_on_without_a_microphone():
    stage = Stage()
    stage.hear(1.0)
    for i in range(1, 40):
        stage.session.clock(at(1 + i / 10))
    decisions = stage.of(Decision)
    assert len(decisions) >= 4
    assert decisions[-1].audio_filled_ms == 1000.0
    assert stage.brain.seen[-1][1].mic_lost_ms > 0


def test_a_slow_brain_skips_units_instead_of_falling_behind():
    stage = Stage(backlog=3)
    stage.worker.held = True
    stage.hear(5.0)
    assert stage.session.backlog == 3
    assert [(d.unit, "skipped" in d.reason) for d in stage.of(Decision)] == [(3, True), (4, True)]
    assert stage.session.units_skipped == 2
    stage.worker.run(3)
    assert stage.session.backlog == 0
    stage.hear(1.0)
    assert stage.session.units_skipped == 2


def test_only_units_count_for_the_skipping_of_units():
    stage = Stage(synthesiser=Parrot(), backlog=1)
    stage.worker.held = True
    for _ in range(5):
        stage.session.say("hello", stage.now)
        stage.session.reset(stage.now)
    assert stage.session.busy
    stage.hear(1.0)
    assert stage.session.units_skipped == 0


def test_a_fast_camera_over_a_busy_brain_costs_no_unit_and_one_look():
    class Curious(Script):
        def __init__(self) -> None:
            super().__init__()
            self.looks: list[int] = []

        def picture(self, picture) -> None:
            self.looks.append(picture.stamp_ns)

    stage = Stage(brain=Curious(), backlog=2)
    stage.worker.held = True
    stage.hear(1.0)
    stamps = [at(1 + frame / 100) for frame in range(30)]
    stage.hear(0.3)
    for stamp_ns in stamps:
        picture = Picture.of(stamp_ns, np.zeros((4, 4, 3), np.uint8))
        stage.session.picture(picture, stage.now)
    assert stage.worker.waiting == 2
    stage.worker.run(2)
    assert stage.brain.looks == stamps[-1:]
    stage.hear(0.7)
    stage.worker.run(1)
    assert stage.session.units_skipped == 0
    assert stage.of(Decision)[-1].pictures == (stamps[-1],)


def test_a_turn_that_its_brain_failed_in_is_over_and_others_may_speak():
    stage = Stage(talk(1.0, "a b", end=False), RuntimeError("boom"), LISTEN, synthesiser=Parrot())
    stage.hear(1.0)
    said = stage.session.say("later", stage.now)
    stage.hear(1.0)
    chunks = stage.of(SpeechChunk)
    assert [(c.turn, len(c.data), c.last) for c in chunks] == [
        (1, 24_000, False),
        (1, 0, True),
        (said, 24_000, True),
    ]


def test_a_turn_that_ends_without_more_speech_is_told_to_the_speaker():
    end = UnitResult(Action.SPEAK, end_of_turn=True)
    stage = Stage(end, talk(1.0, "a b", end=False), end)
    stage.hear(3.0)
    assert [(c.turn, len(c.data), c.last) for c in stage.of(SpeechChunk)] == [
        (1, 24_000, False),
        (1, 0, True),
    ]


def test_the_state_says_when_a_brain_that_failed_answers_again():
    stage = Stage(RuntimeError("boom"), LISTEN)
    stage.hear(3.0)
    states = [(s.state, s.detail) for s in stage.of(SessionState)]
    assert states[1:] == [
        (State.FAULT, "RuntimeError: boom"),
        (State.LISTENING, "the brain 'script' answers again"),
    ]


def test_pictures_are_named_in_the_decision():
    stage = Stage()
    stage.hear(0.3)
    stage.session.picture(Picture.of(at(0.25), np.zeros((4, 4, 3), np.uint8)), stage.now)
    stage.hear(0.7)
    assert stage.of(Decision)[0].pictures == (at(0.25),)


def test_stop_silences_and_says_idle():
    stage = Stage(talk(3.0))
    stage.hear(1.5)
    stage.session.stop(stage.now)
    assert stage.session.epoch == 1
    assert stage.of(SessionState)[-1].state is State.IDLE


# -- speech that is made while it is published --------------------------------------------------


class Piecewise(Script):
    """Speaks four words of 0.5 s, each made when it is asked for; `made` are those so far."""

    def __init__(self, *, end: bool = True, fails_at: int = 9) -> None:
        super().__init__()
        self.made: list[str] = []
        self.remembered: list[tuple[str, int]] = []
        self._end, self._fails_at, self._spoken = end, fails_at, False

    def unit(self, unit, around):
        if self._spoken:
            return super().unit(unit, around)
        self._spoken = True
        pieces = self._pieces()
        return UnitResult(
            Action.SPEAK, "one two three four", self._end, "talks", (next(pieces),), pieces
        )

    def _pieces(self):
        for number, word in enumerate(["one", "two", "three", "four"]):
            if number == self._fails_at:
                raise BrainError("the vocoder is gone")
            self.made.append(word)
            mark = WordMark(word, 0, 12_000)
            yield Speech(np.full(12_000, 1000, np.int16), word, (mark,))

    def remember(self, heard: str, unit: int) -> None:
        self.remembered.append((heard, unit))


def test_the_first_piece_is_published_before_the_next_is_made():
    brain = Piecewise()
    made_when_published = []
    stage = Stage(brain=brain)
    keep = stage.out.append

    def publish(message):
        if isinstance(message, SpeechChunk):
            made_when_published.append(len(brain.made))
        keep(message)

    stage.session._publish = publish
    stage.hear(1.0)
    assert made_when_published[:4] == [1, 2, 3, 4]
    chunks = stage.of(SpeechChunk)
    assert [c.text for c in chunks] == ["one", "two", "three", "four", ""]
    assert [c.last for c in chunks] == [False, False, False, False, True]
    assert [c.sequence for c in chunks] == [0, 1, 2, 3, 4]
    assert [c.stamp_ns for c in chunks] == [at(1), at(1.5), at(2), at(2.5), at(3)]
    assert stage.of(Decision)[0].turn == 1


def test_a_turn_in_pieces_goes_on_in_the_next_unit():
    stage = Stage(brain=Piecewise(end=False))
    stage.hear(1.0)
    assert not any(c.last for c in stage.of(SpeechChunk))
    stage.brain.results.append(talk(0.5, "five"))
    stage.hear(1.0)
    assert [(c.turn, c.last) for c in stage.of(SpeechChunk)][-1] == (1, True)


def test_what_is_cut_off_while_it_is_made_is_made_no_further():
    brain = Piecewise()
    stage = Stage(brain=brain)
    keep = stage.out.append

    def publish(message):
        keep(message)
        if isinstance(message, SpeechChunk) and message.sequence == 1:
            stage.session.interrupt("enough", message.stamp_ns)

    stage.session._publish = publish
    stage.hear(1.0)
    assert brain.made == ["one", "two", "three"]
    assert [c.text for c in stage.of(SpeechChunk)] == ["one", "two"]
    assert brain.remembered == [("one", 0)]
    assert stage.session.epoch == 1


def test_speech_that_fails_on_its_way_is_told_and_the_turn_ends():
    stage = Stage(brain=Piecewise(fails_at=2))
    stage.hear(1.0)
    assert [c.text for c in stage.of(SpeechChunk)] == ["one", "two", ""]
    assert stage.of(SpeechChunk)[-1].last
    assert any("the vocoder is gone" in text for _, text in stage.problems)
    assert stage.session.brain_failures == 1


def test_a_text_to_say_waits_for_the_pieces_that_are_still_made():
    stage = Stage(brain=Piecewise(), synthesiser=Parrot())
    keep = stage.out.append

    def publish(message):
        keep(message)
        if isinstance(message, SpeechChunk) and (message.turn, message.sequence) == (1, 0):
            stage.session.say("later", stage.now)

    stage.session._publish = publish
    stage.hear(1.0)
    assert [(c.turn, c.text) for c in stage.of(SpeechChunk)][4:] == [(1, "")]
    stage.hear(1.1)
    assert [(c.turn, c.text) for c in stage.of(SpeechChunk)][5:] == [(2, "later")]


# -- what the brain is told of its own turns ------------------------------------------------------


def test_a_brain_is_told_what_was_heard_of_its_own_turn_and_in_which_unit():
    brain = Piecewise()
    stage = Stage(brain=brain, synthesiser=Parrot())
    stage.hear(2.2)
    stage.session.interrupt("enough", stage.now)
    assert brain.remembered == [("one two", 0)]
    # In the next epoch it has said nothing.
    turn = stage.session.say("hello there", stage.now)
    stage.hear(0.6)
    stage.session.interrupt("enough", stage.now)
    assert stage.session.turn(turn).heard_at(stage.now) == "hello"
    assert brain.interrupted == ["one two", "hello"]
    assert brain.remembered[1:] == [("", -1)]


def test_a_turn_that_was_heard_is_not_cut_by_what_comes_behind_it():
    brain = Piecewise()
    stage = Stage(brain=brain, synthesiser=Parrot())
    stage.hear(3.5)
    stage.session.say("hello there", stage.now)
    stage.session.interrupt("enough", stage.now)
    assert brain.remembered == [("one two three four", 0)]


def test_when_the_clock_goes_back_what_was_heard_until_then_counts():
    brain = Piecewise()
    stage = Stage(brain=brain)
    stage.hear(2.2)
    stage.now -= 100 * NS_PER_S
    stage.hear(0.1)
    assert brain.remembered == [("one two", 0)]


def test_words_of_scripts_without_spaces_are_told_without():
    marks = (WordMark("你", 0, 12_000), WordMark("好", 12_000, 24_000))
    speech = Speech(np.full(24_000, 1000, np.int16), "你好", marks)
    stage = Stage(UnitResult(Action.SPEAK, "你好", True, "talks", (speech,)), chunk_s=2.0)
    stage.hear(1.9)
    stage.hear(0.2)
    assert stage.of(SpeechChunk)[0].text == "你好"
    assert stage.session.interrupt("enough", at(2) - 1).heard == "你"


def test_a_voice_is_chosen_among_those_that_the_brain_has():
    class Choir(Script):
        def voices(self):
            return ("anna", "bob")

    stage = Stage(brain=Choir())
    assert stage.session.set_voice("bob", stage.now) == "a new session in mode duplex"
    assert stage.brain.opened[-1].voice == "bob"
    stage.session.set_voice("", stage.now)
    assert stage.brain.opened[-1].voice == ""
    with pytest.raises(ConfigError, match="voice 'carl': the brain 'script' has anna, bob"):
        stage.session.set_voice("carl", stage.now)
    with pytest.raises(ConfigError, match="voice 'bob': the brain 'script' has none to choose"):
        Stage().session.set_voice("bob", T0)


# -- alerts that cut off what is being said -------------------------------------------------------


def alarmed(severity: Severity, speech: UnitResult = LISTEN) -> UnitResult:
    note = AlertNote("fire", severity, "Fire!", True, (), 5.0)
    return replace(speech, alerts=(note,))


@pytest.mark.parametrize(
    ("lowest", "severity", "cuts"),
    [
        (Severity.CRITICAL, Severity.CRITICAL, True),
        (Severity.CRITICAL, Severity.WARNING, False),
        (Severity.NOTICE, Severity.WARNING, True),
        (None, Severity.CRITICAL, False),
    ],
)
def test_an_alert_that_is_severe_enough_cuts_off_what_is_being_said(lowest, severity, cuts):
    stage = Stage(talk(4.0), alarmed(severity), interrupting_severity=lowest)
    stage.hear(2.0)
    assert stage.session.epoch == int(cuts)
    assert stage.brain.interrupted == (["one"] if cuts else [])
    (alert,) = stage.of(Alert)
    assert alert.severity is severity
    if cuts:
        assert stage.of(SessionState)[-1].detail == "alert: fire"


def test_what_is_said_of_the_alert_itself_sounds_at_once():
    stage = Stage(talk(4.0), alarmed(Severity.CRITICAL, talk(1.0, "Fire !")))
    stage.hear(2.0)
    first, last = [c for c in stage.of(SpeechChunk) if c.turn == 1], stage.of(SpeechChunk)[-1]
    assert {c.epoch for c in first} == {0}
    assert (last.turn, last.epoch, last.stamp_ns, last.text) == (2, 1, at(2), "Fire !")
    assert (stage.of(Decision)[-1].epoch, stage.of(Decision)[-1].turn) == (1, 2)
    assert stage.of(Alert)[-1].epoch == 1
    assert stage.brain.interrupted == []  # it has gone on already
    # One state tells of both: readers keep the newest alone, and a replay counts them.
    *_, before, after = [(s.state, s.epoch, s.detail) for s in stage.of(SessionState)]
    assert (before[:2], after) == ((State.SPEAKING, 0), (State.SPEAKING, 1, "alert: fire"))


def test_a_cut_for_an_alert_whose_words_come_later_is_told_at_once():
    stage = Stage(talk(4.0), alarmed(Severity.CRITICAL, UnitResult(Action.SPEAK, text="Fire !")))
    stage.hear(2.0)
    told = stage.of(SessionState)[-1]
    assert (told.state, told.epoch, told.detail) == (State.LISTENING, 1, "alert: fire")


def test_an_alert_that_is_renewed_cuts_nothing_off_again():
    fire = alarmed(Severity.CRITICAL)
    stage = Stage(fire, talk(4.0), fire)
    stage.hear(3.0)
    assert stage.session.epoch == 0
    assert [a.number for a in stage.of(Alert)] == [1, 1]


def test_an_alert_in_silence_cuts_nothing_off():
    stage = Stage(alarmed(Severity.CRITICAL, talk(1.0)))
    stage.hear(1.0)
    assert stage.session.epoch == 0
    assert stage.of(SpeechChunk)


def test_the_unit_of_the_last_speech_is_told_with_what_was_heard():
    brain = Piecewise(end=False)
    brain.results.append(talk(2.0, "five six"))
    stage = Stage(LISTEN, brain=brain)
    stage.hear(2.6)
    stage.session.interrupt("enough", stage.now)
    assert brain.remembered == [("one two three", 1)]


# -- what must not stay behind --------------------------------------------------------------------


def test_a_unit_that_is_skipped_leaves_the_speech_of_the_one_before_alone():
    brain = Piecewise()
    stage = Stage(brain=brain, backlog=1)
    keep = stage.out.append

    def publish(message):
        keep(message)
        if isinstance(message, SpeechChunk) and message.sequence == 1:
            stage.hear(1.0)  # while the pieces are made, the next unit closes

    stage.session._publish = publish
    stage.hear(1.0)
    assert stage.session.units_skipped == 1
    assert [c.text for c in stage.of(SpeechChunk)] == ["one", "two", "three", "four", ""]


def test_a_voice_does_not_go_on_over_a_pause_of_the_session():
    stage = Stage()
    stage.hear(0.5)
    stage.hear(0.5, loud=True)
    stage.session.stop(stage.now)
    stage.now += 3 * NS_PER_S
    stage.session.start(stage.now)
    stage.hear(2.0)
    assert [around.voice for _, around in stage.brain.seen[-2:]] == [(), ()]


def test_a_voice_stops_where_it_was_heard_last_when_the_microphone_is_lost():
    stage = Stage()
    stage.hear(0.5)
    stage.hear(0.5, loud=True)
    for tenths in range(1, 60):
        stage.session.clock(stage.now + tenths * NS_PER_S // 10)
    (start, stop) = stage.of(VoiceActivity)
    assert (start.speaking, stop.speaking, stop.segment) == (True, False, start.segment)
    assert stop.stamp_ns == at(1)
    assert [around.voice for _, around in stage.brain.seen[-2:]] == [(), ()]
    stage.now += 6 * NS_PER_S
    stage.hear(0.5, loud=True)
    assert stage.of(VoiceActivity)[-1].speaking


@pytest.mark.parametrize("event", [PlaybackEvent.FINISHED, PlaybackEvent.INTERRUPTED])
def test_a_turn_that_the_speaker_gave_up_is_over_and_only_what_sounded_was_heard(event):
    brain = Script(talk(1.0, "a b", end=False), LISTEN, talk(1.0, "c d"))
    stage = Stage(brain=brain)
    stage.hear(2.0)
    stage.session.playback(Playback(at(1.5), 0, 1, event, 12_000, "a"))
    stage.hear(1.0)
    assert [(c.turn, c.text) for c in stage.of(SpeechChunk)] == [(1, "a b"), (2, "c d")]
    assert stage.session.turn(1).heard_at(stage.now) == "a"
