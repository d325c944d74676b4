"""Settings of a node of a cluster, in Python and on the command line."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import Cluster, ConfigError, RestartRequiredError, SignalingServer, _native
from cuttlefish_signaling._settings.cluster import CLUSTER
from cuttlefish_signaling.cli import main, parser
from cuttlefish_signaling.cli.cluster import cluster, keep_cluster
from cuttlefish_signaling.cli.sources import Found, settings

PASSWORD = "cAnArY-0123456789"
SECRET = PASSWORD * 2
URL = f"redis://user:{PASSWORD}@127.0.0.1:6379"


def through(*arguments: str, **environment: str) -> Found:
    return settings(parser().parse_args(["serve", *arguments]), environment)


def told(arguments: list[str], capsys: pytest.CaptureFixture[str], command: str = "serve") -> str:
    """The error of the command line, which ends with status 2."""
    given = ["--no-tls", "--port", "0", *arguments]
    assert main([command, *given]) == 2
    return capsys.readouterr().err.removeprefix("cuttlefish-signaling: error: ").rstrip()


# Python ---------------------------------------------------------------------------------------------------------------


def test_host_name_is_the_name_of_the_node() -> None:
    assert Cluster("redis://localhost") == Cluster("redis://localhost", node=socket.gethostname())
    assert Cluster("redis://localhost") != Cluster("redis://localhost", node="another")


def test_clusters_are_equal_by_all_their_settings() -> None:
    others: list[dict[str, Any]] = [
        {"name": "lab"},
        {"listen": "127.0.0.1:1"},
        {"address": "127.0.0.1:1"},
        {"secret": SECRET},
        {"node": "b"},
        {"on_outage": "hold"},
        {"device_id_template": "{node}-{id}"},
    ]
    made = [Cluster("redis://localhost", **{"node": "a", **other}) for other in others]
    assert [Cluster("redis://localhost", **{"node": "a", **other}) for other in others] == made
    assert all(one != other for at, one in enumerate(made) for other in made[at + 1 :])
    assert made[0] != "redis://localhost"


def test_lines_of_a_text_are_several_secrets() -> None:
    one, two = "x" * 32, "y" * 32
    several = Cluster("redis://localhost", secret=[one, two])
    assert Cluster("redis://localhost", secret=f"{one}\n\n{two}\r\n") == several
    assert Cluster("redis://localhost", secret=f"{two}\n{one}") != several


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"name": "a b"},
        {"ca": "/nowhere"},
        {"url": f"http://:{PASSWORD}@localhost"},
        {"url": f"redis://:{PASSWORD}@localhost/x"},
        {"url": f"redis+sentinel://:{PASSWORD}@localhost/m?password={PASSWORD}"},
        {"url": f"redis://:{PASSWORD}@redis.lab"},
        {"url": f"{PASSWORD}"},
        {"secret": [SECRET, PASSWORD]},
        {"secret": [SECRET, PASSWORD.encode()]},
        {"url": PASSWORD.encode()},
    ],
)
def test_neither_password_nor_secret_is_in_repr_or_error(given: dict[str, Any]) -> None:
    arguments = {"url": URL, "secret": SECRET, "node": "a", **given}
    try:
        shown = repr(Cluster(**arguments)) + repr(SignalingServer(cluster=Cluster(**arguments)))
        assert not given
    except ConfigError as error:
        shown = f"{error!r} {error.__cause__!r} {error.__context__!r}"
        assert given
    assert PASSWORD not in shown


def test_password_of_sentinels_is_not_in_repr() -> None:
    given = Cluster(f"redis+sentinel://:x@localhost/m?sentinel_username=user&sentinel_password={PASSWORD}", node="a")
    assert repr(given).startswith('<Cluster { engine: "redis+sentinel://localhost/m", name: ')
    assert PASSWORD not in repr(SignalingServer(cluster=given))


def test_url_in_the_place_of_a_cluster_is_not_shown() -> None:
    for url in (URL, URL.encode()):
        with pytest.raises(ConfigError, match="cluster: must be a Cluster or None, got a value of type") as error:
            SignalingServer(cluster=url)  # type: ignore[arg-type]
        assert PASSWORD not in str(error.value)


def test_core_keeps_the_settings() -> None:
    given = Cluster(URL, name="lab", node="a", secret=SECRET)
    settings = SignalingServer(cluster=given)._settings
    assert settings.native["cluster"] == given._native
    assert repr(given) == (
        '<Cluster { engine: "redis://127.0.0.1:6379", name: "lab", node: "a", listen: 127.0.0.1:0, .. }>'
    )
    assert SignalingServer()._settings.native["cluster"] is None


# The command line -----------------------------------------------------------------------------------------------------


def test_flags_are_the_arguments(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n{PASSWORD}{PASSWORD}x\n")
    found = through(
        *("--cluster", URL, "--cluster-name", "lab", "--cluster-listen", "127.0.0.1:7443", "--node", "host-7"),
        *("--cluster-address", "node.lab:7443", "--cluster-secret-file", str(secret), "--cluster-on-outage", "hold"),
        *("--device-id-template", "{node}:{id}"),
    )
    assert cluster(found) == Cluster(
        URL,
        name="lab",
        listen="127.0.0.1:7443",
        address="node.lab:7443",
        secret=[SECRET, f"{PASSWORD}{PASSWORD}x"],
        node="host-7",
        on_outage="hold",
        device_id_template="{node}:{id}",
    )
    assert cluster(through(CUTTLEFISH_SIGNALING_CLUSTER=URL)) == Cluster(URL)
    assert cluster(through()) is None


def test_variables_and_empty_texts_are_the_defaults() -> None:
    empty = {flag.variable: "" for row in CLUSTER if (flag := row.flag) and row.default is None}
    assert len(empty) == 6
    assert cluster(through(**empty)) is None
    assert cluster(through(**{**empty, "CUTTLEFISH_SIGNALING_CLUSTER": URL})) == Cluster(URL)


@pytest.mark.parametrize("row", [row for row in CLUSTER if row.name != "cluster"], ids=lambda row: row.name)
def test_each_other_flag_needs_the_engine(row: Any, capsys: pytest.CaptureFixture[str]) -> None:
    value = row.kind.choices[-1] if row.kind.choices else "x"
    error = told([f"--{row.flag.name}", value], capsys)
    assert error == f"--{row.flag.name}: has no use without --cluster URL, the engine of the cluster"


ERRORS = [
    (["--cluster", f"http://:{PASSWORD}@x"], "--cluster: has an unknown scheme"),
    (["--cluster", URL, "--cluster-name", "a b"], '--cluster-name: "a b" is not a name'),
    (["--cluster", URL, "--node", "a/b"], '--node: "a/b" is not a name'),
    (["--cluster", URL, "--cluster-listen", "7443"], '--cluster-listen: "7443" is not ADDRESS:PORT'),
    (
        ["--cluster", "redis://redis.lab"],
        (
            "--cluster-listen: 127.0.0.1:0 is reached from this machine only, and redis://redis.lab is on another one: "
            "listen on an address that the other nodes reach, like 10.0.0.5:7443, or set --cluster-address"
        ),
    ),
    (["--cluster", URL, "--cluster-listen", "0.0.0.0:7443"], "--cluster-address: is missing: no node can dial"),
    (["--cluster", URL, "--cluster-address", "x"], '--cluster-address: "x" is not the HOST:PORT'),
    (
        ["--cluster", URL, "--cluster-listen", "10.0.0.5:7443"],
        "--cluster-secret-file: is missing: other machines reach the engine or the listener",
    ),
    (["--cluster", URL, "--cluster-secret-file", "/nowhere/x"], "--cluster-secret-file: cannot read /nowhere/x: "),
    (["--cluster", URL, "--cluster-ca", "/nowhere/x"], "--cluster-ca: /nowhere/x has no use: redis://127.0.0.1:6379"),
    (["--cluster", URL, "--device-id-template", "x"], '--device-id-template: "x" must have {id} once'),
    (
        ["--cluster", URL, "--device-id-template", "{node}-{id}", "--node", "host-7"],
        '--node: "host-7" contains "-", which ends the name of the node in --device-id-template "{node}-{id}"',
    ),
]


@pytest.mark.parametrize(("arguments", "error"), ERRORS, ids=lambda value: value[-1] if isinstance(value, list) else "")
def test_error_names_the_flag(arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("serve", "check"):
        text = told(arguments, capsys, command)
        assert text.startswith(error), text
        assert PASSWORD not in text


def test_secret_file_is_checked_without_its_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "secret"
    for content, error in [
        ("", f"{file} is empty"),
        ("\n \n", f"{file} is empty"),
        (f"{SECRET}\n\n{PASSWORD}\n", "line 2 has 17 bytes, and at least 32 are needed"),
        (f"{SECRET}\n" * 17, "has 17 lines, and at most 16 are allowed"),
    ]:
        file.write_text(content)
        text = told(["--cluster", URL, "--cluster-secret-file", str(file)], capsys)
        assert text.startswith(f"--cluster-secret-file: {error}") and PASSWORD not in text
    file.write_bytes(f"{SECRET}\xff".encode("latin-1"))
    text = told(["--cluster", URL, "--cluster-secret-file", str(file)], capsys)
    assert text == f"--cluster-secret-file: cannot read {file}: it is not UTF-8"


def test_check_tells_the_settings_without_the_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, secret = tmp_path / "server.toml", tmp_path / "secret"
    secret.write_text(SECRET)
    file.write_text(f'cluster = "{URL}"\nno_tls = true\ncluster_secret_file = "{secret}"\nnode = "host7"\n')
    assert main(["check", "--config", str(file)]) == 0
    out, err = capsys.readouterr()
    assert f'cluster = "..."  # {file}, line 1: cluster' in out
    assert f'node = "host7"  # {file}, line 4: node' in out
    assert PASSWORD not in out + err
    file.write_text(f'cluster = "{URL}"\nno_tls = true\nnode = "a b"\ncluster_name = "c d"\ndevice_wait_timeout = -1')
    assert main(["check", "--config", str(file)]) == 2
    err = capsys.readouterr().err
    assert f"{file}, line 4: cluster_name: " in err and f"{file}, line 5: device_wait_timeout: " in err


# Reload ---------------------------------------------------------------------------------------------------------------


def test_server_that_runs_cannot_join_another_cluster() -> None:
    with SignalingServer() as server:
        with pytest.raises(RestartRequiredError) as error:
            server.reload(cluster=Cluster("redis://localhost", node="a"))
        assert error.value.settings == ("cluster",)


def test_another_secret_is_taken_over_and_another_cluster_is_named(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    found = through("--cluster", URL, "--cluster-secret-file", str(file))
    running = cluster(found)
    given: dict[str, Any] = {"cluster": cluster(found)}
    assert keep_cluster(given, running, found) == []
    assert given["cluster"] == running
    file.write_text(f"{SECRET}x")
    other = cluster(found)
    given = {"cluster": other}
    assert keep_cluster(given, running, found) == []
    assert given["cluster"] is other
    # A cluster that has no secret at all is another one.
    without = cluster(through("--cluster", URL))
    given = {"cluster": without}
    assert keep_cluster(given, running, found) == ["--cluster-secret-file"]
    assert given == {"cluster": running}


def test_native_settings_take_no_other_value() -> None:
    with pytest.raises(TypeError):
        _native.Cluster("redis://localhost")  # type: ignore[call-arg]
