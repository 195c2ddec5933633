"""The brain's thread."""

from __future__ import annotations

import threading

from minicpmo_ros.brains.work import InlineWorker, ThreadWorker


def test_jobs_run_in_order_on_a_thread_of_their_own():
    done: list[tuple[int, int]] = []
    worker = ThreadWorker("brain", lambda error: None)
    for i in range(100):
        worker.submit(lambda i=i: done.append((i, threading.get_ident())))
    assert worker.close()
    assert [i for i, _ in done] == list(range(100))
    assert {thread for _, thread in done} != {threading.get_ident()}


def test_a_job_that_raises_is_reported_and_the_next_one_runs():
    errors: list[Exception] = []
    done: list[int] = []
    worker = ThreadWorker("brain", errors.append)

    def fail() -> None:
        raise ValueError("boom")

    worker.submit(fail)
    worker.submit(lambda: done.append(1))
    assert worker.close()
    assert [str(error) for error in errors] == ["boom"]
    assert done == [1]


def test_waiting_counts_what_is_not_finished():
    gate = threading.Event()
    worker = ThreadWorker("brain", lambda error: None)
    worker.submit(gate.wait)
    worker.submit(lambda: None)
    assert worker.waiting == 2
    gate.set()
    assert worker.close()
    assert worker.waiting == 0


def test_a_job_that_hangs_does_not_hang_the_shutdown():
    gate = threading.Event()
    worker = ThreadWorker("brain", lambda error: None)
    worker.submit(gate.wait)
    assert not worker.close(timeout_s=0.05)
    gate.set()


def test_inline_work_is_done_when_submit_returns():
    done: list[int] = []
    worker = InlineWorker()
    worker.submit(lambda: done.append(1))
    assert done == [1]
    assert worker.waiting == 0
    assert worker.close()
