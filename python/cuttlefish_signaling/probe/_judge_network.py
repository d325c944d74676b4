"""Judgement of names, TCP and TLS: facts to findings. Nothing here does I/O."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator

from ._facts import REFUSED, TIMEOUT, UNREACHABLE, Attempt, Certificate, DnsFacts, TlsFacts
from ._report import Finding
from ._words import listed, shown

EXPIRED, NOT_YET, WRONG_NAME, WRONG_ADDRESS = 10, 9, 62, 64
"""Verify codes of OpenSSL that the facts tell better."""

_OWN_CA = "`cuttlefish-signaling serve --print-ca > ca.pem` prints it on the server's machine; then give --ca ca.pem"


def judge_dns(facts: DnsFacts) -> tuple[Finding, ...]:
    """Judges the answer for the name."""
    host = shown(facts.host)
    if facts.outcome == "resolved":
        return ()
    if facts.outcome == "unknown":
        return (
            Finding(
                "dns_name_unknown",
                f"the name {host} does not exist",
                "correct the spelling, add the name to DNS or to /etc/hosts, or give the address; "
                "a name inside a VPN or a cluster is known only there",
            ),
        )
    if facts.outcome == TIMEOUT:
        text = f"no DNS server has answered for {host}"
    else:
        text = f"{host} cannot be looked up: {shown(facts.reason)}"
    fix = "check the network and the name servers in /etc/resolv.conf"
    return (Finding("dns_unavailable", text, fix),)


def judge_tcp(attempts: tuple[Attempt, ...]) -> tuple[Finding, ...]:
    """Judges the connections to all addresses."""
    failed = [one for one in attempts if one.outcome != "connected"]
    if not failed:
        return ()
    where = listed(f"{one.address} ({one.reason or one.outcome})" for one in failed)
    if len(failed) < len(attempts):
        fix = "remove these addresses from DNS, or open them: a peer that tries them first is slow to connect"
        return (Finding("tcp_some_addresses_fail", f"no connection to {where}", fix, is_error=False),)
    port = failed[0].port
    outcomes = {one.outcome for one in failed}
    if REFUSED in outcomes:
        fix = (
            f"start the server, or correct the port; `ss -ltn` there shows whether {port} is open, and on which address"
        )
        return (Finding("port_closed", f"port {port} is closed: {where}", fix),)
    if TIMEOUT in outcomes:
        fix = f"a firewall drops packets to TCP port {port}, or the machine is off: open the port on the way"
        return (Finding("tcp_timeout", f"no answer from {where}", fix),)
    if UNREACHABLE in outcomes:
        return (Finding("unreachable", f"no route to {where}", "check the network, the VPN and the address"),)
    return (Finding("tcp_failed", f"no connection to {where}", "check the address and the port"),)


def judge_tls(facts: TlsFacts) -> tuple[Finding, ...]:
    """Judges the handshake and the certificates."""
    if facts.outcome not in ("verified", "unverified"):
        return (_failed_handshake(facts),)
    findings = list(_certificate_findings(facts))
    if facts.outcome == "unverified" and not findings:
        fix = "replace the certificate, or give its authority with --ca"
        findings.append(Finding("certificate_refused", f"the certificate is refused: {shown(facts.reason)}", fix))
    if facts.insecure:
        findings = [Finding(one.cause, one.text, one.fix, is_error=False) for one in findings]
    return tuple(findings)


def _failed_handshake(facts: TlsFacts) -> Finding:
    if facts.outcome == "not_tls":
        fix = "write ws:// or http://, or switch TLS on: `serve` has it unless --no-tls is given"
        return Finding("not_tls", "the server does not speak TLS on this port", fix)
    if facts.outcome == "no_http_1":
        return Finding("http2_only", "the server offers HTTP/2 alone (ALPN)", HTTP_1)
    if facts.outcome == TIMEOUT:
        fix = "check that the port is that of the server, and that no proxy waits for a client certificate"
        return Finding("tls_silent", "the server does not answer the TLS handshake", fix)
    if facts.outcome == "closed":
        fix = "check the log of the server or of the proxy: it has no certificate for this name, or limits connections"
        return Finding("tls_closed", "the server closes the connection during the TLS handshake", fix)
    fix = "check the TLS versions and ciphers of the server or of the proxy"
    return Finding("tls_failed", f"the TLS handshake fails: {shown(facts.reason)}", fix)


HTTP_1 = "enable HTTP/1.1: devices and browsers open WebSockets with it"
"""The fix for a server that speaks HTTP/2 only."""


def _certificate_findings(facts: TlsFacts) -> Iterator[Finding]:
    leaf = facts.chain[0] if facts.chain else None
    for certificate in facts.chain:
        if finding := _dates(certificate, facts):
            yield finding
    dates = (EXPIRED, NOT_YET)
    if facts.verify_code in dates and not any(_dates(one, facts) for one in facts.chain):
        yield Finding("certificate_expired", f"a certificate is refused: {shown(facts.reason)}", "renew it")
    is_other = leaf is not None and bool(leaf.names) and not names_match(facts.host, leaf.names)
    if facts.verify_code in (WRONG_NAME, WRONG_ADDRESS) or is_other:
        names = listed(leaf.names) if leaf and leaf.names else "no name"
        yield Finding(
            "certificate_wrong_name",
            f"the certificate is for {names}, not for {shown(facts.host)}",
            "connect by one of these names, or make a certificate for this one (`serve --allow-host NAME`)",
        )
    if facts.verify_code and facts.verify_code not in (*dates, WRONG_NAME, WRONG_ADDRESS):
        yield _untrusted(facts, leaf)
    days = (leaf.expires - facts.now) / 86400 if leaf else facts.expiry_days
    if leaf and 0 <= days < facts.expiry_days:
        text = f"the certificate expires in {days:.1f} days, at {_date(leaf.expires)}"
        fix = "renew it; `serve` renews its own in the last 30 days"
        yield Finding("certificate_expires_soon", text, fix, is_error=False)


def _dates(certificate: Certificate, facts: TlsFacts) -> Finding | None:
    name = shown(certificate.subject)
    if certificate.expires < facts.now:
        text = f"the certificate of {name} has expired at {_date(certificate.expires)}"
        fix = "renew it, and reload the server (SIGHUP); if the date is right, the clock of this machine is wrong"
        return Finding("certificate_expired", text, fix)
    if certificate.begins > facts.now:
        text = f"the certificate of {name} is valid from {_date(certificate.begins)} only"
        return Finding("certificate_not_yet_valid", text, "correct the clock of this machine or of the server")
    return None


def _untrusted(facts: TlsFacts, leaf: Certificate | None) -> Finding:
    issuer = f", which {shown(leaf.issuer)} has signed," if leaf and leaf.issuer != leaf.subject else ""
    text = f"the certificate{issuer} is not trusted: {shown(facts.reason)}"
    if len(facts.chain) == 1 and leaf and leaf.issuer != leaf.subject:
        fix = f"have the server send the intermediate certificates, or trust the authority: {_OWN_CA}"
    else:
        fix = f"trust its authority: {_OWN_CA}; --insecure goes on without, as a Cuttlefish device does"
    return Finding("certificate_untrusted", text, fix)


def names_match(host: str, names: tuple[str, ...]) -> bool:
    """Whether a certificate with these names is for the host. RFC 6125: a `*` stands for one label, the first."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        labels = host.lower().rstrip(".").split(".")
        wanted = {".".join(labels), ".".join(["*", *labels[1:]])}
        return any(name.lower() in wanted for name in names)
    return any(_address(name) == address for name in names)


def _address(name: str) -> object:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
