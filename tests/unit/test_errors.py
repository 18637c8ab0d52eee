"""Every error says what happened and what to do next; its facts are attributes, and it survives copy and pickle."""

import copy
import inspect
import pickle

import pytest

from chicory import errors
from chicory.errors import (
    AttemptError,
    BackendConnectionError,
    BackendError,
    BackendNotConfiguredError,
    BrokerConnectionError,
    BrokerError,
    BrokerFullError,
    CapabilityError,
    ChicoryError,
    ConfigurationError,
    DeliveryLimitError,
    DuplicateTaskError,
    EncodingError,
    FinalError,
    LeaseLost,
    MaxRetriesExceededError,
    MessageDecodeError,
    NotIdleError,
    PayloadTooLargeError,
    PluginBrokenError,
    PluginConflictError,
    PluginError,
    PluginNotFoundError,
    ProcessDiedError,
    ProcessStartError,
    RemoteError,
    ResultError,
    ResultIgnoredError,
    ResultNotFoundError,
    RetryError,
    SyncCallError,
    TaskDefinitionError,
    TaskExpiredError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
    ThreadsExhaustedError,
    ValidationError,
    WorkerLost,
)

# class, its facts, and its whole text
TABLE = [
    (
        NotIdleError,
        {"limit": "30 s of real time", "tasks": ("mail.send (1 running)",), "hint": "raise timeout="},
        "not idle after 30 s of real time: mail.send (1 running); raise timeout=",
    ),
    (
        ThreadsExhaustedError,
        {"abandoned": 2, "size": 4},
        "2 of 4 threads are lost to sync tasks that ran over their timeout: let a supervisor restart the worker, "
        "and give what these tasks wait for a timeout of its own",
    ),
    (
        BackendNotConfiguredError,
        {},
        "this app has no result backend: pass backend=..., or set CHICORY_BACKEND_URL",
    ),
    (
        CapabilityError,
        {"what": "delayed messages", "offered_by": "nats://host", "hint": "send without countdown"},
        "nats://host does not offer delayed messages: send without countdown",
    ),
    (
        PluginNotFoundError,
        {"kind": "broker", "name": "nats", "known": ("memory",), "install": "chicory-nats"},
        "no installed plugin offers the broker 'nats': run `pip install chicory-nats`",
    ),
    (
        PluginBrokenError,
        {"name": "nats", "distribution": "chicory-nats", "cause": "ImportError: no nats"},
        "plugin 'nats' (chicory-nats) cannot be loaded: ImportError: no nats; repair it, or block it with --plugin no:nats",
    ),
    (
        PluginConflictError,
        {"kind": "broker", "name": "nats", "first": "one", "second": "two"},
        "one and two both offer the broker 'nats': block one of the plugins with --plugin no:NAME",
    ),
    (
        TaskDefinitionError,
        {"task": "mail.send", "problem": "timeout must be more than 0 seconds, not 0"},
        "task 'mail.send' cannot be registered: timeout must be more than 0 seconds, not 0",
    ),
    (
        DuplicateTaskError,
        {"task": "mail.send", "first": "a.py:1", "second": "b.py:2"},
        "task 'mail.send' cannot be registered: it is defined at a.py:1 and again at b.py:2; give one of them name=...",
    ),
    (
        TaskNotFoundError,
        {"name": "mail.sent", "known": ("mail.send", "add")},
        "task 'mail.sent' is not registered here (2 are): did you mean 'mail.send'?",
    ),
    (
        ValidationError,
        {"task": "add", "what": "arguments", "problems": (("", "takes 1"), ("x", "missing"))},
        "arguments of task 'add': takes 1; x: missing",
    ),
    (
        MessageDecodeError,
        {"message_id": "m1", "problem": "truncated"},
        "message 'm1' cannot be read: truncated",
    ),
    (
        PayloadTooLargeError,
        {"what": "the message for task 'add'", "size": 11, "limit": 10},
        (
            "the message for task 'add' has 11 bytes, more than the 10 allowed: "
            "pass a reference (a path, a key) instead of the data"
        ),
    ),
    (
        BrokerConnectionError,
        {"address": "redis://host", "problem": "connection refused"},
        "broker redis://host cannot be reached: connection refused",
    ),
    (
        BrokerFullError,
        {"address": "redis://host", "problem": "maxmemory"},
        "broker redis://host has no room: maxmemory",
    ),
    (
        BackendConnectionError,
        {"address": "redis://host", "problem": "connection refused"},
        "backend redis://host cannot be reached: connection refused",
    ),
    (
        TaskFailedError,
        {
            "task_id": "m1",
            "task": "add",
            "state": "FAILURE",
            "error_type": "KeyError",
            "error": "'x'",
            "remote_traceback": "Traceback …",
            "reason": "error",
        },
        "task 'add' (m1) ended as FAILURE with KeyError: 'x'",
    ),
    (
        ResultNotFoundError,
        {"task_id": "m1", "reason": "it is unknown"},
        "no result for task id 'm1': it is unknown",
    ),
    (
        ResultIgnoredError,
        {"task_id": "m1", "task": "add"},
        "task 'add' (m1) ignores its result: use state(), or drop ignore_result=True",
    ),
    (RetryError, {"countdown": None, "cause": None}, "retry asked for, as its policy says"),
    (FinalError, {"cause": "no such order"}, "no such order"),
    (
        MaxRetriesExceededError,
        {"task": "add", "max_retries": 3, "cause": "OSError: gone"},
        "task 'add' has no retry left (max_retries=3): OSError: gone",
    ),
    (TaskTimeoutError, {"task": "add", "timeout": 30.0}, "task 'add' ran longer than its timeout of 30.0 s"),
    (
        TaskExpiredError,
        {"task": "add", "expires": "2026-01-01T00:00:00+00:00"},
        "task 'add' expired at 2026-01-01T00:00:00+00:00 before it started",
    ),
    (
        DeliveryLimitError,
        {"delivery_count": 6, "limit": 5},
        "delivered 5 times and never settled (limit 5): each time its worker died or stalled, most likely because of this task",
    ),
    (LeaseLost, {"message_id": "m1"}, "the lease of message 'm1' was lost; what this try did is not kept"),
    (
        WorkerLost,
        {"worker_id": "host-1"},
        "worker host-1 is gone; the task had started there and may or may not have finished",
    ),
    (
        ProcessStartError,
        {"task": "add", "problem": "ImportError: no numpy"},
        (
            "no child process could be made ready for task 'add': ImportError: no numpy; "
            "a child imports the task's module again, with the worker's sys.path and directory"
        ),
    ),
    (
        ProcessDiedError,
        {"task": "add", "exit_code": 3},
        (
            "the child process of task 'add' ended with exit code 3: "
            "look for os._exit() in what it calls; an exception fails a task without that"
        ),
    ),
    (
        RemoteError,
        {"kind": "Busy", "family": ("shop.Busy", "builtins.OSError"), "text": "till 3 is", "traceback": "Traceback ..."},
        "till 3 is",
    ),
    (
        SyncCallError,
        {"blocking": "get_sync()", "instead": "await result.get()"},
        "get_sync() would block the event loop that runs on this thread: use `await result.get()`",
    ),
]
WITHOUT_FACTS = [
    ChicoryError,
    ConfigurationError,
    PluginError,
    EncodingError,
    BrokerError,
    BackendError,
    ResultError,
    AttemptError,
]
every_error = pytest.mark.parametrize(("kind", "facts", "text"), TABLE, ids=[row[0].__name__ for row in TABLE])


@every_error
def test_an_error_says_what_happened_and_what_to_do(kind, facts, text):
    error = kind(*facts.values())

    assert str(error) == text


@every_error
def test_the_facts_of_an_error_are_attributes(kind, facts, text):
    error = kind(*facts.values())

    assert {name: getattr(error, name) for name in facts} == facts


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))], ids=["copy", "deepcopy", "pickle"]
)
@every_error
def test_an_error_survives_being_copied(kind, facts, text, duplicate):
    error = kind(*facts.values())

    again = duplicate(error)

    assert type(again) is kind
    assert str(again) == text
    assert {name: getattr(again, name) for name in facts} == facts


@every_error
def test_an_error_is_caught_as_one_of_chicory(kind, facts, text):
    with pytest.raises(ChicoryError):
        raise kind(*facts.values())


@pytest.mark.parametrize("kind", WITHOUT_FACTS, ids=lambda kind: kind.__name__)
def test_a_plain_error_says_what_it_was_given_and_survives_pickle(kind):
    error = kind("worker settings: queue must name at least one queue")

    again = pickle.loads(pickle.dumps(error))

    assert str(again) == "worker settings: queue must name at least one queue"
    assert type(again) is kind


def test_every_public_error_is_on_this_page():
    public = {getattr(errors, name) for name in errors.__all__ if inspect.isclass(getattr(errors, name))}

    assert {row[0] for row in TABLE} | set(WITHOUT_FACTS) == public


def test_every_error_stands_in_the_tree_of_the_docstring_below_its_parent():
    drawn = [line for line in errors.__doc__.splitlines() if line.strip("│├└─ ")]
    places = {
        line.strip("│├└─ ").split()[0]: (number, len(line) - len(line.lstrip("│├└─ "))) for number, line in enumerate(drawn)
    }
    kinds = [getattr(errors, name) for name in errors.__all__ if inspect.isclass(getattr(errors, name))]

    for kind in kinds:
        assert kind.__name__ in places
        if kind is not ChicoryError:
            line, depth = places[kind.__name__]
            parent_line, parent_depth = places[kind.__mro__[1].__name__]
            assert parent_line < line
            assert parent_depth == depth - 4


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (ValidationError, ValueError),
        (BrokerConnectionError, ConnectionError),
        (BackendConnectionError, ConnectionError),
        (TaskTimeoutError, TimeoutError),
        (SyncCallError, RuntimeError),
    ],
    ids=lambda kind: kind.__name__,
)
def test_errors_with_a_builtin_cousin_are_caught_as_that_too(kind, builtin):
    assert issubclass(kind, builtin)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PluginNotFoundError("broker", "memoy", ("memory", "sqlite")), "the broker 'memoy': did you mean 'memory'?"),
        (PluginNotFoundError("broker", "kafka", ("memory", "sqlite")), "the broker 'kafka': installed are memory, sqlite"),
        (PluginNotFoundError("component", "Locks", ()), "the component 'Locks': installed are none"),
        (
            TaskNotFoundError("pay", ("add",)),
            "task 'pay' is not registered here (1 are): import its module before the worker starts",
        ),
        (RetryError(2.5), "retry asked for, in 2.5 s"),
        (RetryError(None, "OSError: gone"), "retry asked for, as its policy says: OSError: gone"),
        (RetryError(0, "OSError: gone"), "retry asked for, in 0 s: OSError: gone"),
        (MaxRetriesExceededError("add", 0), "task 'add' has no retry left (max_retries=0)"),
        (TaskFailedError("m1", "add", "DEAD_LETTERED", "OSError", "gone"), "ended as DEAD_LETTERED with OSError: gone"),
        (
            TaskFailedError("m1", "add", "DEAD_LETTERED", "OSError", "gone", None, "retries_exhausted"),
            "ended as DEAD_LETTERED (retries_exhausted) with OSError: gone",
        ),
    ],
    ids=[
        "near plugin",
        "other plugins",
        "no plugin",
        "no near task",
        "retry in",
        "retry with cause",
        "retry at once",
        "no retries without cause",
        "dead letter",
        "dead letter with its reason",
    ],
)
def test_the_hint_follows_the_facts(error, text):
    assert str(error).endswith(text)


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("conccurency", ("concurrency", "queue"), "concurrency"),
        ("zzz", ("concurrency", "queue"), None),
        ("queue", (), None),
    ],
    ids=["near", "far", "nothing known"],
)
def test_the_nearest_known_name_is_found(name, known, near):
    assert errors.nearest(name, known) == near


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (-9, "was ended by SIGKILL: most likely by the kernel, out of memory"),
        (-11, "was ended by SIGSEGV: a C extension has crashed; the stack is in the standard error of the worker"),
        (-15, "was ended by SIGTERM: somebody sent it that signal"),
        (-200, "was ended by signal 200: somebody sent it that signal"),
        (0, "ended with exit code 0: look for os._exit()"),
    ],
)
def test_the_end_of_a_process_is_read_from_its_code(code, text):
    assert str(ProcessDiedError("add", code)).startswith(f"the child process of task 'add' {text}")


def test_an_error_of_a_child_process_has_a_class_of_its_name():
    error = RemoteError.of("Till.Busy", ("shop.Till.Busy", "builtins.OSError"), "till 3 is", "Traceback ...")

    again = pickle.loads(pickle.dumps(error))

    for one in (error, again):
        assert isinstance(one, RemoteError)
        assert (type(one).__qualname__, type(one).__name__, type(one).__module__) == ("Till.Busy", "Busy", "shop")
        assert (str(one), one.family, one.traceback) == ("till 3 is", ("shop.Till.Busy", "builtins.OSError"), "Traceback ...")
