"""Work in threads, ahead of the consumer and in order."""

from __future__ import annotations

import threading
import time

import pytest

from sclcm.data.ahead import map_ahead


def working_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("sclcm")]


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("n_ahead", [0, 1, 3, 100])
def test_results_come_in_the_order_of_the_items(n_threads, n_ahead):
    def square(i):
        time.sleep(0.002 * (i % 3))  # later items may be done first
        return i * i

    assert list(map_ahead(square, range(20), n_threads=n_threads, n_ahead=n_ahead)) == [i * i for i in range(20)]
    assert not working_threads()


def test_no_more_items_are_taken_than_may_wait():
    taken = []

    def items():
        for i in range(50):
            taken.append(i)
            yield i

    results = map_ahead(str, items(), n_threads=2, n_ahead=4)
    for i in range(20):
        assert next(results) == str(i)
        assert len(taken) <= i + 5
    results.close()
    assert len(taken) < 30


def test_an_error_comes_in_its_turn_and_ends_the_work():
    def fail_at_three(i):
        if i == 3:
            msg = "three"
            raise ValueError(msg)
        return i

    results = map_ahead(fail_at_three, range(100), n_threads=2, n_ahead=8)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert not working_threads()


def test_an_error_of_the_items_ends_the_work():
    def items():
        yield 1
        msg = "broken file"
        raise OSError(msg)

    with pytest.raises(OSError, match="broken file"):
        list(map_ahead(str, items(), n_threads=2, n_ahead=8))
    assert not working_threads()


def test_nothing_is_left_at_work_once_the_iterator_is_closed():
    started = threading.Event()

    def slow(i):
        started.set()
        time.sleep(0.01)
        return i

    results = map_ahead(slow, range(1000), n_threads=2, n_ahead=50)
    assert next(results) == 0
    results.close()
    assert started.is_set()
    assert not working_threads()


def test_items_are_taken_in_the_thread_of_the_consumer():
    seen = set()

    def items():
        for i in range(10):
            seen.add(threading.current_thread())
            yield i

    list(map_ahead(str, items(), n_threads=2, n_ahead=3))
    assert seen == {threading.current_thread()}
