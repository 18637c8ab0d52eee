"""``chicory doctor``: runs every check, the core's and those of plugins, and says what they found."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from msgspec import Struct

from chicory.checkup import APP_CHECKS
from chicory.clock import SYSTEM_CLOCK, within
from chicory.errors import ChicoryError
from chicory.offers import Finding, FindingLevel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from chicory.app import Chicory

__all__ = ["Diagnosis", "examine", "no_app", "worst"]

_PATIENCE = 15.0
"""Seconds that one check may take."""
_SKEW = 2.0


@final
class Diagnosis(Struct, frozen=True, kw_only=True):
    """One finding, and the name of the check that made it."""

    check: str
    level: FindingLevel
    what: str
    fix: str = ""


def no_app(module: str, reason: str) -> Diagnosis:
    """The diagnosis of a *module* that does not import, or an app that cannot be made."""
    return _named(
        "app", Finding.error(reason, f"`python -c 'import {module}'` shows where; the rest can be checked after that")
    )


async def examine(app: Chicory, said: Sequence[str] = ()) -> list[Diagnosis]:
    """Everything there is to say about *app*; *said* are the warnings that came as it was loaded. Publishes nothing."""
    found = [_named("settings", Finding.warning(text, "correct its name, or remove it")) for text in dict.fromkeys(said)]
    for name, check in APP_CHECKS.items():
        found += [_named(name, finding) for finding in check(app)]
    for name, answers in (("broker", _broker(app)), ("backend", _backend(app)), ("workers", _workers(app))):
        found += await _in_time(name, answers)
    for plugin, checks in app.plugins.collect("chicory_doctor", app=app):
        for check in checks:
            found += await _in_time(plugin, check())
    await app.disconnect()
    return found


def _named(check: str, finding: Finding) -> Diagnosis:
    return Diagnosis(check=check, level=finding.level, what=finding.what, fix=finding.fix)


async def _in_time(name: str, answers: Awaitable[Iterable[Finding]]) -> list[Diagnosis]:
    """What a check found. One that raises, or takes for ever, has found that."""
    fix = "see that the server runs, and that address and password are right"
    try:
        return [_named(name, finding) for finding in await within(SYSTEM_CLOCK, _PATIENCE, answers)]
    except TimeoutError:
        what = f"the check did not end in {_PATIENCE:g} s"
    except ChicoryError as error:
        what = str(error)
    except Exception as error:  # noqa: BLE001 - the edge of a plugin's code: what is wrong with it is a finding
        what = f"the check failed: {type(error).__name__}: {error}"
        fix = f"tell whoever wrote it; `--plugin no:{name}` leaves the plugin out"
    return [_named(name, Finding.error(what, fix))]


# --- what has to be asked --------------------------------------------------------------------------


async def _broker(app: Chicory) -> list[Finding]:
    await app.broker.health()
    address, can = app.broker.address, app.broker.capabilities
    findings = [Finding.ok(f"{address} answers")]
    if not can.persistent:
        what = f"{address} keeps messages in the memory of its process: with that they are lost"
        findings.append(Finding.warning(what, "use sqlite:// or a server for anything but tests"))
    largest, allowed = can.max_message_bytes, app.config.max_message_bytes
    if largest is not None and largest < allowed:
        what = f"{address} takes messages of {largest} bytes, and max_message_bytes is {allowed}"
        fix = f"set max_message_bytes to {largest}, so that what is too large is refused before it is sent"
        findings.append(Finding.warning(what, fix))
    return findings


async def _backend(app: Chicory) -> list[Finding]:
    if app.backend is None:
        return [Finding.ok("there is none: no result is kept")]
    await app.backend.health()
    address = app.backend.address
    findings = [Finding.ok(f"{address} answers")]
    if app.backend_twin().join(app.broker_twin()) is None:
        what = f"{app.broker.address} and {address} are two stores: a result is stored first, and then its task ends"
        findings.append(Finding.ok(what))
    return findings


async def _workers(app: Chicory) -> list[Finding]:
    """Who lives, and whether their clocks and ours agree."""
    if app.backend is None:
        return []
    workers = await app.backend.get_active_workers()
    findings = [Finding.ok(f"{len(workers)} alive")]
    now = app.clock.now()
    for worker in workers:
        ahead = (worker.last_heartbeat - now).total_seconds() if worker.last_heartbeat is not None else 0.0
        if ahead > _SKEW:
            what = f"the clock of {worker.hostname} (worker {worker.worker_id}) is {ahead:.0f} s ahead of this host's"
            fix = "let both hosts keep time (chrony, systemd-timesyncd): eta and expires compare clocks"
            findings.append(Finding.warning(what, fix))
    return findings


def worst(found: Iterable[Diagnosis]) -> FindingLevel:
    """The worst level among *found*."""
    levels = {finding.level for finding in found}
    return next((level for level in (FindingLevel.ERROR, FindingLevel.WARNING) if level in levels), FindingLevel.OK)
