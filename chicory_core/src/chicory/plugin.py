"""What plugin authors import: hooks, contracts, values. Everything here is stable within one `API_VERSION`.

::

    from chicory.plugin import BrokerSpec, hookimpl

    @hookimpl
    def chicory_register_brokers():
        return [BrokerSpec(name="kafka", schemes=("kafka",), build=build)]
"""

from __future__ import annotations

from chicory.backend import Backend, Joined, StoreThenSettle, store_then_settle
from chicory.backoff import Backoff
from chicory.broker import Broker, Capabilities, QueueBrowser, QueuedMessage, QueuePage, QueueStats, dead_letter_queue
from chicory.clock import SYSTEM_CLOCK, Clock, SystemClock, Timer, within
from chicory.codec import Arguments, Document, encode, read, revise
from chicory.context import TaskContext
from chicory.hookspecs import hookimpl, hookspec
from chicory.logs import get_logger
from chicory.message import (
    Delivery,
    DeliveryMode,
    Envelope,
    Event,
    ResultRecord,
    Settled,
    Settlement,
    TaskMessage,
    TaskResult,
    TaskState,
    ValidationMode,
    WorkerStats,
    new_id,
)
from chicory.middleware import (
    Attempt,
    Decision,
    ExecuteLayer,
    ExecuteMiddleware,
    Next,
    Outcome,
    PublishLayer,
    PublishMiddleware,
    PublishNext,
    Stage,
    current_attempt,
    failed,
)
from chicory.offers import (
    App,
    BackendSpec,
    BrokerSpec,
    ChildContext,
    ComponentSpec,
    DoctorCheck,
    EventSink,
    Finding,
    FindingLevel,
    Lifespan,
    Listener,
    LogFacts,
    OptionSpec,
    Place,
    SerializerSpec,
    SettledBatch,
    SettleObserver,
    WorkerView,
)
from chicory.serializer import JsonSerializer, Serializer
from chicory.settings import BackendSection, BrokerSection, PluginSettings, mask, settings_from
from chicory.verdict import describe, traceback_of

API_VERSION = (1, 0)
"""Raised with this contract: major when a plugin must change, minor when it may use more. A plugin states what it was
written for as ``CHICORY_API = (1, 0)``; the major must be equal, the minor at most this one."""

__all__ = [
    "API_VERSION",
    "SYSTEM_CLOCK",
    "App",
    "Arguments",
    "Attempt",
    "Backend",
    "BackendSection",
    "BackendSpec",
    "Backoff",
    "Broker",
    "BrokerSection",
    "BrokerSpec",
    "Capabilities",
    "ChildContext",
    "Clock",
    "ComponentSpec",
    "Decision",
    "Delivery",
    "DeliveryMode",
    "DoctorCheck",
    "Document",
    "Envelope",
    "Event",
    "EventSink",
    "ExecuteLayer",
    "ExecuteMiddleware",
    "Finding",
    "FindingLevel",
    "Joined",
    "JsonSerializer",
    "Lifespan",
    "Listener",
    "LogFacts",
    "Next",
    "OptionSpec",
    "Outcome",
    "Place",
    "PluginSettings",
    "PublishLayer",
    "PublishMiddleware",
    "PublishNext",
    "QueueBrowser",
    "QueuePage",
    "QueueStats",
    "QueuedMessage",
    "ResultRecord",
    "Serializer",
    "SerializerSpec",
    "SettleObserver",
    "Settled",
    "SettledBatch",
    "Settlement",
    "Stage",
    "StoreThenSettle",
    "SystemClock",
    "TaskContext",
    "TaskMessage",
    "TaskResult",
    "TaskState",
    "Timer",
    "ValidationMode",
    "WorkerStats",
    "WorkerView",
    "current_attempt",
    "dead_letter_queue",
    "describe",
    "encode",
    "failed",
    "get_logger",
    "hookimpl",
    "hookspec",
    "mask",
    "new_id",
    "read",
    "revise",
    "settings_from",
    "store_then_settle",
    "traceback_of",
    "within",
]
