"""The demo's numbers: adding up, and the table at the end."""

from types import SimpleNamespace

import pytest

from chicory.demo.report import Report


def a_count(lines=10, tokens=50, **imports):
    return SimpleNamespace(lines=lines, tokens=tokens, imports=imports)


def test_counts_add_up():
    report = Report(sent=2, workers=4)

    report.add(a_count(10, 50, os=2, sys=1))
    report.add(a_count(5, 20, os=1))

    assert (report.files, report.lines, report.tokens, report.imports) == (2, 15, 70, {"os": 3, "sys": 1})


@pytest.mark.parametrize(
    ("sent", "counted", "failed", "ended", "lost"),
    [(0, 0, 0, 0, 0), (3, 3, 0, 3, 0), (3, 1, 2, 3, 0), (3, 1, 1, 2, 1), (3, 0, 0, 0, 3)],
    ids=["nothing sent", "all counted", "some failed", "one lost", "all lost"],
)
def test_what_has_neither_result_nor_failure_is_lost(sent, counted, failed, ended, lost):
    report = Report(sent=sent, workers=1)
    for _ in range(counted):
        report.add(a_count())
    for number in range(failed):
        report.fail(f"{number}.py", "SyntaxError: no")

    assert (report.ended, report.lost) == (ended, lost)


def test_the_table_says_how_much_of_what():
    report = Report(sent=1203, workers=4)
    for _ in range(1200):
        report.add(a_count(1000, 10_000, os=2, sys=1))
    report.fail("a.py", "SyntaxError: invalid syntax")
    report.fail("b.py", "SyntaxError: unclosed: bracket")
    report.fail("c.py", "UnicodeDecodeError: no")
    report.retries, report.again, report.seconds = 2, 7, 2.0
    report.killed = "worker process 7, with SIGKILL, half-way"

    assert report.rows() == [
        ("files", "1,200 counted by 4 worker processes"),
        ("lines", "1,200,000"),
        ("tokens", "12,000,000"),
        ("most imported", "os 2,400, sys 1,200"),
        ("tasks/s", "602 (1,203 in 2.0 s)"),
        ("failures", "3 (SyntaxError 2, UnicodeDecodeError 1): files that do not parse"),
        ("retries", "2 by policy, 7 run again after their worker died"),
        ("killed", "worker process 7, with SIGKILL, half-way"),
        ("lost", "0 of 1,203"),
    ]


def test_the_table_of_nothing_is_a_table_too():
    rows = dict(Report(sent=0, workers=1).rows())

    assert (rows["most imported"], rows["tasks/s"], rows["failures"], rows["killed"]) == ("-", "-", "0", "no worker")
    assert rows["lost"] == "0 of 0"


def test_only_the_most_imported_are_shown():
    report = Report(sent=1, workers=1)

    report.add(a_count(a=7, b=6, c=5, d=4, e=3, f=2))

    assert dict(report.rows())["most imported"] == "a 7, b 6, c 5, d 4, e 3"
