"""The systemd unit of `install-operator`: its text, and whether a file is such a unit."""

from __future__ import annotations

import hashlib
import re

NAME = "cuttlefish-operator.service"
"""The name of the host package's unit. A unit of this name in the administrator's directory takes its place."""

USER, GROUP = "_cutf-operator", "cvdnetwork"
"""The user and group of the host package's operator. Devices belong to the group."""

_HEAD = "# Made by `cuttlefish-signaling install-operator`. SHA-256 of the rest: "

_UNIT = """\
# A signaling server in the place of the operator of a Cuttlefish host. It has the name of the package's unit, so it
# takes its place, stays when the package is upgraded, and tools that ask for the operator's log find it. Change it with
# `systemctl edit cuttlefish-operator`:
#
#   [Service]
#   Environment=CUTTLEFISH_SIGNALING_STUN=stun:stun.lab:3478

[Unit]
Description=Signaling server for Cuttlefish devices, in the place of the operator
After=network-online.target remote-fs.target
Wants=network-online.target

[Service]
Type=notify
# The host orchestrator has files in this directory, and gives it to its own user when it starts. RuntimeDirectory=
# would give these files to the operator's user, and StandardError=append: would need the directory before.
ExecStartPre=+/usr/bin/install -d -o _cutf-operator -g cvdnetwork -m 0775 /run/cuttlefish
ExecStart=@COMMAND@ serve --operator
ExecReload=/bin/kill -HUP $MAINPID
# Keeps /run/cuttlefish. The server removes its sockets: without them devices start servers of their own.
Restart=on-failure
# The server tells twice in this time that its threads make progress. Otherwise it is aborted and started again.
WatchdogSec=30
# Status 2 is a setting that is wrong, which a restart does not mend.
RestartPreventExitStatus=2
# A stop takes up to 10 s, and --drain and --drain-spread before, of which the server tells systemd.
TimeoutStopSec=30

User=_cutf-operator
Group=cvdnetwork
# The certificate, if the operator's directory has none.
StateDirectory=cuttlefish-signaling
StateDirectoryMode=0700
LimitNOFILE=65536
# The web server of the host reads the log.
UMask=0022

# The server needs sockets (AF_NETLINK: the machine's addresses), its log, and no other access to the machine.
ReadWritePaths=-/run/cuttlefish
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
CapabilityBoundingSet=
DevicePolicy=closed
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources

[Install]
WantedBy=multi-user.target
"""


def unit(command: str) -> str:
    """Returns the unit that runs this command, an absolute path."""
    text = _UNIT.replace("@COMMAND@", command)
    return f"{_HEAD}{_digest(text)}\n{text}"


def is_unchanged(text: str) -> bool | None:
    """Whether a unit is as `install-operator` has made it, of any version. None for a file of another origin."""
    head, _, rest = text.partition("\n")
    if not head.startswith(_HEAD):
        return None
    return head.removeprefix(_HEAD) == _digest(rest)


def is_safe(command: str) -> bool:
    """Whether systemd reads this path as it is, without quotes and specifiers."""
    return re.fullmatch(r"/[\w./+@:-]+", command, re.ASCII) is not None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
