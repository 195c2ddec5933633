"""A made-up conversation of 30 s, as the messages a recording of it would hold.

A person asks (2.0 to 4.4 s), the robot answers to its end; a hand covers the camera for 3 s; the
robot tells something, the person cuts in at 16.0 s and the robot falls silent 235 ms later; a door
slams. Sound is made of tones, or spoken by espeak-ng where that is asked for and present.
"""

from __future__ import annotations

import io
import shutil
import subprocess

import numpy as np

from minicpmo_ros.messages import (
    MIC_RATE_HZ,
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
    State,
    VoiceActivity,
    WordMark,
)

T0 = 1_700_000_000 * NS_PER_S
LENGTH_S = 30
ASKED, CUT_IN = "Hello robot, what do you see?", "Stop, that is enough."
ANSWER = "I hear you. I see a bright room, and something that moves to the right."
STORY = (
    "Let me tell you more about it. The ball is red, it rolls along the wall, and then it is gone."
)
SILENT_S = 16.235

Logged = tuple[str, int, object]


def at(seconds: float) -> int:
    """A stamp so many seconds into the conversation."""
    return T0 + round(seconds * NS_PER_S)


def spoken(text: str, rate_hz: int, espeak: bool = False, pitch_hz: float = 140.0) -> np.ndarray:
    """int16 [n]: a voice, or a tone for each word with silence between."""
    if espeak and shutil.which("espeak-ng"):
        import soundfile
        import soxr

        made = subprocess.run(
            ["espeak-ng", "--stdout", "-p", str(int(pitch_hz / 3)), text],
            capture_output=True,
            check=True,
        )
        data, rate = soundfile.read(io.BytesIO(made.stdout), dtype="int16")
        return np.asarray(soxr.resample(data, rate, rate_hz), np.int16)
    pieces = []
    for i, word in enumerate(text.split()):
        t = np.arange(int((0.09 + 0.035 * len(word)) * rate_hz)) / rate_hz
        shape = np.sin(np.pi * t / t[-1]) ** 0.6
        pitch = pitch_hz * (1.0 + 0.12 * np.sin(i * 1.7))
        tone = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in (1, 2, 3, 5))
        pieces += [9_000 * shape * tone, np.zeros(int(0.05 * rate_hz))]
    return np.concatenate(pieces).astype(np.int16)


def scene(seconds: float, covered: bool) -> np.ndarray:
    """uint8 [240, 320, 3]: a ball that rolls along a wall, or the inside of a hand."""
    y, x = np.mgrid[0:240, 0:320]
    if covered:
        return np.stack([38 - y // 16, 20 - y // 24, 16 - y // 30], axis=2).astype(np.uint8)
    wall = np.stack([120 + y // 3, 150 + y // 4, 190 - y // 5], axis=2)
    wall[170:] = (110, 82, 60)
    wall[30:110, 210:280] = (235, 240, 255)
    wall[68:72, 210:280] = wall[30:110, 243:247] = (90, 80, 70)
    ball_x = 320 * (seconds % 15) / 15
    inside = (x - ball_x) ** 2 + (y - 168) ** 2 < 26**2
    shade = np.clip(1.15 - np.hypot(x - ball_x + 9, y - 158) / 44, 0.35, 1.0)[inside]
    wall[inside] = np.stack([225 * shade, 50 * shade, 40 * shade], axis=1)
    return wall.astype(np.uint8)


def conversation(espeak: bool = False) -> list[Logged]:
    """(topic, log_ns, message) in the order of log times."""
    logged: list[Logged] = [*_camera(), *_microphone(espeak), *_voice(), *_alerts(), *_states()]
    first = _turn(1, 0, 6.0, ANSWER, espeak)
    second = _turn(2, 0, 13.0, STORY, espeak)
    logged += first + second
    logged += _playback(first, 6.03, None) + _playback(second, 13.03, SILENT_S)
    logged += _decisions(first, second)
    return sorted(logged, key=lambda entry: entry[1])


def _camera() -> list[Logged]:
    made = []
    for i in range(LENGTH_S * 5):
        s = i / 5
        if 24.0 <= s < 26.5:  # the camera is lost
            continue
        picture = Picture(at(s), lambda s=s: scene(s, 9.0 <= s < 12.0))
        made.append(("image_raw/compressed", at(s) + (11 + i % 7) * NS_PER_MS, picture))
    return made


def _microphone(espeak: bool) -> list[Logged]:
    rng = np.random.default_rng(1)
    sound = rng.normal(0, 120, LENGTH_S * MIC_RATE_HZ)
    for start_s, text in ((2.0, ASKED), (16.0, CUT_IN)):
        voice = spoken(text, MIC_RATE_HZ, espeak, pitch_hz=210.0)
        begin = int(start_s * MIC_RATE_HZ)
        sound[begin : begin + len(voice)] += voice
    slam = np.arange(int(0.5 * MIC_RATE_HZ))
    begin = int(21.3 * MIC_RATE_HZ)
    sound[begin : begin + len(slam)] += rng.normal(0, 14_000, len(slam)) * np.exp(-slam / 1_500)
    data = np.clip(sound, -32_768, 32_767).astype(np.int16)
    made = []
    for i in range(LENGTH_S * 10):
        if 270 <= i < 273:  # 300 ms never arrived
            continue
        chunk = AudioChunk(at(i / 10), data[i * 1_600 : (i + 1) * 1_600], sequence=i)
        made.append(("audio/mic", chunk.end_ns + (3 + i % 4) * NS_PER_MS, chunk))
    return made


def _voice() -> list[Logged]:
    marks = [(2.0, True, 1), (4.4, False, 1), (16.0, True, 2), (17.4, False, 2)]
    return [
        ("voice", at(s) + 40 * NS_PER_MS, VoiceActivity(at(s), on, n, 0.93, -21.5))
        for s, on, n in marks
    ]


def _alerts() -> list[Logged]:
    covered = "The camera seems to be covered."
    slam = "A sudden loud sound, 31 dB above the room."
    made = [
        Alert(
            at(10), "camera_covered", 1, Severity.WARNING, True, covered, 9, 0, (at(9.2),), at(40)
        ),
        Alert(at(13), "camera_covered", 1, Severity.WARNING, False, covered, 12, 0),
        Alert(at(22), "loud_sound", 2, Severity.NOTICE, True, slam, 21, 1, (at(21.3),), at(27)),
    ]
    return [("alert", alert.stamp_ns + 6 * NS_PER_MS, alert) for alert in made]


def _states() -> list[Logged]:
    rows = [
        (0.0, State.LISTENING, 0, "session opened"),
        (6.0, State.SPEAKING, 0, "turn 1"),
        (11.4, State.LISTENING, 0, "turn 1 was heard to its end"),
        (13.0, State.SPEAKING, 0, "turn 2"),
        (16.2, State.LISTENING, 1, "barge-in: voice for 200 ms while the robot spoke"),
    ]
    return [
        (
            "state",
            at(s) + 2 * NS_PER_MS,
            SessionState(at(s), state, epoch, brain="reflex", detail=why),
        )
        for s, state, epoch, why in rows
    ]


def _turn(turn: int, epoch: int, start_s: float, text: str, espeak: bool) -> list[Logged]:
    """The turn in chunks of a second, words marked in proportion to their letters."""
    data = spoken(text, SPEECH_RATE_HZ, espeak, pitch_hz=110.0)
    words = text.split()
    ends = np.cumsum([len(w) + 2 for w in words]) * len(data) // (len(text) + len(words) + 1)
    starts = [0, *ends[:-1]]
    made = []
    for i, first in enumerate(range(0, len(data), SPEECH_RATE_HZ)):
        stop = min(len(data), first + SPEECH_RATE_HZ)
        marks = tuple(
            WordMark(w, int(a) - first, int(b) - first)
            for w, a, b in zip(words, starts, ends, strict=True)
            if first < b <= stop
        )
        chunk = SpeechChunk(
            at(start_s) + first * NS_PER_S // SPEECH_RATE_HZ,
            epoch,
            turn,
            i,
            int(start_s) - 1,
            data[first:stop],
            " ".join(m.text for m in marks),
            marks,
            last=stop == len(data),
        )
        made.append(("audio/speech", at(start_s) + (12 + i) * NS_PER_MS, chunk))
    return made


def _playback(turn: list[Logged], start_s: float, stop_s: float | None) -> list[Logged]:
    """What the speaker says of a turn that starts at start_s and is cut at stop_s."""
    chunks = [message for _, _, message in turn]
    data = np.concatenate([c.data for c in chunks])
    offsets = np.cumsum([0, *(len(c.data) for c in chunks)])
    ends = [
        (o + w.end_sample, w.text) for o, c in zip(offsets, chunks, strict=False) for w in c.words
    ]
    total = len(data) if stop_s is None else round((stop_s - start_s) * SPEECH_RATE_HZ)
    made: list[Logged] = []

    def report(samples: int, event: PlaybackEvent) -> None:
        stamp = at(start_s) + samples * NS_PER_S // SPEECH_RATE_HZ
        heard = " ".join(text for end, text in ends if end <= samples)
        message = Playback(stamp, chunks[0].epoch, chunks[0].turn, event, samples, heard)
        made.append(("playback", stamp + 4 * NS_PER_MS, message))

    report(0, PlaybackEvent.STARTED)
    for first in range(0, total, 2_400):
        piece = data[first : min(total, first + 2_400)]
        stamp = at(start_s) + first * NS_PER_S // SPEECH_RATE_HZ
        made.append(
            ("audio/played", stamp + 90 * NS_PER_MS, AudioChunk(stamp, piece, SPEECH_RATE_HZ))
        )
        if first + 2_400 < total:
            report(first + 2_400, PlaybackEvent.PLAYING)
    report(total, PlaybackEvent.INTERRUPTED if stop_s else PlaybackEvent.FINISHED)
    return made


def _decisions(*turns: list[Logged]) -> list[Logged]:
    by_unit: dict[int, Decision] = {}
    for turn in turns:
        chunks = [message for _, _, message in turn]
        unit = chunks[0].unit
        text = " ".join(c.text for c in chunks if c.text)
        by_unit[unit] = Decision(
            at(unit + 1), unit, 0, Action.SPEAK, chunks[0].turn, text, True, "the person has ended"
        )
    made = []
    for unit in range(LENGTH_S):
        epoch = 0 if unit < 17 else 1
        why = "someone speaks" if unit in (2, 3, 4, 16, 17) else "nothing to say"
        decision = by_unit.get(
            unit, Decision(at(unit + 1), unit, epoch, Action.LISTEN, reason=why, brain="reflex")
        )
        filled = 300.0 if unit == 27 else 0.0
        decision = Decision(
            **{**vars(decision), "brain": "reflex", "audio_filled_ms": filled},
        )
        made.append(("decision", decision.stamp_ns + (8 + unit % 3) * NS_PER_MS, decision))
    return made
