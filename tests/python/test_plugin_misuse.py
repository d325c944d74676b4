"""Misuse of each fixture: a short error that names the fixture, the value and the remedy."""

from __future__ import annotations

import fnmatch
import re

import pytest
from misuses import MISUSES

from cuttlefish_signaling import pytest_plugin

from plugin_suite import HERMETIC, run, suite

pytestmark = pytest.mark.usefixtures("where")

LONGEST = 12
"""Lines of a report, without the source of the test and the transcript."""

CASSETTES = {
    "cassette": '{"cassette": 1, "device_id": "cvd-1"}\n',
    "broken": "]\n",
    "empty": "",
    "version": '{"cassette": 9, "device_id": "cvd-1"}\n',
    "sender": '{"cassette": 1, "device_id": "cvd-1"}\n{"from": "me", "client": 1, "payload": 1}\n',
}


def test_each_fixture_has_twenty_misuses() -> None:
    fixtures = {name for name in pytest_plugin.__all__ if name.islower() and name != "signaling_anyio_peers"}
    assert {name: len(cases) for name, cases in MISUSES.items() if len(cases) < 20} == {}
    assert set(MISUSES) == fixtures


def blocks(output: str) -> dict[str, list[str]]:
    """The reports of failures, by the number in the names of the tests. Those of the setup count, and of the call."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^_+ (?=(?:ERROR at \w+ of )?test_)", output, flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        number = re.search(r"test_(\d+)", title)
        assert number is not None, title
        found.setdefault(number[1], []).extend(re.split(r"^-+ |^=+ ", text, flags=re.MULTILINE)[0].splitlines())
    return found


@pytest.mark.parametrize("fixture", MISUSES)
def test_misuse_is_a_short_error(pytester: pytest.Pytester, fixture: str) -> None:
    suite(pytester, "def test_nothing():\n    pass\n")
    for name, text in CASSETTES.items():
        (pytester.path / f"{name}.jsonl").write_text(text)
    for number, (source, _) in enumerate(MISUSES[fixture]):
        (pytester.path / f"test_case_{number}.py").write_text(
            "import pytest\n" + source.replace("def test_it(", f"def test_{number}(") + "\n"
        )
    # Pytest keeps the exception of a fixture of the session.
    files = [f"test_case_{number}.py" for number in range(len(MISUSES[fixture]))]
    runs = [[file] for file in files] if fixture == "signaling_server_session" else [files]
    reports: dict[str, list[str]] = {}
    for chosen in runs:
        options = ("-q", "--show-capture=no", *chosen)
        result = run(pytester, *options) if len(runs) == 1 else pytester.runpytest_inprocess(*HERMETIC, *options)
        outcomes = result.parseoutcomes()
        assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == len(chosen)
        reports |= blocks(result.stdout.str())
    wrong = []
    for number, (source, error) in enumerate(MISUSES[fixture]):
        lines = reports[str(number)]
        pattern = f"E *{error.replace('%', fixture)}"
        told = [line for line in lines if line.startswith("E")]
        frames = [line for line in lines if re.search(r"cuttlefish_signaling/\S*\.py:", line)]
        is_short = len(told) == 1 and len(lines) <= LONGEST + source.count("\n")
        if frames or not is_short or not fnmatch.fnmatchcase(told[0], pattern):
            wrong.append((pattern, lines))
    assert wrong == []
