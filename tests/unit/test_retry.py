"""When to try again: tables, and bounds that hold for every number."""

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicory.errors import ChicoryError, RemoteError
from chicory.retry import RetryBackoff, RetryPolicy

RNG = Random(7)


class FlakyError(ConnectionError):
    class InnerError(LookupError):
        pass


def policy(**fields):
    return RetryPolicy(**{"jitter": False, "max_retries": 1_000_000, **fields})


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        (RetryBackoff.FIXED, [2, 2, 2, 2, 2]),
        (RetryBackoff.LINEAR, [2, 4, 6, 8, 10]),
        (RetryBackoff.EXPONENTIAL, [2, 4, 8, 16, 32]),
    ],
    ids=str,
)
def test_the_wait_grows_as_the_backoff_says(backoff, delays):
    plan = policy(backoff=backoff, retry_delay=2.0)

    assert [plan.delay_before(retry, OSError(), RNG) for retry in range(1, 6)] == delays


@pytest.mark.parametrize(
    ("backoff", "retry", "delay"),
    [
        (RetryBackoff.FIXED, 1, 5),
        (RetryBackoff.LINEAR, 3, 5),
        (RetryBackoff.EXPONENTIAL, 3, 5),
        (RetryBackoff.EXPONENTIAL, 100_000, 5),
    ],
    ids=["fixed", "linear", "exponential", "far beyond what a float holds"],
)
def test_no_wait_is_longer_than_the_cap(backoff, retry, delay):
    plan = policy(backoff=backoff, retry_delay=2.0 if backoff is not RetryBackoff.FIXED else 9.0, max_delay=5.0)

    assert plan.full_delay(retry) == delay


@given(
    retry=st.integers(1, 5000),
    delay=st.floats(0, 1e9),
    cap=st.floats(0, 1e9),
    backoff=st.sampled_from(RetryBackoff),
    seed=st.integers(),
)
def test_jitter_stays_between_nothing_and_the_full_wait(retry, delay, cap, backoff, seed):
    plan = RetryPolicy(max_retries=5000, retry_delay=delay, max_delay=cap, backoff=backoff)

    drawn = plan.delay_before(retry, OSError(), Random(seed))

    assert 0 <= drawn <= plan.full_delay(retry) <= cap


def test_jitter_spreads_over_the_whole_range():
    plan = RetryPolicy(retry_delay=10.0, backoff=RetryBackoff.FIXED)
    rng = Random(3)

    drawn = [plan.delay(1, rng) for _ in range(500)]

    assert min(drawn) < 1
    assert max(drawn) > 9


@pytest.mark.parametrize(
    ("max_retries", "retry", "is_retried"),
    [(0, 1, False), (1, 1, True), (1, 2, False), (3, 3, True), (3, 4, False)],
    ids=["none allowed", "the only one", "one too many", "the last", "after the last"],
)
def test_retries_end_where_the_policy_says(max_retries, retry, is_retried):
    plan = policy(max_retries=max_retries)

    assert (plan.delay_before(retry, OSError(), RNG) is not None) is is_retried


@pytest.mark.parametrize(
    ("fields", "error", "is_covered"),
    [
        ({}, ValueError(), True),
        ({"retry_on": ()}, ValueError(), False),
        ({"retry_on": (OSError,)}, OSError(), True),
        ({"retry_on": (OSError,)}, FlakyError(), True),
        ({"retry_on": (OSError,)}, ValueError(), False),
        ({"retry_on": [OSError, ValueError]}, ValueError(), True),
        ({"retry_on": ("ConnectionError",)}, FlakyError(), True),
        ({"retry_on": ("FlakyError",)}, ConnectionError(), False),
        ({"retry_on": ("builtins.OSError",)}, FlakyError(), True),
        ({"retry_on": ("json.decoder.JSONDecodeError",)}, json.JSONDecodeError("no", "", 0), True),
        ({"retry_on": (f"{__name__}.FlakyError.InnerError",)}, FlakyError.InnerError(), True),
        ({"retry_on": ("InnerError",)}, FlakyError.InnerError(), True),
        ({"retry_on": ("other.OSError",)}, OSError(), False),
        ({"ignore_on": (OSError,)}, ValueError(), True),
        ({"ignore_on": (OSError,)}, FlakyError(), False),
        ({"ignore_on": ("ConnectionError",)}, FlakyError(), False),
        ({"ignore_on": ()}, ValueError(), True),
        ({"retry_on": (OSError,), "ignore_on": (ConnectionError,)}, FlakyError(), False),
        ({"retry_on": (FlakyError,), "ignore_on": (OSError,)}, FlakyError(), False),
        ({"retry_on": (OSError,), "ignore_on": (ConnectionError,)}, FileNotFoundError(), True),
    ],
    ids=[
        "every error by default",
        "no error",
        "class",
        "subclass",
        "other class",
        "list of classes",
        "name of a parent",
        "name of a child",
        "dotted builtin",
        "dotted name",
        "dotted nested name",
        "bare nested name",
        "dotted name elsewhere",
        "ignore: other class",
        "ignore: subclass",
        "ignore: name",
        "ignore: nothing",
        "ignore wins over its parent",
        "ignore wins over its child",
        "ignore leaves the rest",
    ],
)
def test_which_errors_are_retried(fields, error, is_covered):
    plan = policy(**fields)

    assert plan.covers(error) is is_covered
    assert (plan.delay_before(1, error, RNG) is not None) is is_covered


@pytest.mark.parametrize("field", ["max_retries", "retry_delay", "max_delay"])
def test_negative_numbers_are_refused(field):
    with pytest.raises(ValueError, match=f"{field} must be 0 or more, not -1"):
        RetryPolicy(**{field: -1})


def test_the_defaults_are_those_of_the_contract():
    plan = RetryPolicy()

    assert (plan.max_retries, plan.retry_delay, plan.max_delay, plan.jitter) == (3, 1.0, 3600.0, True)
    assert plan.backoff is RetryBackoff.EXPONENTIAL
    assert (plan.retry_on, plan.ignore_on) == (None, None)


def as_remote(kind):
    """The error that a child process tells of: no class of it, only names."""
    return RemoteError.of(kind.__qualname__, tuple(f"{k.__module__}.{k.__qualname__}" for k in kind.__mro__), "text")


@pytest.mark.parametrize(
    ("kinds", "is_covered"),
    [
        ((FlakyError,), True),
        ((ConnectionError,), True),
        ((Exception,), True),
        (("FlakyError",), True),
        (("OSError",), True),
        (("builtins.OSError",), True),
        ((f"{__name__}.FlakyError",), True),
        ((LookupError, "KeyError"), False),
        ((ChicoryError, "RemoteError"), False),
        ((FlakyError.InnerError,), False),
    ],
    ids=str,
)
def test_an_error_of_a_child_process_is_covered_as_if_it_were_raised_here(kinds, is_covered):
    assert policy(retry_on=kinds).covers(as_remote(FlakyError)) is is_covered
    assert policy(retry_on=kinds).covers(FlakyError()) is is_covered
    assert policy(ignore_on=kinds).covers(as_remote(FlakyError)) is not is_covered


def test_an_inner_class_of_a_child_process_is_found_by_its_short_name():
    assert policy(retry_on=("InnerError",)).covers(as_remote(FlakyError.InnerError))
    assert policy(retry_on=(FlakyError.InnerError,)).covers(as_remote(FlakyError.InnerError))
