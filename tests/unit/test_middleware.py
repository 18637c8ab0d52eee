"""The onion: the order of its layers, and what happens to what escapes one."""

import asyncio

import pytest

from chicory.message import TaskMessage
from chicory.middleware import (
    Attempt,
    Decision,
    ExecuteMiddleware,
    Outcome,
    PublishMiddleware,
    Stage,
    compose_execute,
    compose_publish,
    current_attempt,
    failed,
    in_order,
)
from chicory.testing import a_delivery
from chicory.testing.layers import an_attempt


def layer(name, stage=100, *, calls=None, inside=None):
    """A layer that notes when it is entered and left; the innermost gives *inside*."""

    async def run(attempt, proceed):
        if inside is not None:
            return inside
        calls.append(f"into {name}")
        outcome = await proceed(attempt)
        calls.append(f"out of {name}")
        return outcome

    return ExecuteMiddleware(stage=stage, name=name, layer=run)


def raising(error):
    async def run(attempt, proceed):
        raise error

    return ExecuteMiddleware(stage=100, name="raising", layer=run)


def test_layers_stand_by_stage_then_by_name():
    layers = [layer("b", 300), layer("z", 100), layer("a", 300), layer("c", Stage.DECODE), layer("d", 250)]

    assert [one.name for one in in_order(reversed(layers))] == ["z", "d", "a", "b", "c"]


def test_the_stages_leave_room_between_them():
    assert [(stage.name, int(stage)) for stage in Stage] == [
        ("OBSERVE", 100),
        ("RECOVER", 300),
        ("ADMIT", 500),
        ("DECODE", 700),
        ("INNER", 900),
    ]


async def test_the_first_layer_is_the_outermost():
    calls = []
    chain = compose_execute([layer("a", calls=calls), layer("b", calls=calls), layer("in", inside=Outcome(value=1))])

    outcome = await chain(an_attempt())

    assert outcome.value == 1
    assert calls == ["into a", "into b", "out of b", "out of a"]


async def test_a_layer_may_end_it_before_the_rest():
    calls = []
    chain = compose_execute([layer("a", calls=calls), layer("stop", inside=Outcome(value=2)), layer("b", calls=calls)])

    assert (await chain(an_attempt())).value == 2
    assert calls == ["into a", "out of a"]


async def test_an_exception_that_escapes_a_layer_is_the_error_of_the_attempt():
    calls, error = [], KeyError("x")
    chain = compose_execute([layer("outer", calls=calls), raising(error)])

    outcome = await chain(an_attempt())

    assert (outcome.error, outcome.decision, outcome.final) == (error, Decision.DONE, False)
    assert calls == ["into outer", "out of outer"]


@pytest.mark.parametrize("given", [None, 3, failed], ids=["nothing", "number", "function"])
async def test_a_layer_that_returns_no_outcome_is_named(given):
    async def wrong(attempt, proceed):
        return given

    chain = compose_execute([ExecuteMiddleware(stage=100, name="wrong", layer=wrong)])

    outcome = await chain(an_attempt())

    assert str(outcome.error) == f"middleware 'wrong' returned {type(given).__name__}, not an Outcome"
    assert outcome.final


async def test_cancellation_passes_through_every_layer():
    chain = compose_execute([layer("a", calls=[]), raising(asyncio.CancelledError())])

    with pytest.raises(asyncio.CancelledError):
        await chain(an_attempt())


async def test_nothing_is_inside_the_innermost_layer():
    chain = compose_execute([layer("a", calls=[])])

    outcome = await chain(an_attempt())

    assert isinstance(outcome.error, AssertionError)
    assert "nothing is inside the innermost layer" in str(outcome.error)


# --- publishing ----------------------------------------------------------------------------------


async def test_publish_layers_see_the_whole_batch_and_may_change_it():
    sent = []

    async def innermost(messages):
        sent.extend(message.name for message in messages)

    async def double(messages, proceed):
        await proceed([*messages, *messages])

    async def drop_first(messages, proceed):
        await proceed(messages[1:])

    layers = [
        PublishMiddleware(stage=1, name="double", layer=double),
        PublishMiddleware(stage=2, name="drop", layer=drop_first),
    ]

    await compose_publish(layers, innermost)([TaskMessage(name="a"), TaskMessage(name="b")])

    assert sent == ["b", "a", "b"]


async def test_without_publish_layers_the_batch_goes_straight_out():
    sent = []

    async def innermost(messages):
        sent.append(messages)

    batch = [TaskMessage(name="a")]
    await compose_publish([], innermost)(batch)

    assert sent == [batch]


async def test_an_exception_that_escapes_a_publish_layer_stops_the_batch():
    sent = []

    async def innermost(messages):
        sent.append(messages)

    async def refuse(messages, proceed):
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        await compose_publish([PublishMiddleware(stage=1, name="refuse", layer=refuse)], innermost)([TaskMessage(name="a")])

    assert sent == []


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "has_failed"),
    [
        (Outcome(value=1), False),
        (failed(OSError()), True),
        (Outcome(error=OSError(), decision=Decision.REJECT, reason="expired"), True),
        (Outcome(error=OSError(), decision=Decision.RETRY, delay=1), False),
        (Outcome(error=OSError(), decision=Decision.DEFER), False),
    ],
    ids=["success", "error", "rejected", "retried", "put back"],
)
def test_only_what_ends_badly_has_failed(outcome, has_failed):
    assert outcome.has_failed is has_failed


def test_a_failure_may_be_final():
    error = OSError()

    assert (failed(error).final, failed(error, final=True).final) == (False, True)
    assert failed(error).decision is Decision.DONE


def test_an_attempt_at_an_unreadable_message_has_no_name():
    assert Attempt(delivery=a_delivery(), worker_id="w").task_name == "?"
    assert an_attempt().task_name == "tasks.noop"


def test_two_attempts_share_no_arguments():
    first, second = an_attempt(), an_attempt()

    assert first.args is not second.args
    assert first.kwargs is not second.kwargs


def test_outside_of_a_task_there_is_no_attempt():
    assert current_attempt.get() is None
