"""Judgement of a session with a device up to its answer: facts to findings."""

from __future__ import annotations

from ._facts import CLOSED, TIMEOUT, AnswerFacts, ConnectFacts, OfferFacts
from ._judge_http import device_missing
from ._report import Finding
from ._words import listed, shown

RESTART = "look into the log of the device (launcher.log, cuttlefish_runtime); restart it if it hangs"
"""The fix for a device that does not do its part."""


def judge_connect(facts: ConnectFacts) -> tuple[Finding, ...]:
    """Judges the messages up to the device info."""
    device = shown(facts.device_id)
    found = list(_ice_servers(facts))
    if facts.outcome == "connected":
        return tuple(found)
    if "Device not found" in facts.error:
        return (device_missing(facts.device_id, ()), *found)
    said = f": {shown(facts.error or facts.close)}" if facts.error or facts.close else ""
    if facts.outcome == "refused":
        text = f"the server refuses a connection to {device!r}{said}"
        return (Finding("connect_refused", text, "check the token and its grant, and the log of the server"), *found)
    if facts.outcome == TIMEOUT:
        fix = "the server does not take the connection: look into its log"
        return (Finding("connect_silent", f"no WebSocket to {device!r} in time", fix), *found)
    if facts.outcome == CLOSED:
        text = f"the server closes the connection to {device!r}{said}"
        return (Finding("connect_closed", text, "look into the log of the server"), *found)
    if facts.outcome == "garbage":
        text = f"the server sends a message that is not of the protocol{said}"
        return (Finding("not_signaling", text, "check that the URL is that of a signaling server"), *found)
    if facts.outcome == "no_config":
        fix = "look into the log: the `ice_servers` hook may hang, or the server does not know `connect`"
        return (Finding("no_config", "the server sends no `config` after `connect`", fix), *found)
    text = f"the server sends no `device_info` of {device!r}"
    fix = "the device is not registered yet (--device-wait-timeout lets clients wait), or a filter hook hangs"
    return (Finding("no_device_info", text, fix), *found)


def _ice_servers(facts: ConnectFacts) -> list[Finding]:
    found = []
    if facts.strings:
        text = "an ICE server has a string as `urls`: a real device skips it, or crashes"
        found.append(Finding("ice_urls_string", text, "send a list of strings (docs/protocol.md 1.16)", is_error=False))
    if facts.expired:
        text = f"the server hands out TURN credentials that expired {max(facts.expired):.0f} s ago"
        fix = "renew them; with --turn-secret-file the server makes fresh ones; compare the clocks"
        found.append(Finding("turn_credential_expired", text, fix, is_error=False))
    return found


def judge_offer(facts: OfferFacts) -> tuple[Finding, ...]:
    """Judges the answer to the request for an offer."""
    device = shown(facts.device_id)
    if facts.outcome == "offer":
        return ()
    if facts.outcome == "silent":
        text = f"the device {device!r} has not answered the request for an offer within {facts.seconds:.1f} s"
        fix = f"its WebRTC process hangs, or its connection is half-open: {RESTART}"
        return (Finding("device_silent", text, fix),)
    if facts.outcome == "other_messages":
        text = f"the device {device!r} sends {listed(facts.types)}, and no offer"
        return (Finding("no_offer", text, "check that the device knows `request-offer`, and its log"),)
    if facts.outcome == "bad_sdp":
        text = f"the offer cannot be used: {shown(facts.reason)}"
        return (Finding("bad_offer", text, "compare the SDP with that of a real device; a filter or proxy may cut it"),)
    if facts.outcome == "gone":
        text = f"the device {device!r} has left: {shown(facts.reason)}"
        return (Finding("device_gone", text, f"it has crashed or restarted: {RESTART}"),)
    text = f"signaling ended before the offer: {shown(facts.reason)}"
    return (Finding("signaling_closed", text, "look into the log of the server"),)


def judge_answer(facts: AnswerFacts) -> tuple[Finding, ...]:
    """Judges the answer of this side and its candidates."""
    if facts.outcome == "refused":
        text = f"no answer to the offer is possible: {shown(facts.reason)}"
        fix = "compare the codecs of the offer with H.264 and VP8, which the probe has"
        return (Finding("answer_impossible", text, fix),)
    if facts.outcome == CLOSED:
        text = f"signaling ended before the answer: {shown(facts.reason)}"
        return (Finding("signaling_closed", text, "look into the log of the server"),)
    if not facts.local:
        text = "this machine has no address for ICE"
        return (Finding("no_local_candidates", text, "check its network: ICE takes all but loopback addresses"),)
    types = {candidate.type for candidate in facts.local}
    has_turn = any(url.startswith("turn") for url in facts.urls)
    if has_turn and "relay" not in types:
        text = "no TURN server has given this side an address"
        return (Finding("no_relay_candidate", text, "run the probe with --turn: it tells why", is_error=False),)
    has_stun = any(url.startswith("stun") for url in facts.urls)
    if has_stun and not types & {"srflx", "relay"}:
        text = "no STUN server has answered"
        fix = "open UDP to it; without it peers behind NAT are not reached"
        return (Finding("no_stun_answer", text, fix, is_error=False),)
    return ()
