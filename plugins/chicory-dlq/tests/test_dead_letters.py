"""Looking, replaying, deleting, on each broker: `DeadLetters` with workers at work."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from msgspec.structs import replace

from chicory import AsyncResult, Chicory, RetryPolicy, TaskFailedError, TaskState
from chicory.errors import ResultNotFoundError, TaskNotFoundError
from chicory.testing import an_envelope, eventually
from chicory_dlq import ArgumentEditError, Chosen, DeadLetterNotFoundError, DeadLetters

WITHIN = 30


class Switch:
    """Whether tasks fail, and what ran."""

    def __init__(self):
        self.fails = True
        self.ran = []


@pytest.fixture
def switch():
    return Switch()


def with_tasks(app, switch):
    @app.task(name="mail", queue="mail")
    async def mail(to: str, at: datetime | None = None) -> str:
        switch.ran.append(to)
        if switch.fails:
            raise OSError(f"no way to {to}")
        return to

    @app.task(name="pay", retry_policy=RetryPolicy(max_retries=1, retry_delay=0, jitter=False))
    async def pay(amount: int, *, currency: str = "EUR") -> str:
        switch.ran.append(amount)
        if switch.fails or amount < 0:
            raise ValueError("not possible")
        return f"{amount} {currency}"

    return app


@pytest.fixture
def app(where, switch):
    return with_tasks(Chicory(**where), switch)


@pytest.fixture
def letters(app):
    return app.require(DeadLetters)


@pytest.fixture
def worker_of(work):
    """A worker on both queues."""

    @asynccontextmanager
    async def start(app, **settings):
        async with work(app, **{"queue": "mail,default", **settings}) as worker:
            yield worker

    return start


async def ended(*results):
    """Wait for the ends; which there were."""
    return [await asyncio.wait_for(_end(result), WITHIN) for result in results]


async def _end(result):
    try:
        return await result
    except TaskFailedError as error:
        return error.state


async def killed(app, worker_of, calls):
    """Have these calls die; their results."""
    async with worker_of(app):
        results = [await app.tasks[task].delay(*args) for task, *args in calls]
        assert set(await ended(*results)) == {TaskState.DEAD_LETTERED}
    return results


# --- looking ---------------------------------------------------------------------------------------


async def test_dead_letters_are_listed_by_page_and_filter(app, letters, worker_of):
    async with app:
        before = datetime.now(UTC)
        await killed(app, worker_of, [("mail", f"m{n}") for n in range(7)] + [("pay", n) for n in range(3)])

        everything = await letters.list()
        assert len(everything.letters) == 10
        assert everything.cursor is None
        seen, cursor = [], None
        for _ in range(10):
            page = await letters.list(limit=3, after=cursor)
            seen += [letter.id for letter in page.letters]
            cursor = page.cursor
            if cursor is None:
                break
        assert sorted(seen) == sorted(letter.id for letter in everything.letters)

        counts = {
            "task": await letters.count(Chosen(task="pay")),
            "queue": await letters.count(Chosen(queue="mail")),
            "reason": await letters.count(Chosen(reason="retries_exhausted")),
            "error": await letters.count(Chosen(error_type="OSError")),
            "both": await letters.count(Chosen(task="pay", error_type="OSError")),
            "since": await letters.count(Chosen(since=before)),
            "until": await letters.count(Chosen(until=before)),
            "nobody": await letters.count(Chosen(queue="nowhere")),
        }
        assert counts == {
            "task": 3, "queue": 7, "reason": 3, "error": 7, "both": 0, "since": 10, "until": 0, "nobody": 0
        }  # fmt: skip
        by_queue = {s.queue: (s.count, s.reasons, s.tasks) for s in await letters.stats()}
        assert by_queue == {
            "default": (3, {"retries_exhausted": 3}, {"pay": 3}),
            "mail": (7, {"error": 7}, {"mail": 7}),
        }
        assert [s.count for s in await letters.stats("mail")] == [7]
        assert list(await letters.queues()) == ["default", "mail"]


async def test_a_filter_reads_on_until_its_page_is_full(app, letters, worker_of):
    async with app:
        await killed(app, worker_of, [("mail", str(n % 4 == 0)) for n in range(12)])
        texts = [letter.death.error async for letter in letters.each(Chosen(error_type="OSError"))]

        assert len(texts) == 12
        page = await letters.list(Chosen(task="mail"), limit=5)
        rest = await letters.list(Chosen(task="mail"), limit=50, after=page.cursor)
        assert (len(page.letters), len(rest.letters)) == (5, 7)


async def test_one_is_found_by_its_id_or_said_not_to_be_there(app, letters, worker_of):
    async with app:
        (result,) = await killed(app, worker_of, [("mail", "a")])

        assert (await letters.get(result.task_id)).task == "mail"
        assert (await letters.get(result.task_id, queue="mail")).queue == "mail"
        with pytest.raises(DeadLetterNotFoundError, match=r"no dead letter 'nobody' in .*mail.dlq"):
            await letters.get("nobody")
        with pytest.raises(DeadLetterNotFoundError, match=r"in default.dlq: it was replayed or deleted"):
            await letters.get(result.task_id, queue="default")


async def test_messages_that_were_put_there_by_hand_are_none_of_ours(app, letters):
    async with app:
        client = await app.client()
        for body in (b"\xff", b"[1]", b'{"chicory": 1, "id": "a", "task": "x"}'):
            await client.connection.joined.publish([an_envelope(queue="mail.dlq", body=body)])

        assert await letters.count() == 0
        assert await letters.purge() == 0


def test_a_moment_without_time_zone_is_refused():
    with pytest.raises(ValueError, match="since must be an aware datetime"):
        Chosen(since=datetime(2026, 1, 1))  # noqa: DTZ001 - the test


# --- replaying -------------------------------------------------------------------------------------


async def test_a_replayed_task_runs_with_its_retries_anew_and_gives_its_result(app, letters, worker_of, switch):
    async with app:
        (result,) = await killed(app, worker_of, [("pay", 5)])
        switch.fails = False

        assert await letters.replay(result.task_id)

        assert await result.state() is TaskState.PENDING
        async with worker_of(app):
            assert await ended(result) == ["5 EUR"]
        info = await result.info()
        assert (info.state, info.retries) == (TaskState.SUCCESS, 0)
        assert info.hop == 3  # a retry, a death, a replay
        assert await letters.count() == 0


async def test_what_fails_again_comes_back_with_its_history(app, letters, worker_of, switch):
    async with app:
        (result,) = await killed(app, worker_of, [("pay", 5)])
        for times in range(1, 4):
            assert await letters.replay(result.task_id)
            async with worker_of(app):
                await eventually(lambda: letters.count(), within=WITHIN)
                assert await ended(result) == [TaskState.DEAD_LETTERED]
            letter = await letters.get(result.task_id)
            assert [d.reason for d in letter.history] == ["retries_exhausted"] * times
            assert letter.death.retries == 1
            assert {d.traceback for d in letter.history} == {None}

        assert len(switch.ran) == 8


async def test_only_so_many_deaths_are_remembered(where, switch, worker_of, monkeypatch):
    monkeypatch.setenv("CHICORY_DLQ_HISTORY", "1")
    app = with_tasks(Chicory(**where), switch)
    letters = app.require(DeadLetters)
    async with app:
        (result,) = await killed(app, worker_of, [("mail", "a")])
        for _ in range(2):
            first = (await letters.get(result.task_id)).death.at
            assert await letters.replay(result.task_id)
            async with worker_of(app):
                await eventually(letters.count, within=WITHIN)

        (death,) = (await letters.get(result.task_id)).history
        assert death.at == first


async def test_replaying_by_filter_takes_what_it_says_and_leaves_the_rest(app, letters, worker_of, switch, events):
    async with app:
        results = await killed(app, worker_of, [("mail", f"m{n}") for n in range(5)] + [("pay", n) for n in range(5)])
        switch.fails = False
        progress = []

        assert await letters.replay_many(Chosen(task="mail"), progress=progress.append) == 5

        assert sum(progress) == 5
        assert await letters.count() == 5
        async with worker_of(app):
            assert await ended(*results[:5]) == [f"m{n}" for n in range(5)]
        assert await letters.replay_many([r.task_id for r in results]) == 5, "those that are still there"
        assert await letters.replay_many() == 0


async def test_another_queue_may_take_it(app, letters, worker_of, switch):
    async with app:
        (result,) = await killed(app, worker_of, [("pay", 1)])
        switch.fails = False

        assert await letters.replay(result.task_id, to="special")

        assert (await app.broker.stats("special")).ready == 1
        async with worker_of(app, queue="special"):
            assert await ended(result) == ["1 EUR"]


async def test_a_rate_is_kept(app, letters, worker_of):
    async with app:
        await killed(app, worker_of, [("mail", f"m{n}") for n in range(6)])
        began = asyncio.get_running_loop().time()

        assert await letters.replay_many(rate=10) == 6

        assert asyncio.get_running_loop().time() - began >= 0.55
        with pytest.raises(ValueError, match="rate must be more than 0"):
            await letters.replay_many(rate=0)


@pytest.mark.parametrize(
    ("changes", "value"),
    [({"amount": 7}, "7 EUR"), ({"currency": "CHF"}, "-1 CHF"), ({"amount": 8, "currency": "CHF"}, "8 CHF")],
    ids=["positional", "named", "both"],
)
async def test_arguments_are_edited_by_name(app, letters, worker_of, switch, changes, value):
    async with app:
        (result,) = await killed(app, worker_of, [("pay", -1)])
        switch.fails = False

        assert await letters.replay(result.task_id, arguments=changes)

        async with worker_of(app):
            assert await ended(result) == [value if "amount" in changes else TaskState.DEAD_LETTERED]


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"amount": "lots"}, "amount"), ({"unheard_of": 1}, "unheard_of")],
    ids=["wrong type", "no such parameter"],
)
async def test_arguments_that_do_not_fit_are_refused_and_nothing_moves(app, letters, worker_of, changes, said):
    async with app:
        (result,) = await killed(app, worker_of, [("pay", 1)])

        with pytest.raises(ArgumentEditError, match=said):
            await letters.replay(result.task_id, arguments=changes)

        assert await letters.count() == 1
        assert (await app.broker.stats()).ready == 0


async def test_an_argument_may_be_what_json_does_not_know(app, letters, worker_of, switch):
    async with app:
        (result,) = await killed(app, worker_of, [("mail", "a")])
        switch.fails = False

        assert await letters.replay(result.task_id, arguments={"at": datetime(2026, 1, 1, tzinfo=UTC), "to": "b"})

        async with worker_of(app):
            assert await ended(result) == ["b"]


async def test_arguments_that_never_fitted_are_mended(app, letters, worker_of, switch):
    switch.fails = False
    document = {"chicory": 1, "id": "a", "task": "pay", "arguments": {"args": ["lots"], "kwargs": {}}}
    async with app:
        client = await app.client()
        async with worker_of(app):
            await client.connection.joined.publish([an_envelope(id="a", body=msgspec.json.encode(document))])
            await eventually(letters.count, within=WITHIN)

            assert await letters.replay("a", arguments={"amount": 3})

            assert await eventually(lambda: _value(app, "a"), within=WITHIN) == "3 EUR"


async def _value(app, task_id):
    info = await AsyncResult(task_id, app.backend).info()
    return info.value if info.state is TaskState.SUCCESS else None


async def test_only_who_knows_the_task_can_edit_its_arguments(app, where, worker_of):
    async with app:
        (result,) = await killed(app, worker_of, [("pay", 1)])
        if where["broker"] == "memory://":
            pytest.skip("what is in memory is in one app")
        stranger = Chicory(**where)
        async with stranger:
            letters = stranger.require(DeadLetters)
            with pytest.raises(TaskNotFoundError, match="pay"):
                await letters.replay(result.task_id, arguments={"amount": 2})

            assert await letters.replay(result.task_id)


async def test_unreadable_bytes_come_back_as_they_were(app, letters, worker_of):
    raw = an_envelope(id="a", body=b"\xff\x00 not a document", queue="mail", priority=3)
    async with app:
        client = await app.client()
        await client.connection.joined.publish([raw])
        async with worker_of(app):
            await eventually(letters.count, within=WITHIN)
        with pytest.raises(ArgumentEditError, match="cannot be read"):
            await letters.replay("a", arguments={"to": "b"})

        assert await letters.replay("a")

        (message,) = await app.broker.get_messages("mail", ["a"])
        priority = raw.priority if app.broker.capabilities.priorities > 1 else 0
        assert replace(message.envelope, due=None) == replace(raw, hop=2, priority=priority)


async def test_an_expiry_that_has_passed_does_not_stop_a_replay(app, letters, worker_of, switch):
    async with app:
        async with worker_of(app):
            result = await app.tasks["mail"].options(expires=0.7).delay("a")
            assert (await ended(result))[0] in (TaskState.DEAD_LETTERED, TaskState.EXPIRED)
            letter = await eventually(lambda: letters.get(result.task_id), within=WITHIN)
            expires = letter.document.expires
            await eventually(lambda: datetime.now(UTC) > expires, within=WITHIN)
        switch.fails = False

        assert await letters.replay(result.task_id)

        async with worker_of(app):
            assert await ended(result) == ["a"]


async def test_two_replayers_share_the_work(app, letters, worker_of, switch):
    async with app:
        results = await killed(app, worker_of, [("mail", f"m{n}") for n in range(120)])
        switch.fails = False
        switch.ran.clear()

        async with worker_of(app):
            moved = await asyncio.gather(letters.replay_many(), letters.replay_many(), letters.replay_many(Chosen(task="mail")))
            values = await ended(*results)

        assert sum(moved) == 120
        assert sorted(values) == sorted(switch.ran) == sorted(f"m{n}" for n in range(120))
        assert await letters.count() == 0


async def test_replaying_goes_on_while_it_is_being_filled(app, letters, worker_of, switch):
    """Producer, worker and replayer at once, and every task fails on its first two runs: nothing is lost, nothing endless."""
    counts = {}

    @app.task(name="third")
    async def third(n: int) -> int:
        counts[n] = counts.get(n, 0) + 1
        if counts[n] < 3:
            raise OSError
        return n

    async with app, worker_of(app):
        results = []

        async def produce():
            for n in range(60):
                results.append(await third.delay(n))  # noqa: PERF401 - each is awaited

        async def replay():
            moved = 0
            while moved < 120:
                moved += await letters.replay_many(Chosen(task="third"))
                await asyncio.sleep(0)
            return moved

        _, moved = await asyncio.wait_for(asyncio.gather(produce(), replay()), 50)

        await eventually(lambda: sum(counts.values()) == 180, within=WITHIN)
        await eventually(lambda: _all_done(results), within=WITHIN)
        assert moved == 120
        assert set(counts.values()) == {3}
        assert await letters.count() == 0


async def _all_done(results):
    return {await result.state() for result in results} == {TaskState.SUCCESS}


async def test_what_has_come_back_meanwhile_is_not_moved_by_an_old_look(app, letters, worker_of, switch):
    async with app:
        (result,) = await killed(app, worker_of, [("mail", "a")])
        old = await letters.get(result.task_id)
        assert await letters.replay(result.task_id)
        async with worker_of(app):
            await eventually(letters.count, within=WITHIN)
        new = await letters.get(result.task_id)

        assert await letters._move([old], None, {}) == set()

        assert await letters.get(result.task_id) == new
        assert await result.state() is TaskState.DEAD_LETTERED


async def test_a_result_that_has_expired_is_there_again_for_who_waits_for_the_replay(where, switch, worker_of, monkeypatch):
    monkeypatch.setenv("CHICORY_RESULT_TTL", "0.5")
    app = with_tasks(Chicory(**where), switch)
    letters = app.require(DeadLetters)
    async with app:
        (result,) = await killed(app, worker_of, [("mail", "a")])

        expired = asyncio.get_running_loop().time() + 1.0  # where message and record are one row, it stays for longer
        await eventually(lambda: asyncio.get_running_loop().time() > expired, within=WITHIN)
        switch.fails = False

        assert await letters.replay(result.task_id)

        assert await result.state() is TaskState.PENDING
        async with worker_of(app):
            assert await ended(AsyncResult(result.task_id, app.backend)) == ["a"]


# --- deleting --------------------------------------------------------------------------------------


async def test_deleted_letters_are_gone_with_their_results(app, letters, worker_of, events):
    async with app:
        results = await killed(app, worker_of, [("mail", f"m{n}") for n in range(4)])

        assert await letters.delete([results[0].task_id, "nobody"]) == 1

        assert await letters.count() == 3
        for result, is_there in zip(results, [False, True, True, True], strict=True):
            record = await app.backend.fetch_record(result.task_id)
            assert (record is not None) is is_there
        assert await letters.delete(Chosen(task="pay")) == 0
        assert await letters.purge("default") == 0
        assert await letters.purge() == 3
        assert await letters.count() == 0


async def test_each_replay_and_each_deletion_is_an_event(events, where, switch, worker_of):
    app = with_tasks(Chicory(**where), switch)
    letters = app.require(DeadLetters)
    async with app:
        results = await killed(app, worker_of, [("mail", f"m{n}") for n in range(3)])
        await letters.replay(results[0].task_id)
        await letters.delete([results[1].task_id])
        await letters.purge()

    assert len(events.of("task.dead_lettered")) == 3
    (replayed,) = events.of("dead_letter.replayed")
    assert (replayed.task_id, replayed.task, replayed.queue, replayed.reason) == (results[0].task_id, "mail", "mail", "error")
    assert [(e.task_id, e.reason) for e in events.of("dead_letter.deleted")] == [
        (results[1].task_id, "deleted"),
        (results[2].task_id, "purged"),
    ]


async def test_retention_drops_the_oldest_and_says_each(events, where, switch, worker_of):
    app = with_tasks(Chicory(**where), switch)
    letters = app.require(DeadLetters)
    async with app:
        results = [(await killed(app, worker_of, [("mail", f"m{n}")]))[0] for n in range(3)]
        assert await letters.retain() == 0, "off unless asked for"
        assert await letters.retain(max_age=3600, max_count=3) == 0

        assert await letters.retain(max_count=2) == 1

        kept = {letter.id async for letter in letters.each()}
        assert kept == {result.task_id for result in results[1:]}
        assert await letters.retain("mail", max_age=0) == 2
    told = [(event.task_id, event.reason) for event in events.of("dead_letter.deleted")]
    assert told[0] == (results[0].task_id, "count")
    assert sorted(told[1:]) == sorted((result.task_id, "age") for result in results[1:])


async def test_what_a_cut_off_replay_left_pending_is_forgotten_when_the_letter_is_deleted(app, letters, worker_of):
    """Two stores: a replayer that is killed before the move has said PENDING already."""
    async with app:
        (result,) = await killed(app, worker_of, [("mail", "a")])
        letter = await letters.get(result.task_id)
        revived = replace(letter.envelope, hop=letter.envelope.hop + 1, queue="mail")
        await letters._records.before_replay([revived])

        assert await letters.delete([result.task_id]) == 1

        if await app.backend.tracks_pending():
            with pytest.raises(ResultNotFoundError):
                await result.state()
        assert await app.backend.fetch_record(result.task_id) is None


async def test_a_replay_that_comes_after_a_deletion_leaves_no_record(app, letters, worker_of):
    async with app:
        (result,) = await killed(app, worker_of, [("mail", "a")])
        letter = await letters.get(result.task_id)
        assert await letters.delete([result.task_id]) == 1

        assert await letters._move([letter], None, {}) == set()

        assert await app.backend.fetch_record(result.task_id) is None


def test_retention_takes_the_oldest_first():
    from chicory_dlq.choice import doomed

    now = datetime(2026, 1, 1, tzinfo=UTC)
    moments = [(now - timedelta(seconds=age), str(age)) for age in (5, 50, 20, 90)]

    assert doomed(moments, now=now, max_age=40, max_count=None) == [("90", "age"), ("50", "age")]
    assert doomed(moments, now=now, max_age=None, max_count=1) == [("90", "count"), ("50", "count"), ("20", "count")]
    assert doomed(moments, now=now, max_age=60, max_count=3) == [("90", "age")]
    assert doomed(moments, now=now, max_age=60, max_count=2) == [("90", "age"), ("50", "count")]
    assert doomed(moments, now=now, max_age=None, max_count=None) == []
