"""Text of a peer that a reader could take for something else (SECURITY.md)."""

from __future__ import annotations

import json

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.testing import FakeClient, FakeDevice


def test_line_separators_of_peers_end_no_line() -> None:
    """U+0085, U+2028 and U+2029 may stand in JSON strings as they are, and end a line for `str.splitlines`."""
    breaks = "\x85\u2028\u2029"
    with SignalingServer(journal=True) as server, FakeDevice(server, "cvd-1") as device:
        with FakeClient(server, "cvd-1") as client:
            client.send_raw(f'{{"message_type":"forward","payload":{{"type":"{breaks}","n":1.10}}}}')
            assert device.recv().type == breaks
            for form in ("text", "mermaid", "jsonl"):
                text = server.journal.transcript(form)
                assert text.splitlines() == text.removesuffix("\n").split("\n"), form
            entry = server.journal.transcript("jsonl").splitlines()[-1]
    assert json.loads(entry)["payload"] == {"type": breaks, "n": 1.1}
    assert '"n":1.10}' in entry
