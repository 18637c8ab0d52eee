"""The plugins of the core; above all what a failed try leads to."""

from random import Random

import pytest

from chicory import DeliveryMode, MaxRetriesExceededError, RetryBackoff, RetryError, RetryPolicy
from chicory.builtin import BUILTINS, RetryLayer, decide
from chicory.message import TaskMessage
from chicory.middleware import Decision, ExecuteMiddleware, Outcome, Stage, failed
from chicory.testing import LayerSuite
from chicory.testing.layers import an_attempt

RNG = Random(7)
ERROR = OSError("gone")
FIXED = RetryPolicy(max_retries=2, retry_delay=5.0, backoff=RetryBackoff.FIXED, jitter=False)
PICKY = RetryPolicy(max_retries=2, retry_delay=5.0, jitter=False, ignore_on=(OSError,))
NEVER = RetryPolicy(max_retries=0)


class TestRetryLayer(LayerSuite):
    @pytest.fixture
    def middleware(self):
        return ExecuteMiddleware(stage=Stage.RECOVER, name="retry", layer=RetryLayer(Random(7)))


@pytest.mark.parametrize(
    ("error", "policy", "retries", "decision", "delay", "reason"),
    [
        (ERROR, None, 0, Decision.DONE, 0, "error"),
        (ERROR, FIXED, 0, Decision.RETRY, 5, None),
        (ERROR, FIXED, 1, Decision.RETRY, 5, None),
        (ERROR, FIXED, 2, Decision.DONE, 0, "retries_exhausted"),
        (ERROR, FIXED, 9, Decision.DONE, 0, "retries_exhausted"),
        (ERROR, NEVER, 0, Decision.DONE, 0, "retries_exhausted"),
        (ERROR, PICKY, 0, Decision.DONE, 0, "error"),
        (ERROR, PICKY, 2, Decision.DONE, 0, "retries_exhausted"),
        (RetryError(), FIXED, 0, Decision.RETRY, 5, None),
        (RetryError(60.0), FIXED, 0, Decision.RETRY, 60, None),
        (RetryError(0.0), FIXED, 1, Decision.RETRY, 0, None),
        (RetryError(60.0), PICKY, 1, Decision.RETRY, 60, None),
    ],
    ids=[
        "no policy",
        "first retry",
        "last retry",
        "no retry left",
        "far beyond",
        "none allowed",
        "ignored error",
        "ignored error, none left",
        "asked for",
        "asked for, later",
        "asked for, at once",
        "asked for, whatever the policy ignores",
    ],
)
def test_what_a_failed_try_leads_to(error, policy, retries, decision, delay, reason):
    outcome = decide(failed(error), policy, retries, "add", RNG)

    assert (outcome.decision, outcome.delay, outcome.reason) == (decision, delay, reason)
    assert outcome.error is error


@pytest.mark.parametrize(
    ("policy", "retries", "limit"),
    [(None, 0, 0), (NEVER, 0, 0), (FIXED, 2, 2), (FIXED, 3, 2)],
    ids=["no policy", "none allowed", "none left", "beyond"],
)
def test_asking_for_a_retry_that_is_not_left_ends_the_task(policy, retries, limit):
    cause = OSError("gone")
    error = RetryError(None, "OSError: gone")
    error.__cause__ = cause

    outcome = decide(failed(error), policy, retries, "add", RNG)

    assert (outcome.decision, outcome.reason) == (Decision.DONE, "retries_exhausted")
    assert isinstance(outcome.error, MaxRetriesExceededError)
    assert (outcome.error.task, outcome.error.max_retries, outcome.error.cause) == ("add", limit, "OSError: gone")
    assert outcome.error.__cause__ is cause


@pytest.mark.parametrize("outcome", [Outcome(value=1), failed(ERROR, final=True)], ids=["success", "final"])
def test_what_is_decided_stays(outcome):
    assert decide(outcome, FIXED, 0, "add", RNG) is outcome


def test_the_delay_grows_with_the_retries():
    policy = RetryPolicy(max_retries=9, retry_delay=1.0, jitter=False)

    delays = [decide(failed(ERROR), policy, retries, "add", RNG).delay for retries in range(4)]

    assert delays == [1, 2, 4, 8]


def attempt_at(task, retries=0):
    return an_attempt(task=task, message=TaskMessage(name=task.name, retries=retries))


def inside(outcome):
    async def proceed(attempt):
        return outcome

    return proceed


async def test_the_layer_goes_by_the_policy_of_the_task_and_the_retries_of_the_message(app):
    @app.task(retry_policy=FIXED)
    async def add() -> None: ...

    layer = RetryLayer(RNG)
    outcomes = [await layer(attempt_at(add, retries), inside(failed(ERROR))) for retries in range(4)]

    assert [outcome.decision for outcome in outcomes] == [Decision.RETRY, Decision.RETRY, Decision.DONE, Decision.DONE]


async def test_a_task_that_runs_at_most_once_is_never_retried(app):
    @app.task(delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def pay() -> None: ...

    outcome = await RetryLayer(RNG)(attempt_at(pay), inside(failed(RetryError())))

    assert outcome.decision is Decision.DONE
    assert isinstance(outcome.error, MaxRetriesExceededError)


async def test_a_rejection_is_not_retried(app):
    @app.task(retry_policy=FIXED)
    async def add() -> None: ...

    rejected = Outcome(error=ERROR, decision=Decision.REJECT, reason="expired")

    assert await RetryLayer(RNG)(attempt_at(add), inside(rejected)) is rejected


def test_the_core_brings_json_memory_and_retries():
    assert list(BUILTINS) == ["json", "memory", "retry"]


def test_the_retry_layer_stands_where_failures_are_decided_about():
    (middleware,) = BUILTINS["retry"].chicory_execute_middleware(app=None)

    assert (middleware.stage, middleware.name) == (Stage.RECOVER, "retry")
