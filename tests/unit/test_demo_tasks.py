"""The demo's task, which runs on any broker."""

import importlib
import sys

import pytest

from chicory.launch import Launch, launching
from chicory.retry import RetryPolicy

pytestmark = pytest.mark.usefixtures("no_settings", "site")

SOURCE = '''"""A file."""
import os, sys
import os.path
from collections import Counter
from . import sibling

print("x")
'''


@pytest.fixture
def tasks(monkeypatch):
    """The module, imported as the command line does it: on the broker that was asked for."""
    monkeypatch.delitem(sys.modules, "chicory.demo.tasks", raising=False)
    with launching(Launch(broker="memory")):
        module = importlib.import_module("chicory.demo.tasks")
    yield module
    sys.modules.pop("chicory.demo.tasks", None)


def test_a_file_is_counted(tasks, tmp_path):
    file = tmp_path / "some.py"
    file.write_text(SOURCE, encoding="utf-8")

    count = tasks.count_file(file)

    assert (count.lines, count.imports) == (8, {"os": 2, "sys": 1, "collections": 1})
    assert count.tokens == 30


def test_an_empty_file_has_one_line(tasks, tmp_path):
    file = tmp_path / "empty.py"
    file.touch()

    count = tasks.count_file(file)

    assert (count.lines, count.imports) == (1, {})


@pytest.mark.parametrize("source", [b"def (:\n", b"# coding: nonsense\n", b"x = '\xff'\n"], ids=["syntax", "coding", "bytes"])
def test_a_file_that_does_not_parse_is_a_failure(tasks, tmp_path, source):
    file = tmp_path / "bad.py"
    file.write_bytes(source)

    with pytest.raises(SyntaxError):
        tasks.count_file(file)


def test_a_file_that_is_not_there_is_worth_a_retry(tasks, tmp_path):
    policy = tasks.count_file.options_of_task.retry_policy

    with pytest.raises(FileNotFoundError) as missing:
        tasks.count_file(tmp_path / "nowhere.py")

    assert policy == RetryPolicy(max_retries=2, retry_delay=0.1, retry_on=(OSError,))
    assert policy.covers(missing.value)
    assert not policy.covers(SyntaxError())


def test_its_arguments_and_results_travel(tasks, tmp_path):
    signature, serializer = tasks.count_file.signature, tasks.app.serializer
    count = tasks.FileCount(lines=3, tokens=9, imports={"os": 1})

    sent = signature.encode((tmp_path / "some.py",), {}, check=True, serializer=serializer)
    returned = signature.encode_result(count, check=True, serializer=serializer)

    assert signature.decode(sent, check=True, serializer=serializer) == ([tmp_path / "some.py"], {})
    assert signature.decode_result(returned, serializer=serializer) == count


def test_the_app_has_one_task(tasks):
    assert list(tasks.app.tasks) == ["chicory.demo.tasks.count_file"]
