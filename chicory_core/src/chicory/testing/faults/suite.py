"""The whole fault suite."""

from __future__ import annotations

from chicory.testing.faults.message_faults import MessageFaults
from chicory.testing.faults.process_faults import ProcessFaults
from chicory.testing.faults.sweeps import Sweeps

__all__ = ["FaultSuite"]


class FaultSuite(ProcessFaults, MessageFaults, Sweeps):
    """Every fault that a broker and a backend must stand, with worker processes that are really killed.

    Inherit it and give the fixture ``settings``, with the environment variables that say where messages and results go;
    ``two_stores`` and ``fence_off`` where you can. Each test has its own directory, ledger and workers.
    """
