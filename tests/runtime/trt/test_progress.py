"""Phases within phases become one share."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.runtime.trt.progress import Share, Watch

Tree = list["Tree"]  # type: ignore[misc]
TREES = st.recursive(
    st.just([]), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=20
)


@given(TREES)
def test_the_share_rises_to_one(tree: Tree) -> None:
    """Whatever phases begin in which steps of others."""
    share, seen, names = Share(), [0.0], iter(range(1000))

    def phase(steps: Tree, parent: str | None) -> None:
        name = str(next(names))
        share.start(name, parent, len(steps))
        for number, within in enumerate(steps):
            if within:
                phase(within, name)
            share.step(name, number)
            seen.append(share.value)
        share.finish(name)

    phase(tree, None)
    assert seen == sorted(seen)
    assert share.value == 1.0 and max(seen) <= 1.0


def test_a_phase_is_worth_the_step_it_began_in() -> None:
    share = Share()
    share.start("build", None, 4)
    share.step("build", 0)
    assert share.value == pytest.approx(0.25)
    share.start("kernels", "build", 10)
    for number in range(5):
        share.step("kernels", number)
    assert share.value == pytest.approx(0.25 + 0.5 / 4)
    share.finish("kernels")
    share.step("build", 1)
    assert share.value == pytest.approx(0.5)


def test_steps_of_phases_that_nobody_began_count_for_nothing() -> None:
    share = Share()
    share.step("unknown", 3)
    share.finish("unknown")
    share.start("orphan", "unknown", 2)
    share.step("orphan", 0)
    assert share.value == 0.5


def test_what_progress_raises_stops_the_build_and_is_raised_afterwards() -> None:
    """Not into TensorRT, which is C++ and would end the process."""

    class IProgressMonitor:
        pass

    def stop(share: float) -> None:
        seen.append(share)
        raise KeyboardInterrupt

    seen: list[float] = []
    watch = Watch(SimpleNamespace(IProgressMonitor=IProgressMonitor), stop)
    watch.check()
    monitor = watch.monitor
    monitor.phase_start("build", None, 4)
    assert monitor.step_complete("build", 0) is False
    assert monitor.step_complete("build", 1) is False
    monitor.phase_finish("build")
    assert seen == [0.25]
    with pytest.raises(KeyboardInterrupt):
        watch.check()
