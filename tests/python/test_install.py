"""`install-operator` and `uninstall-operator`, in a root of their own, and the unit by systemd's own checks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cuttlefish_signaling import ConfigError
from cuttlefish_signaling.cli import FLAGS, install, main, parser, unit
from cuttlefish_signaling.cli.operator import DRAIN_SPREAD, apply_preset
from cuttlefish_signaling.cli.serve import SLACK
from cuttlefish_signaling.cli.sources import settings

REPOSITORY = Path(__file__).parents[2]
COMMAND = "/opt/cuttlefish-signaling/bin/cuttlefish-signaling"
OF_DEPLOY = "/usr/local/bin/cuttlefish-signaling"
MOST_EXPOSED = 20
"""The exposure of the unit that `systemd-analyze security` may find at most, in tenths."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system with the host packages' user and group, and the command."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n_cutf-operator:x:101:102::/:/bin/false\n")
    (tmp_path / "etc" / "group").write_text("root:x:0:\ncvdnetwork:x:102:\n")
    for command in (COMMAND, OF_DEPLOY):
        program = tmp_path / command.lstrip("/")
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    return tmp_path


def path_in(root: Path) -> Path:
    return root / "etc" / "systemd" / "system" / "cuttlefish-operator.service"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    return status, *capsys.readouterr()


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


# Installing -----------------------------------------------------------------------------------------------------------


def test_unit_is_installed_again_and_removed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(root)
    for _ in range(2):
        status, said, _ = run(capsys, "install-operator", "--root", str(root), "--command", COMMAND)
        assert status == 0
        assert f"wrote {path_in(root)}\n" in said and "systemctl daemon-reload" in said
        assert path_in(root).read_text() == unit.unit(COMMAND)
        assert path_in(root).stat().st_mode & 0o777 == 0o644
    drop_ins = path_in(root).with_name("cuttlefish-operator.service.d")
    drop_ins.mkdir()
    status, said, _ = run(capsys, "uninstall-operator", "--root", str(root))
    assert status == 0 and f"removed {path_in(root)}" in said
    assert f"{drop_ins} stays and changes the unit of the package" in said
    drop_ins.rmdir()
    assert files(root) == before | {"etc/systemd", "etc/systemd/system"}
    status, said, _ = run(capsys, "uninstall-operator", "--root", str(root))
    assert (status, said) == (0, f"{path_in(root)} is not there: nothing to do\n")


def test_dry_run_changes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(root)
    status, said, _ = run(capsys, "install-operator", "--root", str(root), "--command", COMMAND, "--dry-run")
    assert (status, said) == (0, unit.unit(COMMAND))
    assert files(root) == before
    main(["install-operator", "--root", str(root), "--command", COMMAND])
    capsys.readouterr()
    status, said, _ = run(capsys, "uninstall-operator", "--root", str(root), "--dry-run")
    assert (status, said) == (0, f"would remove {path_in(root)}\n")
    assert path_in(root).exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[Service]\nExecStart=/bin/true\n", "is a unit of another origin"),
        (unit.unit(COMMAND) + "Nice=5\n", "was changed by hand"),
        (unit.unit(COMMAND).replace("Restart=on-failure", "Restart=no"), "was changed by hand"),
    ],
)
def test_unit_of_the_administrator_is_kept_without_force(
    root: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    path_in(root).parent.mkdir(parents=True)
    for command, doing in (("install-operator", "overwrites"), ("uninstall-operator", "removes")):
        arguments = ["--root", str(root), *(["--command", COMMAND] if command == "install-operator" else [])]
        path_in(root).write_text(text)
        status, _, error = run(capsys, command, *arguments)
        assert (status, error) == (2, f"cuttlefish-signaling: error: {path_in(root)}: {reason}: --force {doing} it\n")
        assert path_in(root).read_text() == text
        assert run(capsys, command, *arguments, "--force")[0] == 0


def test_unit_of_another_command_is_replaced(root: Path) -> None:
    assert main(["install-operator", "--root", str(root), "--command", OF_DEPLOY]) == 0
    assert main(["install-operator", "--root", str(root), "--command", COMMAND]) == 0
    assert path_in(root).read_text() == unit.unit(COMMAND)


def test_masked_unit_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path_in(root).parent.mkdir(parents=True)
    path_in(root).symlink_to("/dev/null")
    status, _, error = run(capsys, "install-operator", "--root", str(root), "--command", COMMAND, "--force")
    assert status == 2 and "is a link to /dev/null: remove it first (systemctl unmask)" in error


@pytest.mark.parametrize(
    ("database", "error"),
    [("passwd", "has no user _cutf-operator"), ("group", "has no group cvdnetwork")],
)
def test_host_without_the_packages_is_told(
    root: Path, capsys: pytest.CaptureFixture[str], database: str, error: str
) -> None:
    (root / "etc" / database).write_text("root:x:0:0\n")
    status, _, said = run(capsys, "install-operator", "--root", str(root), "--command", COMMAND)
    assert status == 2 and error in said and "install the packages cuttlefish-base and cuttlefish-user first" in said
    assert not path_in(root).exists()


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("bin/x", "'bin/x' is not an absolute path"),
        ("/opt/a b/x", "'/opt/a b/x' is not an absolute path of plain characters"),
        ("/opt/%h/x", "is not an absolute path of plain characters"),
        ("/opt/x\nExecStartPre=+/bin/rm", "is not an absolute path of plain characters"),
        (
            "/home/me/venv/bin/cuttlefish-signaling",
            "is in a directory that services do not see",
        ),
        ("/tmp/x", "is in a directory that services do not see"),
        ("/opt/nowhere", "is not a program; install the package there"),
    ],
)
def test_command_that_the_unit_could_not_run_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str], command: str, error: str
) -> None:
    status, _, said = run(capsys, "install-operator", "--root", str(root), "--command", command)
    assert status == 2 and error in said.replace("\\n", "\n")
    assert not path_in(root).exists()


def test_interpreter_in_a_home_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of pyenv: the script is below /opt, and its Python is not."""
    monkeypatch.setattr(install, "HIDDEN", (str(tmp_path / "home"),))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "python").write_text("")
    (tmp_path / "python").symlink_to(tmp_path / "home" / "python")
    script = tmp_path / "script"
    script.write_text(f"#!{tmp_path}/python -I\n")
    script.chmod(0o755)
    with pytest.raises(ConfigError, match=f"^--command: {tmp_path}/home/python is in a directory that services do not"):
        install._command(Path("/"), str(script))
    script.write_text("#!/bin/sh\n")
    assert install._command(Path("/"), str(script)) == str(script)


def test_root_that_is_no_directory_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("install-operator", "uninstall-operator"):
        status, _, error = run(capsys, command, "--root", str(root / "nowhere"))
        assert status == 2 and "--root: " in error and "is not a directory" in error


# The unit -------------------------------------------------------------------------------------------------------------


def test_file_in_deploy_is_the_unit() -> None:
    """`cuttlefish-signaling install-operator --dry-run --command /usr/local/bin/cuttlefish-signaling` writes it."""
    assert (REPOSITORY / "deploy" / unit.NAME).read_text(encoding="utf-8") == unit.unit(OF_DEPLOY)


def settings_of(text: str) -> dict[str, list[str]]:
    """The settings of the section [Service], which may have a name several times."""
    service = text.partition("\n[Service]\n")[2].partition("\n[")[0]
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", service, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def test_unit_runs_the_preset_as_the_operator_and_keeps_the_shared_directory() -> None:
    service = settings_of(unit.unit(COMMAND))
    assert service["ExecStart"] == [f"{COMMAND} serve --operator"]
    assert (service["User"], service["Group"]) == (["_cutf-operator"], ["cvdnetwork"])
    assert "RuntimeDirectory" not in service and "DynamicUser" not in service
    assert service["ExecStartPre"] == ["+/usr/bin/install -d -o _cutf-operator -g cvdnetwork -m 0775 /run/cuttlefish"]
    (stop_timeout,) = [flag.default for flag in FLAGS if flag.name == "stop-timeout"]
    assert float(service["TimeoutStopSec"][0]) > DRAIN_SPREAD + stop_timeout + SLACK
    assert service["UMask"] == ["0022"], "the web server of the host reads the log"
    assert "AF_NETLINK" in service["RestrictAddressFamilies"][0]


@pytest.fixture(scope="session")
def systemd_analyze() -> str:
    found = shutil.which("systemd-analyze")
    assert found, "systemd-analyze is missing: apt-get install systemd"
    return found


@pytest.fixture(params=["cuttlefish-operator.service", "cuttlefish-signaling.service"])
def checked_unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit of `deploy/` with a command that is there."""
    program = tmp_path / "cuttlefish-signaling"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = (REPOSITORY / "deploy" / request.param).read_text(encoding="utf-8")
    assert OF_DEPLOY in text
    path = tmp_path / str(request.param)
    path.write_text(text.replace(OF_DEPLOY, str(program)))
    return path


def test_systemd_accepts_the_unit(systemd_analyze: str, checked_unit: Path) -> None:
    def verify() -> str:
        done = subprocess.run(
            [systemd_analyze, "verify", str(checked_unit)], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr + ("" if done.returncode == 0 else f"status {done.returncode}")

    assert verify() == ""
    checked_unit.write_text(checked_unit.read_text().replace("Restart=on-failure", "Restrat=on-failure"))
    assert "Restrat" in verify(), "verify finds a mistake"


@pytest.mark.parametrize("name", ["cuttlefish-operator", "cuttlefish-signaling"])
def test_systemd_accepts_the_socket_unit(systemd_analyze: str, tmp_path: Path, name: str) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\n")
    (tmp_path / "program").chmod(0o755)
    for kind in ("service", "socket"):
        text = (REPOSITORY / "deploy" / f"{name}.{kind}").read_text(encoding="utf-8")
        (tmp_path / f"{name}.{kind}").write_text(text.replace(OF_DEPLOY, str(tmp_path / "program")))
    done = subprocess.run(
        [systemd_analyze, "verify", str(tmp_path / f"{name}.socket")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_socket_unit_of_the_operator_has_the_addresses_of_the_preset(tmp_path: Path) -> None:
    (tmp_path / "defaults").write_text("operator_listen_address=0.0.0.0\noperator_https_port=1443\n")
    found = settings(parser().parse_args(["serve", "--operator", f"--operator-defaults={tmp_path / 'defaults'}"]), {})
    apply_preset(found)
    lines = (REPOSITORY / "deploy" / "cuttlefish-operator.socket").read_text(encoding="utf-8").splitlines()
    streams = [line.removeprefix("ListenStream=") for line in lines if line.startswith("ListenStream=")]
    local = [line.partition("=")[2] for line in lines if line.startswith("ListenSequentialPacket=")]
    assert streams == [url.partition("://")[2] for url in found["listen"]]
    assert local == [found["device_socket"], found["control_socket"]]


def test_systemd_finds_the_unit_confined(systemd_analyze: str, checked_unit: Path) -> None:
    def status() -> int:
        command = [systemd_analyze, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(checked_unit)]
        return subprocess.run(
            command, capture_output=True, env={**os.environ, "SYSTEMD_PAGER": ""}, check=False
        ).returncode

    assert status() == 0
    checked_unit.write_text(
        re.sub(r"^(Protect|Private|Restrict|System)\w+=.*\n", "", checked_unit.read_text(), flags=re.M)
    )
    assert status() != 0, "the threshold finds a unit that is not confined"


# The guide ------------------------------------------------------------------------------------------------------------


def test_guide_names_flags_and_defaults_that_exist() -> None:
    guide = (REPOSITORY / "docs" / "cuttlefish.md").read_text(encoding="utf-8")
    section = guide.partition("## On a host with current devices")[2].partition("\n## ")[0]
    commands = {"root", "dry-run", "force", "command", "operator", "config"}
    foreign = {"insecure", "now", "reuid", "regid", "init-groups", "connect_agent", "webrtc_sig_server_port"}
    named = set(re.findall(r"--([a-z][\w-]+)", section))
    assert named - commands - foreign <= {flag.name for flag in FLAGS}
    found = settings(parser().parse_args(["serve", "--operator", "--operator-defaults="]), {})
    apply_preset(found)
    table = section.partition("| setting | default with")[2].partition("\n\n")[0]
    preset = {key for key, origin in found.origins.items() if origin == "--operator" and key != "operator"}
    assert {name.replace("_", "-") for name in preset} <= set(re.findall(r"`--([a-z-]+)`", table))
