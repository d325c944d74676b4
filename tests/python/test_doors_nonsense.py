"""Values of any kind through each way that a setting can take, and the pytest marker as one of them.

A value is taken, and is then one that the setting allows, or it is an error in the words of that way.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from cuttlefish_signaling import Keepalive, Limits, SignalingServer
from cuttlefish_signaling._settings import FLAGS, GROUPS, KEYWORDS, Flag, Setting
from cuttlefish_signaling._settings.kinds import Choice, Integer, Kind, Seconds, Switch
from cuttlefish_signaling.errors import ConfigError

from plugin_suite import run, suite
from test_doors import in_file, through, toml

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

VALUED = [flag for flag in FLAGS if not isinstance(flag.kind, Switch)]
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.sampled_from(
    [
        "none",
        "None",
        "nan",
        "inf",
        "-0",
        "0",
        "1",
        "1e3",
        "1_0",
        "\u0661",
        " 1",
        "true",
        "[]",
        "{}",
        "''",
        '"',
        "@",
        "--x",
        "=",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.sampled_from([object(), len, Limits(), Keepalive(), Path("x"), 10**400])
)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)
FEW = examples(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_allowed(kind: Kind, value: Any) -> None:
    """Checks a value that was taken."""
    if isinstance(kind, Integer):
        assert type(value) is int and kind.least <= value <= kind.most
    elif isinstance(kind, Seconds):
        assert (value is None and kind.optional) or (math.isfinite(value) and value >= 0 and (value > 0 or kind.zero))
    elif isinstance(kind, Choice):
        assert value in kind.choices
    elif isinstance(kind, Switch):
        assert type(value) is bool


def tried(make: Callable[[], T], kind: type[E]) -> tuple[T | None, E | None]:
    """Returns the result and None, or None and the error. Another error fails the test."""
    try:
        return make(), None
    except kind as error:
        return None, error


@FEW
@given(st.sampled_from(VALUED), TEXTS)
@example(next(flag for flag in FLAGS if flag.name == "port"), "abc")
def test_any_text_of_a_flag_is_taken_or_refused_by_the_flag(flag: Flag, text: str) -> None:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        found, end = tried(lambda: through(f"--{flag.name}={text}"), SystemExit)
    if end is not None:
        line = said.getvalue()
        assert end.code == 2
        assert line.startswith(f"cuttlefish-signaling: error: --{flag.name}: ") and line.count("\n") == 1, line
    elif found is not None:
        assert_allowed(flag.kind, found[flag.key])


@FEW
@given(st.sampled_from(FLAGS), TEXTS)
def test_any_text_of_a_variable_is_taken_or_refused_by_the_variable(flag: Flag, text: str) -> None:
    found, error = tried(lambda: through(**{flag.variable: text}), ConfigError)
    if found is None:
        assert str(error).startswith(f"{flag.variable}: "), error
    else:
        assert_allowed(flag.kind, found[flag.key])
        assert flag.key in found.origins or found.notices, "it has an effect, or the log tells that it has none"


def as_toml(value: Any) -> str:
    """A value of TOML; JSON is close to it."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'k{at} = {as_toml(item)}' for at, item in enumerate(value.values()))} }}"
    return json.dumps(value)


WORDS = st.text("abcXYZ019 .:-/", max_size=6)
PLAIN = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | WORDS
OF_A_FILE = PLAIN | st.lists(PLAIN, max_size=2) | st.dictionaries(WORDS, PLAIN, max_size=2)
LITERALS = OF_A_FILE.map(as_toml) | st.sampled_from(
    ["2026-01-01", "07:30:00", "0x10", "1_000", "+1", '"none"', '"None"']
)


@FEW
@given(st.sampled_from(FLAGS), LITERALS)
def test_any_value_of_a_file_is_taken_or_refused_by_its_place(tmp_path: Path, flag: Flag, text: str) -> None:
    line = 2 if flag.table else 1
    place = f"{tmp_path}/server.toml, line {line}: {flag.place}"
    found, error = tried(lambda: in_file(tmp_path, toml(flag.place, text)), ConfigError)
    if found is None:
        assert str(error).startswith(place), error
    else:
        assert_allowed(flag.kind, found[flag.key])
        assert found.origins[flag.key] == place


@FEW
@given(st.sampled_from(KEYWORDS), VALUES)
def test_any_value_of_a_keyword_is_taken_or_refused_by_the_keyword(row: Setting, value: Any) -> None:
    arguments: dict[str, Any] = {row.name: value}
    server, error = tried(lambda: SignalingServer(**arguments), ConfigError)
    if error is not None:
        assert error.setting.startswith(row.name), error
    else:
        assert server is not None and not server.is_running
        assert_allowed(row.kind, value)


@FEW
@given(st.sampled_from([row for group in GROUPS.values() for row in group]), VALUES)
def test_any_value_of_a_field_is_taken_or_refused_by_the_field(row: Setting, value: Any) -> None:
    fields: dict[str, Any] = {row.name: value}
    arguments: dict[str, Any] = {row.group: (Limits if row.group == "limits" else Keepalive)(**fields)}
    _, error = tried(lambda: SignalingServer(**arguments), ConfigError)
    if error is not None:
        assert error.setting == row.path, error
    else:
        assert_allowed(row.kind, value)


# The marker -----------------------------------------------------------------------------------------------------------

MARKED = """
    import math
    import pytest
    from cuttlefish_signaling import ConfigError, Keepalive, Limits
    from cuttlefish_signaling._settings import SETTINGS
    from cuttlefish_signaling._settings.kinds import Choice, Integer, Seconds, Switch

    DATACLASSES = {"limits": Limits, "keepalive": Keepalive}
    NONSENSE = [math.nan, math.inf, -1, "7", "", "none", b"7", [7], 10**10, object()]
    KINDS = Choice | Integer | Seconds | Switch
    ROWS = [row for row in SETTINGS if row.group != "serve" and isinstance(row.kind, KINDS)]
    ALONE = [row for row in ROWS if row.name not in ("port", "workers", "max_message_size", "device_low_water")]

    def mark(request, row, value):
        given = DATACLASSES[row.group](**{row.name: value}) if row.group in DATACLASSES else value
        name = row.group if row.group in DATACLASSES else row.name
        request.node.own_markers[:] = [pytest.mark.signaling(**{name: given}).mark]

    def values(row):
        kind = row.kind
        if isinstance(kind, Integer):
            return [kind.most]
        if isinstance(kind, Seconds):
            most = 0.01 if row.name.startswith("drain") else 10**9  # The stop takes that long.
            return [most, *([0] if kind.zero else []), *([None] if kind.optional else [])]
        return list(kind.choices) if isinstance(kind, Choice) else [True, False]

    @pytest.mark.parametrize("row", ALONE, ids=lambda row: row.path)
    def test_taken(row, request, signaling_server_factory):
        for value in values(row):
            mark(request, row, value)
            server = signaling_server_factory()
            settings = server._settings
            if row.is_core:
                assert settings.native[row.path] == value
            else:
                assert getattr(settings.limits if row.group == "limits" else settings, row.name) == value
            server.stop()

    def test_refused(request, signaling_server_factory):
        for row in ROWS:
            for value in NONSENSE:
                mark(request, row, value)
                with pytest.raises(ConfigError) as error:
                    signaling_server_factory()
                assert error.value.setting == f"signaling_server_factory: {row.path} (@pytest.mark.signaling)"
"""


def test_marker_takes_each_documented_value_and_refuses_nonsense(pytester: pytest.Pytester) -> None:
    suite(pytester, MARKED)
    result = run(pytester, "-q", "-p", "no:xdist")
    outcomes = result.parseoutcomes()
    assert outcomes.keys() == {"passed"}, outcomes
    assert outcomes["passed"] > 60
