import select
import threading

import pytest

from fabric.node.lanes import Crashed, Lane, Lanes


def gather(lanes: Lanes, count: int) -> list[object]:
    """Waits on the descriptor, as the loop does, until ``count`` results are there."""
    found: list[object] = []
    while len(found) < count:
        assert select.select([lanes.wake_fd], [], [], 5)[0]
        found += lanes.results()
    return found


def test_the_jobs_of_a_lane_with_one_thread_are_done_in_order():
    lanes = Lanes({"disk": Lane(lambda job: job)})
    for job in range(100):
        lanes.submit("disk", job)
    assert gather(lanes, 100) == list(range(100))
    lanes.close(5)


def test_a_lane_with_several_threads_does_several_jobs_at_once():
    together = threading.Barrier(3, timeout=5)
    lanes = Lanes({"read": Lane(lambda job: together.wait() >= 0, threads=3)})
    for job in range(3):
        lanes.submit("read", job)
    assert gather(lanes, 3) == [True] * 3
    lanes.close(5)


def test_a_slow_lane_does_not_hold_up_another():
    go_on = threading.Event()
    lanes = Lanes({"slow": Lane(lambda job: go_on.wait(5)), "fast": Lane(lambda job: job)})
    lanes.submit("slow", "job")
    lanes.submit("fast", "job")
    assert gather(lanes, 1) == ["job"]
    go_on.set()
    assert gather(lanes, 1) == [True]
    lanes.close(5)


def test_a_job_that_raises_is_reported_and_the_next_one_done():
    def work(job: object) -> object:
        if job == "bad":
            raise ValueError("a bug")
        return job

    lanes = Lanes({"disk": Lane(work)})
    lanes.submit("disk", "bad")
    lanes.submit("disk", "good")
    crashed, good = gather(lanes, 2)
    assert isinstance(crashed, Crashed)
    assert crashed.lane == "disk"
    assert "ValueError: a bug" in crashed.trace
    assert good == "good"
    lanes.close(5)


def test_close_lets_queued_jobs_finish():
    done: list[object] = []
    lanes = Lanes({"disk": Lane(done.append)})
    for job in range(20):
        lanes.submit("disk", job)
    lanes.close(5)
    assert done == list(range(20))


def test_close_does_not_wait_for_ever_and_a_late_result_harms_nobody():
    go_on, ended = threading.Event(), threading.Event()

    def work(job: object) -> object:
        go_on.wait(5)
        ended.set()
        return job

    lanes = Lanes({"disk": Lane(work)})
    lanes.submit("disk", "job")
    lanes.close(0.01)
    go_on.set()
    assert ended.wait(5)


def test_wake_and_close_at_the_same_time_do_no_harm():
    """A stop from another thread may come while the loop is ending by itself."""
    for _ in range(200):
        lanes = Lanes({})
        closing = threading.Thread(target=lanes.close, args=(1,))
        closing.start()
        lanes.wake()
        closing.join()
        lanes.wake()


def test_an_unknown_lane_is_a_bug_that_shows():
    lanes = Lanes({})
    with pytest.raises(KeyError):
        lanes.submit("disk", "job")
    lanes.close(1)
