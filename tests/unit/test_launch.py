"""What the command line decided is seen by the apps made inside, and by nobody else."""

import threading

import pytest

from chicory.launch import Launch, current_launch, launching


def test_outside_of_a_command_line_nothing_was_decided():
    assert current_launch() == Launch(broker=None, backend=None, plugins=(), worker={})


def test_a_launch_is_seen_inside_and_ends_with_it():
    launch = Launch(broker="memory", plugins=("otel",), worker={"concurrency": 2})

    with launching(launch):
        assert current_launch() is launch

    assert current_launch() == Launch()


def test_a_launch_ends_with_an_error_too():
    with pytest.raises(OSError), launching(Launch(broker="memory")):
        raise OSError

    assert current_launch() == Launch()


def test_the_innermost_launch_counts():
    with launching(Launch(broker="memory")):
        with launching(Launch(broker="sqlite")):
            assert current_launch().broker == "sqlite"
        assert current_launch().broker == "memory"


def test_other_threads_do_not_see_it():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(current_launch()))

    with launching(Launch(broker="memory")):
        thread.start()
        thread.join()

    assert seen == [Launch()]
