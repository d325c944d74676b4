"""Runs the commands of docs/cuttlefish.md, "On a host with current devices", under a systemd of their own.

    python tests/systemd.py dist/*.whl

The root is this machine's, below an overlay that is discarded: nothing on the machine changes. systemd runs in
namespaces for mounts, processes, names, IPC, the network and cgroups. A unit of the operator's name stands for that of
the host package. Needs root, Linux with overlayfs and cgroup v2, systemd, curl and Debian's python3-venv.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

GUIDE = Path(__file__).parents[1] / "docs" / "cuttlefish.md"
TIMEOUT = 300
UNIT = "/etc/systemd/system/cuttlefish-operator.service"

BOOT = """\
set -eu
mount --make-rprivate /
mkdir root tmpfs
mount -t tmpfs none tmpfs
mkdir tmpfs/upper tmpfs/work
mount -t overlay overlay -o lowerdir=/,upperdir="$PWD/tmpfs/upper",workdir="$PWD/tmpfs/work" root
mount -t proc proc root/proc
mount --rbind /sys root/sys
mount -t cgroup2 cgroup2 root/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs root/run
mount -t tmpfs tmpfs root/tmp
mount --rbind /dev root/dev
ip link set lo up
mkdir -p root/srv/live
mount --bind "$PWD/live" root/srv/live
printf '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/bin/true\\n' \\
    > root/lib/systemd/system/cuttlefish-operator.service
printf '[Install]\\nWantedBy=multi-user.target\\n' >> root/lib/systemd/system/cuttlefish-operator.service
printf 'operator_listen_address=0.0.0.0\\noperator_https_port=1443\\n' > root/etc/default/cuttlefish-operator
printf '[Unit]\\nRequires=basic.target live.service\\nAllowIsolate=yes\\n' > root/etc/systemd/system/live.target
printf '[Service]\\nType=oneshot\\nExecStart=/bin/bash /srv/live/steps\\nStandardOutput=file:/srv/live/output\\n' \\
    > root/etc/systemd/system/live.service
printf 'StandardError=inherit\\n' >> root/etc/systemd/system/live.service
chroot root groupadd --system cvdnetwork
chroot root useradd --system --badname -g cvdnetwork _cutf-operator
chroot root useradd --system -U -G cvdnetwork httpcvd
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot root /lib/systemd/systemd \\
    --log-target=null --show-status=no --unit=live.target
"""

CHECKS = """\
COMMAND=/opt/cuttlefish-signaling/bin/cuttlefish-signaling
check() { if eval "$2" > /dev/null; then echo "ok: $1"; else echo "FAILED: $1"; fi; }
is() { check "$1 is $2" '[ "$(systemctl show --value -p '"$1"' cuttlefish-operator)" = "'"$2"'" ]'; }
owner() { check "$1 belongs to $2" '[ "$(stat -c %U '"$1"')" = '"$2"' ]'; }
"""

AFTER = {
    "### Install": f"""
is FragmentPath {UNIT}
is ActiveState active
owner /run/cuttlefish _cutf-operator
check "http lists devices" '[ "$(curl -s http://127.0.0.1:1080/devices)" = "[]" ]'
check "https lists devices" '[ "$(curl -sk https://127.0.0.1:1443/devices)" = "[]" ]'
check "the web server reads the log" 'runuser -u nobody -- cat /run/cuttlefish/operator.log'
runuser -u httpcvd -- touch /run/cuttlefish/host_orchestrator.log
chown httpcvd /run/cuttlefish
systemctl restart cuttlefish-operator
is ActiveState active
owner /run/cuttlefish/host_orchestrator.log httpcvd
systemctl stop cuttlefish-operator
owner /run/cuttlefish/host_orchestrator.log httpcvd
check "the sockets are removed" '[ ! -e /run/cuttlefish/operator ] && [ ! -e /run/cuttlefish/operator_control ]'
rm -r /run/cuttlefish
ip address add 192.0.2.7/32 dev lo
systemctl start cuttlefish-operator
is ActiveState active
check "addresses for others are told" 'journalctl -u cuttlefish-operator | grep -F "listening: https://192.0.2.7:1443"'
""",
    "### Settings": """
check "peers hear of the STUN server" 'curl -s http://127.0.0.1:1080/infra_config | grep -F stun.l.google.com'
printf '[Service]\\nEnvironment=CUTTLEFISH_SIGNALING_WORKERS=0\\n' > /run/systemd/system/wrong.conf
mkdir -p /run/systemd/system/cuttlefish-operator.service.d
mv /run/systemd/system/wrong.conf /run/systemd/system/cuttlefish-operator.service.d/
systemctl daemon-reload
systemctl restart cuttlefish-operator
is ExecMainStatus 2
is ActiveState failed
rm -r /run/systemd/system/cuttlefish-operator.service.d
systemctl daemon-reload
systemctl start cuttlefish-operator
""",
    "### Behind the web server of the host": """
check "the origins are told" 'cuttlefish-signaling serve --operator --dry-run | grep -F "https://localhost:2443"'
""",
    "### Certificates": """
openssl s_client -connect 127.0.0.1:1443 < /dev/null > shown
check "the certificate is used" 'openssl x509 -in shown -noout -subject | grep own'

is WatchdogUSec 30s
check "it is alive" '$COMMAND health --operator --ready'
mkdir -p /run/systemd/system/cuttlefish-operator.service.d
printf '[Service]\nTimeoutStopSec=1\nWatchdogSec=1\nEnvironment=CUTTLEFISH_SIGNALING_DRAIN=4\n' \
    > /run/systemd/system/cuttlefish-operator.service.d/drain.conf
systemctl daemon-reload
systemctl restart cuttlefish-operator
sleep 3
is NRestarts 0
systemctl stop cuttlefish-operator
is Result success
is ExecMainStatus 0
rm -r /run/systemd/system/cuttlefish-operator.service.d
cp cuttlefish-operator.socket /etc/systemd/system/
systemctl daemon-reload
systemctl start cuttlefish-operator.socket
check "the first connection starts the service" '[ "$(curl -s http://127.0.0.1:1080/devices)" = "[]" ]'
is ActiveState active
call() { curl -s http://127.0.0.1:1080/healthz > /dev/null || echo refused; echo called; }
(set +x; while [ ! -e dialled ]; do call; done) > calls &
CALLER=$!
for number in 1 2 3; do systemctl restart cuttlefish-operator; done
touch dialled
wait $CALLER
check "no connection is refused during restarts" '[ "$(grep -c refused calls)" = 0 ]'
check "connections come during restarts" '[ "$(grep -c called calls)" -gt 3 ]'
check "the device socket is that of systemd" 'systemctl stop cuttlefish-operator && [ -S /run/cuttlefish/operator ]'
systemctl stop cuttlefish-operator.socket
rm /etc/systemd/system/cuttlefish-operator.socket
systemctl daemon-reload
systemctl start cuttlefish-operator
""",
    "### In a container": """
SERVER=$!
check "it serves without systemd" 'curl -s --retry 50 --retry-connrefused --retry-delay 1 http://127.0.0.1:1080/devices'
kill $SERVER
wait $SERVER
check "it ends with status 0" "[ $? = 0 ]"
systemctl start cuttlefish-operator
""",
    "### Going back": """
is FragmentPath /lib/systemd/system/cuttlefish-operator.service
is ActiveState active
""",
}
"""Commands after those of a part of the guide."""

BEFORE = {
    "### Behind the web server of the host": "PATH=$PATH:$(dirname $COMMAND)\n",
    "### Certificates": """
openssl req -newkey rsa:2048 -x509 -days 30 -nodes -out server.pem -keyout server.key -subj /CN=own
mkdir -p /etc/cuttlefish-common/operator/cert
""",
    "### In a container": "systemctl stop cuttlefish-operator\n",
}


def steps() -> str:
    """The commands of the guide as they stand, each part followed by its checks."""
    guide = GUIDE.read_text(encoding="utf-8").partition("## On a host with current devices")[2].partition("\n## ")[0]
    lines = ["cd /srv/live", CHECKS, "set -x"]
    found = set()
    for part in re.split(r"^(?=### )", guide, flags=re.MULTILINE):
        heading = part.partition("\n")[0]
        if blocks := re.findall(r"^```sh\n(.*?)^```", part, re.DOTALL | re.MULTILINE):
            found.add(heading)
            lines += [BEFORE.get(heading, ""), *blocks, AFTER[heading]]
    assert found == set(AFTER), f"the guide has commands in {sorted(found)}"
    return "\n".join([*lines, "echo END"])


def main() -> int:
    """Runs the guide. Returns the number of failed checks."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("wheel", type=Path)
    wheel = arguments.parse_args().wheel
    with tempfile.TemporaryDirectory(prefix="systemd-", dir="/var/tmp") as directory:
        live = Path(directory) / "live"
        live.mkdir()
        shutil.copy(wheel, live)
        shutil.copy(GUIDE.parents[1] / "deploy" / "cuttlefish-operator.socket", live)
        (live / "steps").write_text(steps(), encoding="utf-8")
        output = live / "output"
        spaces = ("--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--fork", "--kill-child=KILL")
        command = ["unshare", *spaces, "bash", "-c", BOOT]
        with subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL) as booted:
            follow = ["timeout", str(TIMEOUT), "tail", f"--pid={booted.pid}", "--follow=name", "--retry", "--lines=+1"]
            with subprocess.Popen(
                [*follow, output], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as tail:
                assert tail.stdout is not None
                for line in tail.stdout:
                    print(line, end="", flush=True)
                    if line == "END\n":
                        break
                tail.kill()
            booted.kill()
        said = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
    failed = [line for line in said if line.startswith("FAILED: ")]
    passed = sum(line.startswith("ok: ") for line in said)
    print(f"{passed} checks passed, {len(failed)} failed", *failed, sep="\n")
    if "END" not in said:
        print("the guide did not come to its end")
    return len(failed) or int("END" not in said or not passed)


if __name__ == "__main__":
    sys.exit(main())
