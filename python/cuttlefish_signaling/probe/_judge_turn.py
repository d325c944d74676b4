"""Judgement of TURN servers: facts to findings."""

from __future__ import annotations

import ipaddress

from ._facts import TIMEOUT, UNREACHABLE, TurnFacts
from ._report import Finding
from ._words import shown

_NEW = "give `serve` a fresh credential: --turn with --turn-secret-file makes them for each peer (docs/tokens.md)"


def judge_turn(all_facts: tuple[TurnFacts, ...]) -> tuple[Finding, ...]:
    """Judges all TURN servers. One that works is enough for a session: the faults of others are warnings then."""
    if not all_facts:
        fix = "give `serve` a TURN server (--turn, --turn-secret-file), or --turn-server here"
        return (Finding("no_turn", "the server hands out no TURN server", fix),)
    found = [finding for facts in all_facts for finding in judge_one(facts)]
    if any(facts.outcome == "allocated" for facts in all_facts):
        found = [Finding(one.cause, one.text, one.fix, is_error=False) for one in found]
    return tuple(found)


def judge_one(facts: TurnFacts) -> tuple[Finding, ...]:
    """Judges one TURN server."""
    url = shown(facts.url)
    if facts.outcome == "allocated":
        return _relayed(facts)
    if facts.outcome == "refused":
        return (_refused(facts),)
    if facts.outcome == TIMEOUT:
        fix = "start coturn, open its port (3478, UDP and TCP) on the way, or try ?transport=tcp"
        return (Finding("turn_silent", f"{url}: no answer", fix),)
    if facts.outcome == "unknown_name":
        fix = "correct the URL, or use a name that each peer knows"
        return (Finding("turn_name_unknown", f"{url}: the name cannot be looked up", fix),)
    if facts.outcome == UNREACHABLE:
        fix = "start coturn, and check its listening-ip and port"
        return (Finding("turn_unreachable", f"{url}: {shown(facts.reason)}", fix),)
    if facts.outcome == "tls":
        fix = "give coturn a certificate for this name (cert, pkey), or use turn: in the place of turns:"
        return (Finding("turn_tls", f"{url}: the TLS handshake fails: {shown(facts.reason)}", fix),)
    if facts.outcome == "bad_url":
        fix = "write turn:HOST:PORT?transport=udp, ?transport=tcp, or turns:HOST:PORT"
        return (Finding("turn_bad_url", f"{url} is no URL of a TURN server", fix),)
    return (Finding("turn_failed", f"{url}: {shown(facts.reason)}", "look into the log of the TURN server"),)


def _refused(facts: TurnFacts) -> Finding:
    url, code = shown(facts.url), facts.code
    said = f"{code} {shown(facts.reason)}".strip()
    if code in (401, 403, 438, 441) and facts.expires_in is not None and facts.expires_in <= 0:
        text = f"{url}: the credential expired {-facts.expires_in:.0f} s ago ({said})"
        fix = f"{_NEW}; if it is fresh, the clocks of the two servers differ: synchronise them (NTP)"
        return Finding("turn_credential_expired", text, fix)
    if code == 401 and not facts.has_credentials:
        return Finding("turn_credential_missing", f"{url}: asks for a credential ({said})", _NEW)
    if code in (401, 441):
        text = f"{url}: the username or the password is wrong ({said})"
        fix = "compare --turn-secret-file of `serve` with static-auth-secret of coturn, and the realms"
        return Finding("turn_wrong_password", text, fix)
    if code == 403:
        return Finding(
            "turn_forbidden", f"{url}: refused ({said})", "check allowed-peer-ip and denied-peer-ip of coturn"
        )
    if code == 486:
        text = f"{url}: the user has too many allocations ({said})"
        return Finding("turn_quota", text, "raise user-quota of coturn, or give peers usernames of their own")
    if code == 508:
        text = f"{url}: no port is free for an allocation ({said})"
        return Finding("turn_full", text, "raise total-quota, or widen min-port and max-port of coturn")
    return Finding("turn_refused", f"{url}: refuses the allocation ({said})", "look into the log of the TURN server")


def _relayed(facts: TurnFacts) -> tuple[Finding, ...]:
    try:
        relayed, server = ipaddress.ip_address(facts.relayed), ipaddress.ip_address(facts.server_address)
    except ValueError:
        return ()
    if not server.is_private and (relayed.is_private or relayed.is_unspecified):
        text = f"{shown(facts.url)}: the relayed address {relayed} is private, and the server's {server} is not"
        fix = "set external-ip of coturn to its public address: peers cannot reach the private one"
        return (Finding("turn_relay_private", text, fix),)
    if facts.expires_in is not None and facts.expires_in < 60:
        text = f"{shown(facts.url)}: the credential expires in {facts.expires_in:.0f} s"
        return (Finding("turn_credential_expires_soon", text, "raise --turn-ttl", is_error=False),)
    return ()
