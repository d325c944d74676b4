"""The programs of `make bench`, without a run of it: their tables, and that each server of the load starts."""

from __future__ import annotations

import importlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

from cuttlefish_signaling.testing import FakeClient, FakeDevice

BENCHES = Path(__file__).parents[2] / "benches"


@contextmanager
def started(program: str, *options: str) -> Iterator[str]:
    """Runs a server of the benches until it has taken a connection. Yields its URL."""
    port = free_port()
    with subprocess.Popen([sys.executable, str(BENCHES / program), *options, "--port", str(port)]) as server:
        try:
            while True:
                assert server.poll() is None, "it did not start"
                with socket.socket() as peer:
                    if peer.connect_ex(("127.0.0.1", port)) == 0:
                        break
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.fixture
def goals(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHES))
    return importlib.import_module("goals")


def test_a_row_has_the_median_of_the_ratios_of_rounds(goals: Any) -> None:
    goal = goals.Goal("p99_us", 1.05, "1.3")
    # A slow round of the machine slows both, and leaves the ratio.
    runs, beside = [{"p99_us": us} for us in (100, 1000, 130)], [{"p99_us": us} for us in (100, 1000, 100)]
    row = goals.row("one pair", "the bare relay", goal, runs, beside)
    assert (row["ratio"], row["lowest"], row["highest"], row["rounds"]) == (1.0, 1.0, 1.3, 3)
    assert (row["ours"], row["beside"]) == (130, 100)
    assert goals.is_met(row)
    assert not goals.is_met({**row, "ratio": 1.06})


def test_a_rate_is_met_above_its_goal_and_a_figure_by_itself(goals: Any) -> None:
    rate = goals.row(
        "", "", goals.Goal("devices_per_second", 0.9, ""), [{"devices_per_second": 80}], [{"devices_per_second": 100}]
    )
    assert not goals.is_met(rate)
    assert goals.is_met({**rate, "ratio": 0.9})
    memory = goals.row(
        "",
        "",
        goals.Goal("kib_per_idle_device", 8, "", True),
        [{"kib_per_idle_device": 7.9}],
        [{"kib_per_idle_device": 1}],
    )
    assert goals.is_met(memory)
    assert "at most 8.0 itself" in goals.table([memory])


def test_sides_take_turns_in_the_order_that_changes(goals: Any) -> None:
    asked = []

    def measure(is_bare: bool, options: tuple[str, ...], scenario: tuple[str, ...]) -> dict[str, float]:
        asked.append(is_bare)
        return {"cpu_us_per_message": 2.0 if is_bare else 1.0, "p99_us": 1.0}

    rows = goals.run_all(measure, 2, goals.COMPARISONS[:1])
    assert asked == [False, True, True, False]
    assert [row["ratio"] for row in rows] == [1.0, 0.5]


def test_each_comparison_has_figures_of_its_scenario_and_a_reference(goals: Any) -> None:
    load = (BENCHES / "load").rglob("*.rs")
    printed = "".join(file.read_text() for file in load)
    titles = [each.title for each in goals.COMPARISONS]
    assert len(set(titles)) == len(titles)
    for each in goals.COMPARISONS:
        assert all(f'"{goal.figure}"' in printed for goal in each.goals), each.title
        is_bare, options, _ = goals.beside_of(each)
        # TLS beside TLS, and never a server beside itself.
        assert is_bare == (each.reference == goals.BARE), each.title
        assert not is_bare or ("--tls" in options) == ("--tls" in each.ours), each.title
        assert is_bare or (options, each.beside_scenario) != (each.ours, each.scenario), each.title


@pytest.mark.parametrize(
    "options", [[], ["--journal", "--dashboard"], ["--rates", "--workers", "2"], ["--fault"], ["--tls", "CA"]]
)
def test_server_of_the_load_starts(options: list[str], tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    own = [str(ca) if option == "CA" else option for option in options]
    with started("relay_server.py", *own):
        pass
    assert ca.exists() == ("--tls" in options)


@pytest.fixture
def hooks(goals: Any) -> Any:
    return importlib.import_module("hooks")


@pytest.fixture
def fixtures(goals: Any) -> Any:
    return importlib.import_module("fixtures")


def test_rows_of_hooks_are_beside_the_server_without_them_and_the_relay_by_hand(hooks: Any) -> None:
    costs = {hooks.NONE: 100, hooks.DEF: 160, hooks.ASYNC: 310, hooks.ON_LOOP: 310, hooks.BY_HAND: 500}
    rows = hooks.rows({server: [{"cpu_us_per_session": us}] for server, us in costs.items()})
    found = {(row["title"], row["reference"], row["figure"]): row for row in rows}
    assert len(found) == len(rows) == len(hooks.GOALS)
    session = found["a session, `def` hooks", "no hooks", "CPU µs/session"]
    assert (session["ratio"], session["goal"], hooks.goals.is_met(session)) == (1.6, 1.6, True)
    hook = found["a session, `async def` hooks", "no hooks", "CPU µs/hook"]
    assert (hook["ours"], hook["goal"], hooks.goals.is_met(hook)) == (70, 70, True)
    assert found["a session, `def` hooks", hooks.BY_HAND, "CPU µs/session"]["ratio"] == 0.32


def test_cost_of_a_test_is_beyond_an_empty_one(fixtures: Any) -> None:
    test = {"cpu_ms_per_test": 1.0, "wall_ms_per_test": 2.0}
    times = {"empty": 1, "server": 2, "by hand": 3, "sync": 5, "async": 4}
    runs = {kind: [{name: value * more for name, value in test.items()}] for kind, more in times.items()}
    life = {"median_ms": 0.3, "p99_ms": 0.6, "p99_cpu_ms": 0.5}
    whole = {fixtures.WHOLE: [{"suite_s": 6.0}], fixtures.WHOLE_BY_HAND: [{"suite_s": 4.0}]}
    rows = fixtures.rows({**runs, **whole, fixtures.LIFE: [life], fixtures.BESIDE: [dict.fromkeys(life, 2.0)]})
    ours = {(row["title"].rpartition(", ")[2], row["figure"]): (row["ours"], row["ratio"]) for row in rows}
    assert ours["sync", "CPU ms/test"] == (4.0, 2.0)
    assert ours["async", "ms/test"] == (6.0, 1.5)
    assert ours["start and stop", "median, ms"] == (0.3, 0.15)
    assert ours["start and stop", "p99, CPU ms"] == (0.5, 0.25)
    assert ours["sync", "s"] == (6.0, 1.5)  # All of it: also what pytest takes for empty tests.


def test_suites_of_the_fixtures_pass(fixtures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-W ignore")
    for suite in fixtures.SUITES:
        assert fixtures.run(suite, 1)["cpu"] > 0


@pytest.mark.parametrize("options", [[], ["--hooks", "def"], ["--hooks", "async"], ["--hooks", "async", "--on-loop"]])
def test_server_with_hooks_answers_a_session(options: list[str]) -> None:
    info = {"hidden": 1, "shown": 2}
    with (
        started("hooks_server.py", *options) as url,
        FakeDevice(url, "cvd-1", info=info) as device,
        FakeClient(url, "cvd-1") as client,
    ):
        assert device.config == client.config
        assert client.device_info == ({"shown": 2} if options else info)


@pytest.mark.parametrize(("more", "fails"), [(0.04, False), (0.06, True)])
def test_hooks_that_take_5_percent_more_instructions_fail(
    more: float, fails: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their figure is the difference to a session without: 5 % of a session would be more."""
    monkeypatch.syspath_prepend(str(BENCHES))
    instructions = importlib.import_module("instructions")
    committed = json.loads(instructions.COMMITTED.read_text())["instructions"]
    of_round = {**committed, "hooks": committed["session"] + committed["hooks"] * (1 + more)}

    def count(_: str, scenario: str, rounds: int) -> float:
        return 1_000_000 + float(of_round[scenario]) * rounds * float(instructions.SCENARIOS[scenario])

    monkeypatch.setattr(instructions, "program", lambda: "")
    monkeypatch.setattr(instructions, "instructions", count)
    monkeypatch.setattr(sys, "argv", ["instructions.py"])
    assert instructions.main() == fails
    assert f"hooks: {committed['hooks'] * (1 + more):.0f} instructions" in capsys.readouterr().out


def test_short_form_refuses_to_write_figures(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    out.write_text(json.dumps({}))
    command = [sys.executable, str(BENCHES / "compare.py"), "--short", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--short" in done.stderr
