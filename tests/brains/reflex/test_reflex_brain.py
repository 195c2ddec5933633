"""The reflex brain as a brain: life cycle, settings, determinism, and that nothing stops it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.brains.api import SessionSetup, Surroundings, UnitResult, VoiceSpan
from minicpmo_ros.brains.reflex import ReflexBrain, ReflexConfig
from minicpmo_ros.errors import BrainError, ConfigError, InputError
from minicpmo_ros.messages import NS_PER_S, Action, Picture, Severity
from minicpmo_ros.timeline.unit import Unit


def test_it_says_what_it_can_do():
    can = ReflexBrain(ReflexConfig(), None).capabilities
    assert (can.modes, can.languages, can.takes_prompt, can.chats) == (
        ("duplex",),
        ("en",),
        False,
        True,
    )


def test_a_unit_before_open_or_after_close_is_refused(kit):
    empty = Unit(0, 0, NS_PER_S, np.zeros(16_000, np.int16), 16_000)
    brain = ReflexBrain(ReflexConfig(), None)
    with pytest.raises(BrainError, match="not open"):
        brain.unit(empty, Surroundings())
    brain.open(SessionSetup())
    brain.unit(empty, Surroundings())
    brain.close()
    with pytest.raises(BrainError, match="not open"):
        brain.unit(empty, Surroundings())


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        (SessionSetup(mode="chat"), "no mode 'chat'; it has duplex"),
        (SessionSetup(language="zh"), "no language 'zh'; it has en"),
    ],
)
def test_a_mode_or_language_it_has_not_is_refused(setup, message):
    with pytest.raises(BrainError, match=message):
        ReflexBrain(ReflexConfig(), None).open(setup)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"endpoint_ms": 5}, "reflex.endpoint_ms is 5; it must be a number from 50 to 3000"),
        ({"flat_contrast": float("nan")}, "reflex.flat_contrast is nan"),
        ({"loud_dbfs": "loud"}, "reflex.loud_dbfs is 'loud'"),
        ({"loud_jump_db": True}, "reflex.loud_jump_db is True"),
        ({"confirm_units": 1.5}, "reflex.confirm_units is 1.5; it must be a whole number from 1"),
        ({"spoken_severity": "fatal"}, "it must be one of info, notice, warning, critical, never"),
    ],
)
def test_a_wrong_setting_is_named_with_its_range(setting, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        ReflexConfig(**setting)


def long_session(kit, seed: int) -> list[UnitResult]:
    """Ten minutes in which everything happens."""
    rng = np.random.default_rng(seed)
    starts = np.cumsum(rng.uniform(6, 20, 40))
    moves = kit.walker(30)

    def camera(k):
        if k % 97 < 12:
            return kit.dark(k)
        if k % 61 < 4:
            return None
        if k % 53 == 0:
            return kit.undecodable(k)
        return moves(k) if k % 40 < 15 else kit.room(k, 0.3 if k % 150 > 100 else 1.0)

    world = kit.World(
        persons=[(s, s + d) for s, d in zip(starts, rng.uniform(0.1, 5, 40), strict=True)],
        sounds=[(s, s + 0.1, -5.0) for s in rng.uniform(0, 600, 12)],
        camera=camera,
        echo=True,
        camera_lost_ms=lambda k: 1000.0 * (k % 61 + 1) if k % 61 < 4 else 0.0,
    )
    results = []
    for k in range(600):
        results.append(world.step())
        if k % 31 == 30 and world.spoken and world.spoken[-1][1] > world.second:
            world.interrupt("You spoke")
    return results


def as_bytes(results: list[UnitResult]) -> bytes:
    rows = [
        (r.action, r.text, r.end_of_turn, r.reason, r.alerts, [s.data.tobytes() for s in r.speech])
        for r in results
    ]
    return repr(rows).encode()


def test_a_long_session_gives_the_same_bytes_twice(kit):
    first, second = long_session(kit, 3), long_session(kit, 3)
    assert as_bytes(first) == as_bytes(second)
    assert as_bytes(first) != as_bytes(long_session(kit, 4))
    assert 10 < sum(r.action is Action.SPEAK for r in first) < 120
    assert len({a.kind for r in first for a in r.alerts}) >= 5


def test_a_second_session_of_a_brain_is_like_its_first(kit):
    world = kit.World(persons=[(1.2, 3.4)], camera=kit.walker(30), sounds=[(6.0, 6.1, -8.0)])
    first = world.run(15)
    world.brain.open(SessionSetup())
    world.second, world.spoken = 0, []
    assert as_bytes(world.run(15)) == as_bytes(first)


def refused() -> np.ndarray:
    raise InputError("truncated JPEG")


pictures = st.one_of(
    st.just(refused),
    st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 255)).map(
        lambda s: lambda: np.full((s[0], s[1], 3), s[2], np.uint8)
    ),
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9)).map(
        lambda s: lambda: np.random.default_rng(s[2]).integers(0, 256, s[:2], dtype=np.uint8)
    ),
)
span_s = st.tuples(st.floats(-2, 2), st.one_of(st.none(), st.floats(-2, 2)))
steps = st.fixed_dictionaries(
    {
        "jump_s": st.sampled_from([0, 0, 0, 0, 1, -5, 3600]),
        "rate_hz": st.sampled_from([16_000, 16_000, 8000, 100, 7]),
        "level": st.sampled_from([0, 30, 3000, 30_000]),
        "pictures": st.lists(pictures, max_size=3),
        "filled": st.lists(
            st.tuples(st.integers(-10, 20_000), st.integers(-10, 20_000)), max_size=2
        ),
        "muted": st.booleans(),
        "voice": st.lists(span_s, max_size=3),
        "robot_speaking": st.booleans(),
        "camera_lost_ms": st.sampled_from([0.0, 500.0, 5000.0]),
        "mic_lost_ms": st.sampled_from([0.0, 500.0, 5000.0]),
        "interrupt": st.sampled_from([None, None, "", "You spoke for"]),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=25))
def test_no_sequence_of_units_stops_it(sequence):
    brain = ReflexBrain(ReflexConfig(), None)
    brain.open(SessionSetup())
    now_ns = 1000 * NS_PER_S
    active: dict[str, bool] = {}
    for k, step in enumerate(sequence):
        now_ns += step["jump_s"] * NS_PER_S
        rng = np.random.default_rng(k)
        samples = (rng.normal(size=step["rate_hz"]) * step["level"]).clip(-32768, 32767)
        unit = Unit(
            k,
            now_ns,
            now_ns + NS_PER_S,
            samples.astype(np.int16),
            step["rate_hz"],
            tuple(Picture(now_ns, decode) for decode in step["pictures"]),
            tuple(step["filled"]),
            step["muted"],
        )
        voice = tuple(
            VoiceSpan(now_ns + round(a * 1e9), None if b is None else now_ns + round(b * 1e9))
            for a, b in step["voice"]
        )
        around = Surroundings(
            voice, step["robot_speaking"], step["camera_lost_ms"], step["mic_lost_ms"]
        )
        result = brain.unit(unit, around)
        now_ns += NS_PER_S
        assert result.reason
        if result.action is Action.SPEAK:
            urgent = any(n.active and n.severity is Severity.CRITICAL for n in result.alerts)
            assert result.text and (urgent or not step["robot_speaking"])
        for note in result.alerts:
            assert note.active or active.get(note.kind), f"{note.kind} cleared but never raised"
            active[note.kind] = note.active
        if step["interrupt"] is not None:
            brain.interrupt(step["interrupt"])
