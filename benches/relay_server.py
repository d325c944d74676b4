"""A server to put a load on, with a journal or a fault that strikes nothing, to see what they cost the relay.

python benches/relay_server.py --port 8080 [--journal] [--fault]
"""

from __future__ import annotations

import argparse

from cuttlefish_signaling import SignalingServer


def main() -> None:
    """Serves until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", action="store_true", help="write one")
    parser.add_argument("--fault", action="store_true", help="arm one, for a device that never comes")
    options = parser.parse_args()
    with SignalingServer(port=options.port, journal=options.journal) as server:
        if options.fault:
            server.faults.drop(device="nobody", absent_ok=True).arm()
        server.serve_forever()


if __name__ == "__main__":
    main()
