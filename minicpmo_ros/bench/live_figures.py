"""From what happened in a live run to figures: latencies, losses, cost."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from minicpmo_ros.bench.figures import Figure
from minicpmo_ros.bench.live import PICTURE_HZ, Measured
from minicpmo_ros.bench.trace import Event, Rows
from minicpmo_ros.errors import MinicpmoError
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S


def figures(run: Measured, *, on_device: bool) -> list[Figure]:
    """on_device: the speaker was a sound device. Raises MinicpmoError where too little happened."""
    whole = run.rows  # with what was on its way when the steady part ended
    sent = whole.between(run.from_ns, run.to_ns)
    decided, brain = sent.at(Event.DECISION_OUT), sent.value(Event.BRAIN)
    ends = sent.value(Event.DECISION_OUT)
    if not decided:
        raise MinicpmoError("the stack decided nothing in the time measured: give more --seconds")
    latency = {unit: at - ends[unit] for unit, at in decided.items()}
    bare = _percentiles([ns - brain.get(unit, 0) for unit, ns in latency.items()], 50, 99)
    mic_out, mic_in = sent.at(Event.MIC_OUT), whole.at(Event.MIC_IN)
    captured, seen = sent.at(Event.PICTURE_OUT), whole.at(Event.PICTURE_IN)
    speech_out, speech_in = whole.at(Event.SPEECH_OUT), whole.at(Event.SPEECH_IN)
    heard = _first_samples(whole, on_device)
    unqueued = [turn for turn, alone in whole.value(Event.SPEECH_IN).items() if alone]
    first = [heard[turn] - speech_out[turn] for turn in unqueued if turn in heard]
    silent = _silences(whole)
    cut = [silent[turn] - call for turn, call in run.calls.items() if turn in silent]
    if not first or not cut:
        raise MinicpmoError("the robot did not speak: is espeak-ng installed?")
    first_ms, cut_ms = _percentiles(first, 50, 95), _percentiles(cut, 50, 95)
    by_epoch, epoch_in = whole.at(Event.INTERRUPT_IN), whole.at(Event.EPOCH_IN)
    ms = "ms"
    hops = {
        "capture_to_mic": _between(sent.value(Event.MIC_OUT), mic_out),
        "mic_to_omni": _between(mic_out, mic_in),
        "capture_to_camera": [at - stamp for stamp, at in captured.items()],
        "camera_to_omni": _between(captured, seen),
        "sound_to_decision": _after_sound(sent, decided, ends, brain),
        "brain": list(brain.values()),
        "omni_to_speaker": _between(speech_out, speech_in),
        "speaker_to_device": _between({t: speech_in[t] for t in unqueued}, heard),
        "interrupt_to_omni": _calls_to_omni(run.calls, by_epoch),
        "omni_to_silence_order": _between(by_epoch, epoch_in),
    }
    return [
        Figure.at_most("ros.unit_to_decision_ms.p50", bare[0], 5, ms),
        Figure.at_most("ros.unit_to_decision_ms.p99", bare[1], 25, ms),
        *_pair("ros.unit_to_decision_with_brain_ms", list(latency.values())),
        Figure.at_most("ros.first_speech_to_device_ms", first_ms[1], 60, "ms, p95"),
        Figure("ros.first_speech_to_device_ms.p50", first_ms[0], ms),
        Figure("ros.interrupt_to_silence_ms.p50", cut_ms[0], ms),
        Figure.at_most("ros.interrupt_to_silence_ms.p95", cut_ms[1], 60, ms),
        Figure.at_most("ros.cpu_percent_of_core", run.cpu_percent, 25, "%"),
        Figure.at_most("ros.audio_lost", _audio_lost(mic_out, mic_in), 0, "chunks"),
        Figure("ros.audio_chunks", len(mic_out), "chunks"),
        Figure("ros.audio_filled_ms", sum(sent.value(Event.FILLED).values()) / NS_PER_MS, ms),
        Figure.at_most("ros.pictures_lost", _pictures_lost(captured, seen), 0, "pictures"),
        Figure("ros.pictures", len(captured), "pictures"),
        Figure("ros.units", len(decided), "units"),
        Figure("ros.turns", len(unqueued), "turns"),
        Figure("ros.interruptions", len(cut), "times"),
        *(figure for name, ns in hops.items() for figure in _pair(f"ros.hop_{name}_ms", ns)),
        Figure("ros.others_percent_of_machine", run.others_percent, "%"),
        Figure("ros.memory_mb", run.memory_mb, "MB"),
        Figure("ros.memory_growth_live_mb", run.grown_mb, "MB"),
    ]


def _after_sound(
    sent: Rows, decided: dict[int, int], ends: dict[int, int], brain: dict[int, int]
) -> list[int]:
    """From the end of the chunk that completes a unit to its decision, without the brain's time.

    Chunks come whole: where they do not end with the unit, it waits for one that goes beyond.
    """
    published = sent.at(Event.MIC_OUT)
    chunks = sorted((end_ns, published[key]) for key, end_ns in sent.value(Event.MIC_OUT).items())
    slack_ns = NS_PER_MS  # stamps of a device scatter
    spans = []
    for unit, at_ns in decided.items():
        i = bisect_left(chunks, (ends[unit] - slack_ns, 0))
        # A unit whose sound does not come in time is decided without it.
        if i < len(chunks) and chunks[i][1] <= at_ns:
            spans.append(at_ns - chunks[i][0] - brain.get(unit, 0))
    return spans


def _audio_lost(out: dict[int, int], heard: dict[int, int]) -> int:
    """Chunks that the microphone made and the omni node did not get, sent or not."""
    made = range(min(out), max(out) + 1) if out else range(0)
    return sum(sequence not in heard for sequence in made)


def _pictures_lost(out: dict[int, int], seen: dict[int, int]) -> int:
    """The drawn scene's pictures lie on whole multiples of the period: those not seen."""
    numbers = [round(stamp * PICTURE_HZ / NS_PER_S) for stamp in out]
    arrived = {round(stamp * PICTURE_HZ / NS_PER_S) for stamp in seen}
    made = range(min(numbers), max(numbers) + 1) if numbers else range(0)
    return sum(number not in arrived for number in made)


def _first_samples(rows: Rows, device: bool) -> dict[int, int]:
    """When the first sample of each turn sounds.

    A device says when its DAC will play it. The clock sink's blocks bear the time of their
    beginning, which is past when the clock's tick takes them: there it is the later of the two.
    """
    stamps, taken = rows.value(Event.STARTED), rows.at(Event.STARTED)
    return {turn: at if device else max(at, taken[turn]) for turn, at in stamps.items()}


def _silences(rows: Rows) -> dict[int, int]:
    """From when on nothing of a cut turn sounds: its last sample is out and the rest is dropped."""
    stamps, dropped = rows.value(Event.SILENT), rows.at(Event.SILENT)
    return {turn: max(at, dropped[turn]) for turn, at in stamps.items()}


def _between(begins: dict[int, int], ends: dict[int, int]) -> list[int]:
    return [ends[key] - at for key, at in begins.items() if key in ends]


def _calls_to_omni(calls: dict[int, int], arrivals: dict[int, int]) -> list[int]:
    """Calls wait for their answers, so each is followed by its own arrival."""
    order = sorted(arrivals.values())
    return [next(at for at in order if at >= call) - call for call in calls.values()]


def _pair(name: str, ns: Sequence[int]) -> list[Figure]:
    p50, p99 = _percentiles(ns, 50, 99)
    return [Figure(f"{name}.p50", p50, "ms"), Figure(f"{name}.p99", p99, "ms")]


def _percentiles(ns: Sequence[int], *which: float) -> list[float]:
    """In ms."""
    if not len(ns):
        raise MinicpmoError("the stack was too short in motion to be measured: more --seconds")
    return [float(p) for p in np.percentile(np.asarray(ns) / NS_PER_MS, which)]
