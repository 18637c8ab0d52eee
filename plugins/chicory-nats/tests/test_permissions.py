"""The permissions that the page names are enough, and a user without them may not."""

import re
from pathlib import Path

import pytest

from chicory import Chicory, Worker
from chicory.errors import BrokerConnectionError
from chicory_nats import NatsBackend, NatsBroker
from chicory_nats.names import Names

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "nats.md"


def users_of_the_page():
    """The configuration that the page shows."""
    (block,) = re.findall(r"```text title=\"server.conf\"\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return block


@pytest.fixture
def as_user(make_server):
    server = make_server(users_of_the_page())

    def place(name):
        options = {"user": name, "password": f"{name}-password", "inbox_prefix": f"_INBOX_{name}"}
        return server.place(names=Names("chicory"), options=options)

    return place


async def test_producer_and_worker_get_by_with_what_the_page_gives_them(as_user):
    async with NatsBroker(as_user("setup")) as broker, NatsBackend(as_user("setup")):
        await broker.health()
    producer = Chicory(broker=NatsBroker(as_user("producer")), backend=NatsBackend(as_user("producer")))
    app = Chicory(broker=NatsBroker(as_user("worker")), backend=NatsBackend(as_user("worker")))

    @app.task(name="add")
    async def add(a: int, b: int) -> int:
        return a + b

    async with producer, app, Worker(app):
        now = await producer.send_task("add", [1, 2])
        later = await producer.send_task("add", [3, 4], countdown=0.2, priority=5)

        assert (await now.get(timeout=20), await later.get(timeout=20)) == (3, 7)


async def test_a_producer_makes_no_streams_and_takes_no_messages(as_user):
    with pytest.raises(BrokerConnectionError, match="no permission"):
        async with NatsBroker(as_user("producer")):
            pass
    async with NatsBroker(as_user("setup")):
        pass
    async with NatsBroker(as_user("producer")) as broker:
        with pytest.raises(BrokerConnectionError, match="no permission"):
            await broker.prepare(["default"], 30.0)
