"""The command `openssl`."""

from __future__ import annotations

import subprocess

from peers import PATIENCE


def openssl(*arguments: str) -> str:
    done = subprocess.run(
        ["openssl", *arguments], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, timeout=PATIENCE
    )
    return done.stdout


def verify_code(port: int, *arguments: str) -> int:
    """The verify return code of `openssl s_client` for a server's chain."""
    said = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
        check=False,
    )
    (code, *_) = [line for line in said.stdout.splitlines() if "Verify return code:" in line]
    return int(code.split(":")[1].split("(")[0])
