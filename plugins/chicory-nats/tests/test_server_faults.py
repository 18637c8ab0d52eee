"""The server ends, comes back, stands still, forgets, or has no room; with real workers under load."""

import asyncio
import logging
import time

import pytest

from chicory import Chicory, RetryPolicy, TaskState, Worker, WorkerConfig
from chicory.errors import BrokerConnectionError, BrokerFullError, PayloadTooLargeError
from chicory.plugin import Settled, Settlement, new_id
from chicory.testing import a_record, an_envelope, eventually, receive_one
from chicory.testing.faults.chaos import app_on
from chicory.testing.faults.ledger import Ledger
from chicory.testing.faults.workers import Workers
from chicory_nats import NatsBackend, NatsBroker

KIB = 1024


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    yield ledger
    ledger.close()


@pytest.fixture
def start(tmp_path, ledger):
    """Starts workers of the fault suite's workload on a server."""
    started = []

    async def start(url, count=1, **environment):
        workers = Workers(tmp_path, ledger, {"CHICORY_WORKER_LEASE_SECONDS": "2", "CHICORY_BROKER_URL": url})
        started.append(workers)
        return await workers.start(count, **environment)

    yield start
    for workers in started:
        workers.end()


async def send(app, count):
    """Tasks that are sent in any case: a call that failed is repeated under its id."""
    results = []
    for _ in range(count):
        task_id = new_id()
        while True:
            try:
                results.append(await app.send_task("faults.work", [0.0], task_id=task_id))
                break
            except BrokerConnectionError:
                await asyncio.sleep(0.05)
    return results


async def value_of(result):
    try:
        return await result.get(timeout=30)
    except ConnectionError:
        return None


async def is_empty(app):
    stats = await app.broker.stats()
    return not stats.ready + stats.delayed + stats.running


@pytest.mark.timeout(180)
async def test_a_server_that_is_killed_five_times_loses_nothing(make_server, start, ledger):
    server = make_server()
    (worker,) = await start(server.url)
    async with app_on({"CHICORY_BROKER_URL": server.url}) as app:
        sending = asyncio.create_task(send(app, 1500))
        for _ in range(5):
            await asyncio.sleep(0.5)
            server.kill()
            await asyncio.sleep(0.3)
            server.start()
        results = await sending

        values = await asyncio.gather(*(eventually(lambda r=r: value_of(r), within=60) for r in results))

        assert set(values) == {worker.pid}
        assert len({fact.task_id for fact in ledger.facts("start")}) == 1500
        await eventually(lambda: is_empty(app), within=30)
    assert worker.log().count("is lost: it is tried anew") <= 5 * 4, "one line for each connection and loss"
    assert "Traceback" not in worker.log()


async def test_a_consumer_that_is_deleted_under_load_is_made_anew(make_server, start, ledger):
    server = make_server()
    (worker,) = await start(server.url)
    async with app_on({"CHICORY_BROKER_URL": server.url}) as app, NatsBroker(place_of(server)) as broker:
        results = await send(app, 100)
        sending = asyncio.create_task(send(app, 300))
        await broker.server.request(f"CONSUMER.DELETE.chicory.{broker._durables.reader('default', 0)}")
        results += await sending

        assert {await value_of(result) for result in results} == {worker.pid}
        await eventually(lambda: is_empty(app), within=30)
    assert worker.exit_code is None


async def test_a_stream_that_is_deleted_under_load_is_made_anew(make_server, start):
    """What was in it is gone; what comes after is not."""
    server = make_server()
    (worker,) = await start(server.url)
    async with app_on({"CHICORY_BROKER_URL": server.url}) as app, NatsBroker(place_of(server)) as broker:
        before = asyncio.create_task(send(app, 200))
        await asyncio.sleep(0.1)
        await broker.server.request("STREAM.DELETE.chicory")
        await before

        results = await send(app, 50)

        assert {await value_of(result) for result in results} == {worker.pid}
    assert worker.exit_code is None


async def test_what_was_held_of_a_stream_that_was_deleted_ends_no_message_of_the_new_one(place):
    """A new stream counts from 1 again: the former's second message is not the second of this one."""
    async with NatsBroker(place) as slow, NatsBroker(place) as other:
        await slow.prepare(["default"], 30.0)
        await slow.publish([an_envelope(id=f"old-{n}") for n in range(3)])
        old = {delivery.envelope.id: delivery for delivery in await slow.receive(["default"], 3, 5.0)}
        await other.server.request(f"STREAM.DELETE.{place.names.stream}")
        await other.publish([an_envelope(id=f"new-{n}") for n in range(2)])
        await other.prepare(["default"], 30.0)
        (first,) = await other.receive(["default"], 1, 5.0)

        settled = await slow.settle([Settlement(delivery=d) for d in old.values()])
        assert settled == [Settled.GONE] * 3
        assert await slow.extend([d.receipt for d in old.values()]) == {d.receipt for d in old.values()}

        assert (await other.stats("default")).running == 1
        assert await other.is_there(first)
        (second,) = await slow.receive(["default"], 2, 5.0)
        assert await other.settle([Settlement(delivery=first)]) == [Settled.DONE]
        assert await slow.settle([Settlement(delivery=second)]) == [Settled.DONE]


async def test_what_was_held_when_a_consumer_was_deleted_comes_again_and_hangs_nobody(make_server):
    """The consumer that is made anew has not delivered it yet, and says nothing about it."""
    place = make_server().place(timeout=1.0)
    async with NatsBroker(place) as broker, NatsBroker(place) as other:
        await broker.prepare(["default"], 30.0)
        await broker.publish([an_envelope(id=f"order-{n}") for n in range(3)])
        held = await broker.receive(["default"], 3, 5.0)
        await other.server.request(f"CONSUMER.DELETE.{place.names.stream}.{other._durables.reader('default', 0)}")
        await other.prepare(["default"], 30.0)

        assert await broker.settle([Settlement(delivery=delivery) for delivery in held]) == [Settled.LOST] * 3

        again = await other.receive(["default"], 3, 5.0)
        assert await other.settle([Settlement(delivery=delivery) for delivery in again]) == [Settled.DONE] * 3


async def test_a_worker_with_nothing_to_find_does_not_spin(place):
    """Somebody deletes the consumer again and again: it is made anew about once a second."""
    async with NatsBroker(place) as broker, NatsBroker(place) as other:
        await broker.prepare(["default"], 30.0)
        asked = 0
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            try:
                await other.server.request(f"CONSUMER.DELETE.{place.names.stream}.{other._durables.reader('default', 0)}")
            except Exception as error:  # noqa: BLE001 - it may not be there yet
                assert "not found" in str(error)
            try:
                await broker.receive(["default"], 1, 0.2)
            except BrokerConnectionError:
                await asyncio.sleep(0.1)  # as a worker does, longer each time
            asked += 1
        assert asked <= 40


def place_of(server):
    """As the URL alone says it."""
    return server.place(names=type(server.place().names)("chicory"))


async def test_a_publish_to_a_server_that_stands_still_is_stored_all_the_same_and_runs_once(make_server):
    server = make_server()
    app = Chicory(broker=f"{server.url}?request_timeout=1")
    runs = []

    @app.task
    async def once_only(number: int) -> int:
        runs.append(number)
        return number

    async with app:
        await app.broker.stats()
        server.freeze()
        with pytest.raises(BrokerConnectionError, match="no answer within 1 s"):
            await once_only.options(task_id="order-17").delay(17)
        server.thaw()
        await eventually(lambda: has_ready(app), within=10)
        result = await once_only.options(task_id="order-17").delay(17)
        async with Worker(app):
            assert await result.get(timeout=10) == 17
            await eventually(lambda: is_empty(app), within=10)
    assert runs == [17]


async def has_ready(app):
    try:
        return (await app.broker.stats()).ready
    except BrokerConnectionError:
        return False


@pytest.mark.timeout(180)
async def test_five_thousand_that_fail_and_wait_do_not_hold_up_others(place, nats_server):
    app = Chicory(broker=NatsBroker(place), backend=NatsBackend(place))

    @app.task(retry_policy=RetryPolicy(max_retries=1, retry_delay=60.0, jitter=False))
    async def failing() -> None:
        raise ConnectionError("down")

    @app.task
    async def fresh() -> str:
        return "done"

    async with app:
        for _ in range(50):
            await asyncio.gather(*(failing.delay() for _ in range(100)))
        async with Worker(app, config=WorkerConfig(concurrency=64)) as worker:
            await eventually(lambda: worker.get_stats().tasks_processed >= 5000, within=120)
            results = await asyncio.gather(*(fresh.delay() for _ in range(20)))
            assert {await result.get(timeout=10) for result in results} == {"done"}
            await eventually(lambda: all_wait(app, 5000), within=20)


async def all_wait(app, count):
    stats = await app.broker.stats()
    return (stats.ready, stats.delayed, stats.running) == (0, count, 0)


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        (511 * KIB, True),
        (513 * KIB, True),
        (KIB * KIB - 4096, True),
        (KIB * KIB - 1, False),
        (KIB * KIB + 1, False),
        (20 * KIB * KIB, False),
    ],
)
async def test_large_messages_are_taken_or_refused_before_they_are_sent(place, size, fits):
    async with NatsBroker(place) as broker:
        client = (await broker.server.wire()).client_id
        if fits:
            await broker.publish([an_envelope(body=b"x" * size)])
            assert len((await receive_one(broker)).envelope.body) == size
        else:
            with pytest.raises(PayloadTooLargeError):
                await broker.publish([an_envelope(body=b"x" * size)])
        await broker.health()
        assert (await broker.server.wire()).client_id == client, "the connection stays up"


async def test_results_that_are_too_large_end_their_task_and_nothing_else(place):
    app = Chicory(broker=NatsBroker(place), backend=NatsBackend(place))

    @app.task
    async def large(size: int) -> str:
        return "x" * size

    async with app, Worker(app):
        assert len(await (await large.delay(500 * KIB)).get(timeout=20)) == 500 * KIB
        info = await eventually(lambda: ended(large, 600 * KIB), within=20)
        assert (info.state, info.error_type) == (TaskState.FAILURE, "PayloadTooLargeError")


async def ended(task, size):
    result = await task.options(task_id=f"of-{size}").delay(size)
    info = await result.info()
    return info if info.state.is_terminal else None


async def test_an_account_without_room_refuses_calls_and_lets_work_end(make_server):
    server = make_server(
        """
        accounts { small { jetstream { max_disk: 1MB, max_mem: 0 }, users [{ user: me, password: pw }] } }
        no_auth_user: me
        """
    )
    place = server.place()
    async with NatsBroker(place) as broker:
        await broker.prepare(["default"], 30.0)
        accepted = 0
        with pytest.raises(BrokerFullError):
            while True:
                await broker.publish([an_envelope(body=b"x" * 50_000)])
                accepted += 1
        assert accepted > 5
        assert (await broker.stats("default")).ready == accepted, "nothing was dropped"

        deliveries = await broker.receive(["default"], 100, 0)
        await broker.settle([Settlement(delivery=delivery) for delivery in deliveries])

        assert len(deliveries) == accepted
        await broker.publish([an_envelope(body=b"x" * 50_000)])


async def test_a_user_without_permission_is_told_what_is_missing(make_server):
    server = make_server(
        """
        authorization { users [
            { user: me, password: pw, permissions { publish: ["$JS.API.INFO"], subscribe: ["_INBOX.>"] } }
        ] }
        """
    )
    broker = NatsBroker(server.place(options={"user": "me", "password": "pw"}))

    with pytest.raises(BrokerConnectionError, match=r"no permission to publish to \$JS.API.STREAM.INFO"):
        async with broker:
            pass


async def test_a_stream_of_another_kind_is_refused(place):
    async with NatsBroker(place) as broker:
        await broker.server.request(f"STREAM.DELETE.{place.names.stream}")
        wrong = {"name": place.names.stream, "subjects": [place.names.all_ready(), place.names.all_delayed()]}
        await broker.server.request(f"STREAM.CREATE.{place.names.stream}", wrong)

    with pytest.raises(BrokerConnectionError, match="is there with retention 'limits', and 'workqueue' is needed"):
        async with NatsBroker(place):
            pass


async def test_a_server_that_is_too_old_is_refused(place, monkeypatch):
    monkeypatch.setattr("chicory_nats.server.OLDEST", (99, 0))

    with pytest.raises(BrokerConnectionError, match="what is delayed needs message schedules"):
        async with NatsBroker(place):
            pass


async def test_a_lost_connection_is_one_line_and_its_return_another(make_server, caplog):
    server = make_server()
    async with NatsBroker(server.place()) as broker:
        with caplog.at_level(logging.INFO):
            server.kill()
            await asyncio.sleep(1.0)
            server.start()
            await eventually(lambda: is_healthy(broker), within=20)

    lines = [record.getMessage() for record in caplog.records if record.name.startswith(("chicory.nats", "nats"))]
    assert len(lines) == 2, lines
    assert "is lost" in lines[0]
    assert "again" in lines[1]


async def is_healthy(broker):
    try:
        await broker.health()
    except BrokerConnectionError:
        return False
    return True


async def test_waiting_goes_on_over_a_restart_of_the_server(make_server):
    server = make_server()
    place = server.place()
    async with NatsBackend(place) as backend, NatsBackend(place) as other:
        record = a_record()
        waiting = asyncio.ensure_future(backend.wait(record.id, exists=False))
        await asyncio.sleep(0.1)
        server.kill()
        server.start()

        await eventually(lambda: is_healthy_store(other), within=20)
        await other.store([record])

        assert await asyncio.wait_for(waiting, 20) == record


async def is_healthy_store(backend):
    try:
        await backend.health()
    except ConnectionError:
        return False
    return True


async def test_nothing_is_left_after_a_drain(place):
    app = Chicory(broker=NatsBroker(place), backend=NatsBackend(place))

    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    async with app:
        async with Worker(app):
            results = await asyncio.gather(*(add.options(priority=n % 3).delay(n, 1) for n in range(100)))
            later = await add.options(countdown=0.5).delay(1, 1)
            await asyncio.gather(*(result.get(timeout=20) for result in (*results, later)))
        await eventually(lambda: is_empty(app), within=10)
        broker = NatsBroker(place)
        async with broker:
            server = broker.server
            messages = await server.request(f"STREAM.INFO.{place.names.stream}")
            assert messages["state"]["messages"] == 0
            names = (await server.request(f"CONSUMER.NAMES.{place.names.stream}"))["consumers"]
            assert sorted(names) == ["d-default", *(broker._durables.reader("default", level) for level in range(3))]
            consumers = await server.request(f"STREAM.INFO.KV_{place.names.consumers}")
            assert consumers["state"]["messages"] == 0
            found = await broker._durables.subjects(place.names.all_ready())
            assert found == {}
            results = await server.request(f"STREAM.INFO.KV_{place.names.results}", {"subjects_filter": ">"})
            kinds = [subject.split(".")[2] for subject in results["state"]["subjects"]]
            assert (kinds.count("r"), kinds.count("w")) == (101, 1)
