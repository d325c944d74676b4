"""Runs a server for the load, plain or with options that may make relaying more expensive.

python benches/relay_server.py [--journal] [--dashboard] [--fault] [--rates] [--workers N] [--gil] [--tls CA] --port N
"""

from __future__ import annotations

import argparse
import ctypes
import threading
from pathlib import Path

from cuttlefish_signaling import Keepalive, Limits, SignalingServer, Tls


def hold_the_gil() -> None:
    """Holds the GIL for two seconds at a time."""
    libc = ctypes.PyDLL(None)  # `PyDLL` does not release the GIL.
    while True:
        libc.usleep(2_000_000)


def main() -> None:
    """Serves until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", action="store_true", help="write one")
    parser.add_argument(
        "--dashboard", action="store_true", help="serve the page, whose events a page of the load reads"
    )
    parser.add_argument("--rates", action="store_true", help="let one device send as much as it can")
    parser.add_argument("--fault", action="store_true", help="arm one, for a device that never comes")
    parser.add_argument("--workers", type=int, default=1, help="threads that relay")
    parser.add_argument("--gil", action="store_true", help="have a thread of Python's hold the interpreter's lock")
    parser.add_argument("--tls", type=Path, help="speak TLS, and write the certificate to trust to this file")
    options = parser.parse_args()
    tls = Tls.self_signed() if options.tls else None
    if tls is not None:
        options.tls.write_text(tls.certificate_pem)
    # No pings: the load's idle devices do not answer.
    settings = {"keepalive": Keepalive(interval=None), "workers": options.workers, "journal": options.journal}
    most = 1 << 30
    rates = {"message_per_second": most, "message_burst": most, "byte_per_second": most, "byte_burst": most}
    limits = Limits(**rates) if options.rates else Limits()
    with SignalingServer(port=options.port, tls=tls, dashboard=options.dashboard, limits=limits, **settings) as server:
        if options.gil:
            threading.Thread(target=hold_the_gil, daemon=True).start()
        if options.fault:
            server.faults.drop(device="nobody", absent_ok=True).arm()
        server.serve_forever()


if __name__ == "__main__":
    main()
