"""Settings, metrics and names as the pages show them are those of the code."""

import re
from pathlib import Path

import pytest

from chicory_otel import SEMCONV_VERSION, OtelConfig
from chicory_otel import conventions as names

from_root = Path(__file__).parents[3].joinpath
GUIDE = from_root("docs/how-to/tracing.md").read_text()


def rows_under(text, heading):
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [re.split(r" *\| *", line.strip("| ")) for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): [cell.strip("`") for cell in row[1:]] for row in rows}


def default_of(field):
    value = OtelConfig.model_fields[field].default
    return "none" if value is None else str(value)


@pytest.mark.parametrize(
    ("page", "heading", "has_variable"),
    [("docs/reference/settings.md", "OtelConfig", True), ("plugins/chicory-otel/README.md", "Settings", False)],
)
def test_every_setting_is_there_with_its_default(page, heading, has_variable):
    rows = rows_under(from_root(page).read_text(), heading)

    assert rows.keys() == OtelConfig.model_fields.keys()
    for field, cells in rows.items():
        if has_variable:
            assert cells.pop(0) == f"CHICORY_OTEL_{field.upper()}"
        assert cells[0] == default_of(field), field
        assert cells[-1], field


def test_every_metric_is_in_the_guide_under_both_of_its_names():
    source = from_root("plugins/chicory-otel/src/chicory_otel/instruments.py").read_text()
    made = set(re.findall(r'"(chicory\.[a-z_.]+)"', source))
    shown = {name: cells[0] for name, cells in rows_under(GUIDE, "Metrics").items()}

    assert shown.keys() == made
    for name, in_prometheus in shown.items():
        assert re.fullmatch(rf"{name.replace('.', '_')}(_seconds|_total)?", in_prometheus)


def test_the_guide_names_the_version_of_the_conventions_and_what_is_not_in_them():
    assert f"of version {SEMCONV_VERSION}" in GUIDE
    for name in (names.TASK, names.ATTEMPT, names.DELIVERY_COUNT, names.QUEUE_TIME):
        assert f"`{name}`" in GUIDE
    for name in (names.SENT_MESSAGES, names.CONSUMED_MESSAGES, names.OPERATION_DURATION, names.PROCESS_DURATION):
        assert f"`{name}`" in GUIDE


def test_names_of_the_conventions_stand_in_one_module():
    folder = from_root("plugins/chicory-otel/src/chicory_otel")
    elsewhere = [
        f"{file.name}: {line.strip()}"
        for file in folder.glob("*.py")
        if file.name != "conventions.py"
        for line in file.read_text().splitlines()
        if re.search(r'"(messaging|server|error)\.', line)
    ]

    assert elsewhere == []
