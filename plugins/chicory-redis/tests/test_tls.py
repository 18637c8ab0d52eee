"""An encrypted server that wants to see a certificate: in front of a real one stands an end of TLS."""

import asyncio
import contextlib
import os
import ssl
import sys
from asyncio.subprocess import PIPE, STDOUT

import pytest
import trustme


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
async def encrypted(redis_server, authority):
    """The port of a server that talks TLS alone, and only to those whom the authority knows."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)

    async def pipe(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", redis_server.port)
        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
def files(tmp_path, authority):
    """The authority's certificate, and a client's with its key, as the settings name them."""
    found = {name: str(tmp_path / f"{name}.pem") for name in ("tls_ca_file", "tls_cert_file", "tls_key_file")}
    client = authority.issue_cert("me@example.org")
    authority.cert_pem.write_to_path(found["tls_ca_file"])
    client.private_key_pem.write_to_path(found["tls_key_file"])
    for part in client.cert_chain_pems:
        part.write_to_path(found["tls_cert_file"], append=True)
    return found


PROGRAM = """
import asyncio, sys
from chicory import Chicory, Worker

app = Chicory(broker=sys.argv[1], backend=sys.argv[1])

@app.task
async def double(number: int) -> int:
    return 2 * number

async def main():
    async with app, Worker(app):
        results = await asyncio.gather(*(double.delay(n) for n in range(50)))
        assert await asyncio.gather(*(result.get(timeout=20) for result in results)) == [2 * n for n in range(50)]
    print("done")

asyncio.run(main())
"""


async def ran(url, files):
    """What a process of its own, with these files in its environment, says and ends with: it has two loops over TLS."""
    names = {f"CHICORY_{part}_REDIS_{name.upper()}": file for name, file in files.items() for part in ("BROKER", "BACKEND")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, url), env={**os.environ, **names}, stdout=PIPE, stderr=STDOUT
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_tasks_and_results_travel_encrypted(encrypted, files, place):
    assert await ran(f"rediss://localhost:{encrypted}/0?key_prefix={place.prefix}", files) == (0, "done\n")


@pytest.mark.parametrize("missing", ["tls_ca_file", "tls_cert_file"])
async def test_who_is_not_known_is_refused_and_told_so(encrypted, files, missing):
    gone = {missing, "tls_key_file"} if missing == "tls_cert_file" else {missing}
    code, said = await ran(
        f"rediss://localhost:{encrypted}/0", {name: file for name, file in files.items() if name not in gone}
    )
    assert code == 1
    assert said.splitlines()[-1].startswith(f"chicory.errors.BrokerConnectionError: broker rediss://localhost:{encrypted}/0")
