"""How a worker's health is seen from outside: over HTTP, and in a state file. Each from a thread of its own."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import TYPE_CHECKING, final

import msgspec

from chicory.errors import ConfigurationError
from chicory.logs import get_logger
from chicory.vitals import REWRITE_SECONDS, Vitals, file_for, forget_gone, host_and_port, write

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ProbeServer", "StateFile"]

_REQUEST_SECONDS = 5.0
"""A client that says nothing for so long is hung up on."""
_JOIN_SECONDS = 5.0
"""A file system may hang; the end of a worker does not wait for it longer."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # that of HTTPServer asks the DNS for a name that nobody needs

    def handle_error(self, request: object, client_address: object) -> None:
        """A prober that hung up is no news."""


@final
class ProbeServer:
    """Answers ``/live`` and ``/ready`` at *address*: 200 or 503, with the vitals as JSON.

    Raises:
        ConfigurationError: nothing can listen there.
    """

    def __init__(self, address: str, vitals: Callable[[], Vitals]) -> None:
        host, port = host_and_port(address)
        try:
            self._server = _Server(host, port, _handler(vitals))
        except OSError as error:
            raise ConfigurationError(
                f"health_address {address!r} cannot be listened on ({error.strerror or error}): "
                "give another port, or 0 for a free one"
            ) from error
        bound = self._server.server_address
        self.address = f"[{host}]:{bound[1]}" if ":" in host else f"{host}:{bound[1]}"
        """Where it answers: with the port that was found, for 0."""
        self._thread = threading.Thread(target=self._server.serve_forever, name="chicory-probes", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no longer; comes after `start`."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(vitals: Callable[[], Vitals]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_SECONDS
        server_version, sys_version = "chicory", ""

        def do_GET(self) -> None:
            known = vitals()
            answers = {"/live": known.live, "/ready": known.ready}
            path = self.path.partition("?")[0]
            if path not in answers:
                self._answer(404, b'{"error":"ask for /live or /ready"}')
                return
            self._answer(200 if answers[path] else 503, msgspec.json.encode(known))

        do_HEAD = do_GET  # noqa: N815 - likewise

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            """Probes come every few seconds: they are no news."""

    return Handler


@final
class StateFile:
    """Keeps the vitals in a file, for ``chicory health``. Where nothing can be written there is one warning, and no file."""

    def __init__(self, worker_id: str, chosen: str | None, vitals: Callable[[], Vitals]) -> None:
        self._worker_id, self._chosen, self._vitals = worker_id, chosen, vitals
        self._file: Path | None = None
        self._is_ending = False
        self._has_warned = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chicory-state-file", daemon=True)
        self._log = get_logger("probes", worker_id=worker_id)

    def start(self) -> None:
        """Write it, and again every two seconds."""
        self._thread.start()

    def renew(self) -> None:
        """Something has changed: write it now."""
        self._wake.set()

    def stop(self) -> None:
        """Remove it; comes after `start`."""
        self._is_ending = True
        self._wake.set()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        while not self._is_ending:
            self._write()
            self._wake.wait(REWRITE_SECONDS)
            self._wake.clear()
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _write(self) -> None:
        try:
            if self._file is None:
                self._file = file_for(self._worker_id, self._chosen)
                if self._chosen is None:
                    forget_gone(self._file.parent)
            write(self._file, self._vitals())
        except OSError as error:
            self._file = None  # the folder may have been swept: look for it anew
            if not self._has_warned:
                self._has_warned = True
                self._log.warning("health_file_not_written", reason=str(error))
