"""Judgement of ICE, DTLS, video and data channels: facts to findings."""

from __future__ import annotations

import ipaddress

from ._facts import Candidate, DataFacts, DtlsFacts, IceFacts, MediaFacts
from ._judge_session import RESTART
from ._report import Finding
from ._words import listed, shown

CONNECTED = ("completed", "connected")
"""States of ICE with a pair that works."""

_TURN = "add a TURN server (`serve --turn ... --turn-secret-file ...`) that both sides reach"


def judge_ice(facts: IceFacts) -> tuple[Finding, ...]:
    """Judges the checks. Where they fail, the candidates tell the most likely cause."""
    tcp = [one for one in facts.remote if one.protocol.lower() != "udp"]
    udp = [one for one in facts.remote if one.protocol.lower() == "udp"]
    if facts.state in CONNECTED:
        return ()
    if facts.error:
        text = f"signaling ended while ICE was {facts.state}: {shown(facts.error)}"
        return (Finding("signaling_closed", text, f"the device or the server has ended: {RESTART}"),)
    if not facts.remote:
        text = "the device has sent no ICE candidates"
        fix = f"it has no network, or they are lost on the way: {RESTART}"
        return (Finding("no_remote_candidates", text, fix),)
    if not udp:
        text = f"the device offers TCP candidates only: {_addresses(tcp)}"
        return (Finding("tcp_candidates", text, "the probe speaks UDP: start the device with UDP ports, or use TURN"),)
    if all(one.address.endswith(".local") for one in udp):
        text = f"all candidates of the device are mDNS names ({_addresses(udp)})"
        fix = f"they are known within one network segment alone: switch mDNS off in the browser or device, or {_TURN}"
        return (Finding("mdns_candidates", text, fix),)
    if all(_is_loopback(one) for one in udp) and not any(_is_loopback(one) for one in facts.local):
        text = f"the device is reachable on its own machine only ({_addresses(udp)})"
        fix = f"run the probe there, start the device with the address of the host, or {_TURN}"
        return (Finding("loopback_candidates", text, fix),)
    return (_unreachable(facts, udp),)


def _unreachable(facts: IceFacts, udp: list[Candidate]) -> Finding:
    states = f"ICE is {facts.state} after {facts.seconds:.1f} s; pairs: {_pairs(facts)}"
    has_turn = any(url.startswith("turn") for url in facts.urls)
    is_relayed = any(one.type == "relay" for one in (*facts.local, *udp))
    if not has_turn and not is_relayed:
        text = f"no packet gets through to {_addresses(udp)}, and there is no TURN server; {states}"
        fix = f"open UDP to the device (Cuttlefish: --udp_port_range, 15550 to 15599) in the firewall, or {_TURN}"
        return Finding("ice_unreachable_no_turn", text, fix)
    if not is_relayed:
        text = f"no packet gets through to {_addresses(udp)}, and no TURN server has allocated an address; {states}"
        return Finding("ice_no_relay", text, "run the probe with --turn: it tells why")
    text = f"no packet gets through, not even over TURN; {states}"
    fix = "open the relay ports of coturn (min-port to max-port, UDP) in its firewall, and check external-ip"
    return Finding("ice_relay_unreachable", text, fix)


def _pairs(facts: IceFacts) -> str:
    shown_pairs = [
        f"{one.local.type} {one.local.address} to {one.remote.type} {one.remote.address}:{one.remote.port} {one.state}"
        for one in facts.pairs
    ]
    return listed(shown_pairs) or "none"


def _addresses(candidates: list[Candidate]) -> str:
    return listed(f"{one.address}:{one.port}" for one in candidates)


def _is_loopback(candidate: Candidate) -> bool:
    try:
        return ipaddress.ip_address(candidate.address).is_loopback
    except ValueError:
        return False


def judge_dtls(facts: DtlsFacts) -> tuple[Finding, ...]:
    """Judges the DTLS handshake."""
    if facts.state == "connected":
        return ()
    if facts.error:
        text = f"the connection ended while DTLS was {facts.state}: {shown(facts.error)}"
        return (Finding("signaling_closed", text, f"the device or the server has ended: {RESTART}"),)
    if facts.state == "failed":
        text = "the DTLS handshake fails"
        fix = (
            "compare the fingerprint in the SDP with the device's certificate: a proxy or hook may have changed the SDP"
        )
        return (Finding("dtls_failed", text, fix),)
    text = f"the DTLS handshake is {facts.state} after {facts.seconds:.1f} s"
    fix = "large packets are lost on the way (MTU of a VPN), or the device hangs; lower the MTU"
    return (Finding("dtls_timeout", text, fix),)


def judge_media(facts: MediaFacts) -> tuple[Finding, ...]:
    """Judges the video."""
    if not facts.has_video:
        text = "the offer has no video"
        return (Finding("no_video", text, "start the device with a display (--display0), and check its GPU mode"),)
    if facts.frames == 0 and facts.ended:
        return (Finding("media_ended", f"the connection ended before a frame: {shown(facts.ended)}", RESTART),)
    if facts.frames == 0 and facts.packets == 0:
        text = f"no video packet came in {facts.seconds:.1f} s"
        fix = f"the screen may be off or unchanged: wake the device; else {RESTART}"
        return (Finding("no_packets", text, fix),)
    if facts.frames == 0:
        text = f"{facts.packets} video packets came, and no frame could be decoded"
        return (Finding("no_frame", text, "no key frame came, or the codec is unknown: compare the codecs of the SDP"),)
    found = []
    if facts.loss > facts.max_loss:
        text = f"{facts.loss:.1%} of the packets were lost ({facts.lost} of {facts.packets + facts.lost})"
        fix = "check the network (Wi-Fi, VPN) and the load of the host; lower the resolution or the frame rate"
        found.append(Finding("packet_loss", text, fix))
    if facts.ended:
        text = f"the connection ended after {facts.frames} frames: {shown(facts.ended)}"
        found.append(Finding("media_ended", text, RESTART))
    return tuple(found)


def judge_data(facts: DataFacts) -> tuple[Finding, ...]:
    """Judges the data channels. A device without one shows its screen, and takes no input."""
    if facts.labels:
        return ()
    if not facts.has_section:
        text = "the offer has no data channels: the device takes no input"
        return (Finding("no_data_section", text, "a real device offers them: check its version", is_error=False),)
    waiting = f"; {listed(facts.pending)} did not open" if facts.pending else ""
    text = f"no data channel opened within {facts.seconds:.1f} s{waiting}"
    return (Finding("data_channel_timeout", text, f"SCTP does not get through, or the device opens none: {RESTART}"),)
