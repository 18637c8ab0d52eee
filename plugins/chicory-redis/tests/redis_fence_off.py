"""A negative control's worker: in it, scripts take any consumer and delivery for the owner, and any record for a later one."""

from __future__ import annotations

import hashlib

from chicory_redis import server

_FENCES = {
    "return not held.err and held[1] and held[1][2] == ME and held[1][4] == count": "return true",
    "if old.flag == 'T' then return state == 'PENDING' and hop > old.hop end": "if true then return true end",
}


def fence_off() -> None:
    whole = server.load

    def load(script: str, *, knows_flags: bool) -> tuple[str, str]:
        text, _ = whole(script, knows_flags=knows_flags)
        for fence, nothing in _FENCES.items():
            assert script != "settle" or text.count(fence) == 1, f"there is another fence now than {fence!r}"
            text = text.replace(fence, nothing)
        return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    server.load = load
