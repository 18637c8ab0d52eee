"""The TCP proxy of the fault suite, between a client and a server of the standard library."""

import asyncio
import time

import pytest

from chicory.testing import ProxyMode, TcpProxy, eventually


@pytest.fixture
async def heard():
    """What the server has read."""
    return bytearray()


@pytest.fixture
async def proxy(heard):
    async def echo(reader, writer):
        while data := await reader.read(1000):
            heard.extend(data)
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with TcpProxy(*server.sockets[0].getsockname()) as proxy:
        yield proxy
    server.close()


@pytest.fixture
async def client(proxy):
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    yield reader, writer
    writer.close()


async def ask(client, data, within=1.0):
    reader, writer = client
    writer.write(data)
    return await asyncio.wait_for(reader.readexactly(len(data)), within)


async def test_everything_passes(proxy, client):
    big = bytes(1_000_000)

    assert await ask(client, b"hello") == b"hello"
    assert await ask(client, big, within=10) == big
    assert proxy.connections == 1


async def test_a_client_that_leaves_leaves_nothing(proxy, client):
    assert await ask(client, b"hello") == b"hello"

    client[1].close()

    await eventually(lambda: proxy.connections == 0)


@pytest.mark.parametrize("mode", [ProxyMode.REFUSE, ProxyMode.RESET])
async def test_connections_are_reset(proxy, client, mode):
    await ask(client, b"hello")

    await proxy.set(mode)

    with pytest.raises(ConnectionResetError):
        await client[0].readexactly(1)


async def test_refused_means_that_nobody_listens_and_the_port_stays(proxy):
    await proxy.set(ProxyMode.REFUSE)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)

    await proxy.set(ProxyMode.PASS)

    client = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await ask(client, b"hello") == b"hello"
    client[1].close()


async def test_new_connections_are_reset_too(proxy):
    await proxy.set(ProxyMode.RESET)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)

    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()


async def test_in_a_black_hole_bytes_vanish_both_ways_and_nobody_hears_of_it(proxy, client, heard):
    await ask(client, b"hello")
    await proxy.set(ProxyMode.BLACKHOLE)

    with pytest.raises(TimeoutError):
        await ask(client, b"lost", within=0.1)

    assert heard == b"hello"
    await proxy.set(ProxyMode.PASS)
    assert await ask(client, b"again") == b"again"


async def test_one_way_the_server_hears_and_is_not_heard(proxy, client, heard):
    await proxy.set(ProxyMode.ONE_WAY)

    with pytest.raises(TimeoutError):
        await ask(client, b"hello", within=0.1)

    assert heard == b"hello"


async def test_latency_delays_both_ways(proxy, client):
    await proxy.set(ProxyMode.LATENCY, seconds=0.05)
    began = time.monotonic()

    assert await ask(client, b"hello") == b"hello"

    assert time.monotonic() - began >= 0.1


async def test_a_reply_is_cut_once_in_the_middle(proxy, client, heard):
    await proxy.set(ProxyMode.CUT_REPLY, after=8)
    assert await ask(client, b"hello") == b"hello"
    client[1].write(b"goodbye")

    with pytest.raises(ConnectionResetError):
        await client[0].readexactly(7)

    assert heard == b"hellogoodbye"
    again = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await ask(again, b"hello") == b"hello"
    again[1].close()


async def test_without_its_server_a_connection_is_reset():
    async with TcpProxy("127.0.0.1", 1) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)

        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
