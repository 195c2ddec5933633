"""Figures of one or many sessions, each with the count of events behind it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.replay.scores.overlap import response_latencies_s, stop_latencies_s
from minicpmo_ros.replay.scores.proactive import Reported, reported
from minicpmo_ros.replay.scores.session import Kind, Session
from minicpmo_ros.replay.scores.ticks import TICK_S
from minicpmo_ros.replay.scores.turn_taking import TurnTaking, turn_taking

LEAST = 10
WITHIN_S = (2.0, 5.0, 10.0)
_SELECTIVITY: dict[str, Kind] = {"S_BC": "backchannel", "S_VT": "tic", "S_ND": "not_directed"}


@dataclass(frozen=True)
class Score:
    """A figure; count: events behind it. value is None where those are too few to tell."""

    value: float | None
    count: int
    unit: str = ""


@dataclass(frozen=True)
class Panel:
    """Scores by name, of so many sessions that last duration_s together. See docs/bench.md."""

    scores: Mapping[str, Score]
    sessions: int
    duration_s: float

    def __getitem__(self, name: str) -> Score:
        return self.scores[name]

    def as_figures(self, prefix: str = "") -> dict[str, float]:
        """{"prefix.R_R": value, "prefix.R_R.count": events, ...}; what is None has only a count."""
        figures: dict[str, float] = {}
        for name, score in self.scores.items():
            dotted = f"{prefix}.{name}" if prefix else name
            if score.value is not None:
                figures[dotted] = score.value
            figures[f"{dotted}.count"] = float(score.count)
        return figures

    def table(self) -> Table:
        """For a terminal; a dash is a figure of too few events."""
        table = Table(box=None, pad_edge=False)
        table.add_column("score")
        table.add_column("value", justify="right")
        table.add_column("unit")
        table.add_column("of", justify="right")
        for name, score in self.scores.items():
            value = "-" if score.value is None else f"{score.value:.3g}"
            table.add_row(name, value, score.unit, str(score.count))
        return table


def pool(
    sessions: Iterable[Session], *, least: int = LEAST, within_s: Sequence[float] = WITHIN_S
) -> Panel:
    """The figures of all sessions' events together.

    least: events (turns, interruptions, events to report, alerts) below which a figure is None;
    false alarms need only time. within_s: the W of alerts, in seconds; false alarms and duplicates
    are those of the largest. Raises `ConfigError` for a least below 1 or no W above 0.
    """
    if least < 1:
        raise ConfigError(f"least = {least}: a figure needs at least 1 event")
    if not within_s or min(within_s) <= 0:
        raise ConfigError(f"within_s = {tuple(within_s)}: must be one or more times above 0 s")
    windows = sorted(within_s)
    turns, count, duration_s = TurnTaking(), 0, 0.0
    stops: list[float] = []
    responses: list[float] = []
    tiers = [Reported() for _ in windows]
    for session in sessions:
        turns += turn_taking(session)
        stops += stop_latencies_s(session)
        responses += response_latencies_s(session)
        tiers = [
            tier + reported(session, window) for tier, window in zip(tiers, windows, strict=True)
        ]
        count += 1
        duration_s += session.duration_s
    scores = dict(_turn_scores(turns, least))
    scores["stop_latency"] = _mean(stops, least)
    scores["response_latency"] = _mean(responses, least)
    for window, tier in zip(windows, tiers, strict=True):
        scores.update(_alert_scores(tier, f"{window:g}s", least))
    scores.update(_false_alarms(tiers[-1], least))
    return Panel(scores, count, duration_s)


def _turn_scores(turns: TurnTaking, least: int) -> Iterator[tuple[str, Score]]:
    answered, yielded = len(turns.answered), len(turns.yielded)
    total = answered + len(turns.unanswered)
    latencies = [(answer.start - turn.stop) * TICK_S for turn, answer in turns.answered]
    yields = [(speech.stop - turn.start) * TICK_S for turn, speech in turns.yielded]
    yield "L_R", _mean(latencies, least)
    yield "R_R", _share(answered, total, least)
    yield "L_Y", _mean(yields, least)
    yield "R_Y", _share(yielded, yielded + len(turns.unyielded), least)
    yield "I_A", _share(len(turns.cut_in), total, least)
    for name, kind in _SELECTIVITY.items():
        ignored = sum(k == kind for k, _ in turns.ignored)
        heeded = sum(k == kind for k, _ in turns.heeded)
        yield name, _share(ignored, ignored + heeded, least)


def _alert_scores(tier: Reported, name: str, least: int) -> dict[str, Score]:
    hits = len(tier.delays_s)
    precision = _share(hits, tier.alerts, least)
    recall = _share(hits, tier.events, least)
    # Of hits h, alerts a and events e, the harmonic mean of h/a and h/e is 2h / (a + e).
    known = precision.value is not None and recall.value is not None
    f1 = 2 * hits / (tier.alerts + tier.events) if known else None
    median = statistics.median(tier.delays_s) if hits >= least else None
    return {
        f"alert_precision_{name}": precision,
        f"alert_recall_{name}": recall,
        f"alert_f1_{name}": Score(f1, min(tier.alerts, tier.events)),
        f"alert_latency_{name}": Score(median, hits, "s, median"),
    }


def _false_alarms(tier: Reported, least: int) -> dict[str, Score]:
    false, watched_s = tier.false_alarms, tier.watched_s
    return {
        "duplicates_per_event": _share(tier.duplicates, tier.events, least),
        "false_alerts_per_10min": Score(false * 600.0 / watched_s if watched_s else None, false),
        "false_alerts_per_hour": Score(false * 3600.0 / watched_s if watched_s else None, false),
    }


def _mean(values: Sequence[float], least: int) -> Score:
    return Score(statistics.fmean(values) if len(values) >= least else None, len(values), "s, mean")


def _share(part: int, total: int, least: int) -> Score:
    return Score(part / total if total >= least else None, total)
