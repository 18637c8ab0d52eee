"""The names of OpenTelemetry's semantic conventions that chicory uses, and which version of them it follows.

The conventions for messaging are in development: names may still change. Then they change in this module, and nowhere else.
They are copied, for the package that has them keeps them private. https://opentelemetry.io/docs/specs/semconv/messaging/
"""

from __future__ import annotations

from urllib.parse import urlsplit

VERSION = "1.45.0"
SCHEMA_URL = f"https://opentelemetry.io/schemas/{VERSION}"

# --- attributes of spans ---------------------------------------------------------------------------

SYSTEM = "messaging.system"
OPERATION = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
MESSAGE_ID = "messaging.message.id"
BATCH_COUNT = "messaging.batch.message_count"
CONSUMER_GROUP = "messaging.consumer.group.name"
CLIENT_ID = "messaging.client.id"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"

# Not of the conventions: what only chicory has.
TASK = "chicory.task.name"
ATTEMPT = "chicory.task.attempt"
DELIVERY_COUNT = "chicory.task.delivery_count"
QUEUE_TIME = "chicory.task.queue_time_ms"

# --- operations: the first word of a span's name -----------------------------------------------------

SEND, CREATE, PROCESS = "send", "create", "process"
ACK, RETRY, DEAD, RELEASE = "ack", "retry", "dead", "release"
TYPES = {SEND: "send", CREATE: "create", PROCESS: "process", ACK: "settle", RETRY: "settle", DEAD: "settle", RELEASE: "settle"}

# --- metrics of the conventions (opt-in) --------------------------------------------------------------

SENT_MESSAGES = "messaging.client.sent.messages"
CONSUMED_MESSAGES = "messaging.client.consumed.messages"
OPERATION_DURATION = "messaging.client.operation.duration"
PROCESS_DURATION = "messaging.process.duration"

DURATION_BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""What the conventions advise for durations."""
LONG_BOUNDARIES = (*DURATION_BOUNDARIES, 30, 60, 300, 900, 3600)
"""For what lasts as long as tasks do: theirs end where many tasks begin."""

_SYSTEMS = {"rediss": "redis", "unix": "redis", "tls": "nats"}


def system_of(address: str) -> str:
    """The messaging system at *address*. The conventions know none of ours yet, and let others have their own name.

    >>> system_of("rediss://cache:6379/0"), system_of("sqlite:///chicory.db")
    ('redis', 'sqlite')
    """
    scheme = urlsplit(address).scheme
    return _SYSTEMS.get(scheme, scheme) or "chicory"


def server_of(address: str) -> dict[str, str | int]:
    """Host and port of *address* as attributes; none where it has none.

    >>> server_of("redis://cache:6379/0")
    {'server.address': 'cache', 'server.port': 6379}
    >>> server_of("sqlite:////srv/chicory.db")
    {}
    """
    parts = urlsplit(address.partition(",")[0])
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname:
        return {}
    return {SERVER_ADDRESS: parts.hostname} if port is None else {SERVER_ADDRESS: parts.hostname, SERVER_PORT: port}


def span_name(operation: str, queue: str | None) -> str:
    """What a span of *operation* on *queue* is called.

    >>> span_name(SEND, "mail")
    'send mail'
    """
    return operation if queue is None else f"{operation} {queue}"
