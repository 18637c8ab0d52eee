"""The streams and buckets of a namespace: made where they are missing, and checked where they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chicory_nats.server import Fault, Missing

if TYPE_CHECKING:
    from chicory_nats.server import Place, Server

__all__ = ["bucket", "ensure", "messages"]

_BILLION = 1_000_000_000
_EXISTS = 10058
"""Another made it in the same moment, or it differs."""


def messages(place: Place, dedup_window: float) -> dict[str, Any]:
    """The stream of all messages, ready and delayed."""
    names = place.names
    return {
        "name": names.stream,
        "subjects": [names.all_ready(), names.all_delayed()],
        "retention": "workqueue",
        "storage": "file",
        "discard": "old",  # message schedules allow no other; without limits of the stream nothing is ever discarded
        "num_replicas": place.replicas,
        "duplicate_window": round(dedup_window * _BILLION),
        "allow_direct": True,
        "allow_msg_ttl": True,
        "allow_msg_schedules": True,
    }


def bucket(place: Place, name: str) -> dict[str, Any]:
    """A key-value bucket, whose changes are told on ``<name>.<key>`` once they are stored."""
    return {
        "name": f"KV_{name}",
        "subjects": [f"$KV.{name}.>"],
        "storage": "file",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "num_replicas": place.replicas,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "subject_delete_marker_ttl": _BILLION,
        "republish": {"src": f"$KV.{name}.>", "dest": f"{name}.>"},
    }


_ESSENTIAL = (
    "retention",
    "allow_direct",
    "allow_msg_ttl",
    "allow_msg_schedules",
    "max_msgs_per_subject",
    "duplicate_window",
    "republish",
)
"""What must be as it is made here for everything else to be right."""


async def ensure(server: Server, wanted: dict[str, Any]) -> dict[str, Any]:
    """Make this stream unless it is there; return what the server says about it.

    Raises:
        Fault: it is there, and is another than is needed; or this user may not make it.
    """
    name = wanted["name"]
    try:
        found: dict[str, Any] = await server.request(f"STREAM.INFO.{name}")
    except Missing:
        try:
            made: dict[str, Any] = await server.request(f"STREAM.CREATE.{name}", wanted)
        except Fault as fault:
            if fault.code != _EXISTS:
                raise
            found = await server.request(f"STREAM.INFO.{name}")
        else:
            return made
    _compare(name, wanted, found["config"])
    return found


def _compare(name: str, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    missing = [subject for subject in wanted["subjects"] if subject not in found.get("subjects", ())]
    if missing:
        raise Fault(
            _EXISTS, f"stream {name} is there and takes no {', '.join(missing)}: another program's, or of another version"
        )
    for key in _ESSENTIAL:
        ours, theirs = wanted.get(key), found.get(key)
        if key in wanted and not _agree(ours, theirs):
            raise Fault(_EXISTS, f"stream {name} is there with {key} {theirs!r}, and {ours!r} is needed: change or remove it")


def _agree(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, dict):
        return isinstance(theirs, dict) and all(theirs.get(key) == value for key, value in ours.items())
    return bool(ours == theirs)
