"""A server that talks TLS alone, and wants to see a certificate."""

import asyncio

import pytest
import trustme

from chicory import Chicory, Worker
from chicory.config import ChicoryConfig
from chicory.errors import BrokerConnectionError


def written(folder, name, certificate):
    """A certificate and its key as files."""
    key, chain = folder / f"{name}.key", folder / f"{name}.pem"
    certificate.private_key_pem.write_to_path(str(key))
    for part in certificate.cert_chain_pems:
        part.write_to_path(str(chain), append=True)
    return str(chain), str(key)


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def files(tmp_path, authority):
    """The authority's certificate, and a client's with its key, as the settings name them."""
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    chain, key = written(tmp_path, "client", authority.issue_cert("me@example.org"))
    return {"tls_ca_file": str(trusted), "tls_cert_file": chain, "tls_key_file": key}


@pytest.fixture
def encrypted(tmp_path, make_server, authority, files):
    """The port of a server that lets in only those whom the authority knows."""
    chain, key = written(tmp_path, "server", authority.issue_cert("localhost"))
    trusted = files["tls_ca_file"]
    return make_server(f'tls {{ cert_file: "{chain}", key_file: "{key}", ca_file: "{trusted}", verify: true }}').port


def app_with(monkeypatch, files, url):
    for name, file in files.items():
        for part in ("BROKER", "BACKEND"):
            monkeypatch.setenv(f"CHICORY_{part}_NATS_{name.upper()}", file)
    return Chicory(config=ChicoryConfig(), broker=url, backend=url)


async def test_tasks_and_results_travel_encrypted(monkeypatch, encrypted, files):
    app = app_with(monkeypatch, files, f"tls://localhost:{encrypted}")

    @app.task
    async def double(number: int) -> int:
        return 2 * number

    async with app, Worker(app):
        results = await asyncio.gather(*(double.delay(n) for n in range(50)))
        assert await asyncio.gather(*(result.get(timeout=20) for result in results)) == [2 * n for n in range(50)]


@pytest.mark.parametrize("missing", ["tls_ca_file", "tls_cert_file"])
async def test_who_is_not_known_is_refused_and_told_so(monkeypatch, encrypted, files, missing):
    known = {
        name: file for name, file in files.items() if name != missing and (missing, name) != ("tls_cert_file", "tls_key_file")
    }
    app = app_with(monkeypatch, known, f"tls://localhost:{encrypted}")
    with pytest.raises(BrokerConnectionError, match=r"localhost:\d+"):
        async with app:
            await app.broker.stats()
