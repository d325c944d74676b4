"""Judgement of HTTP answers, WebSocket handshakes, pings and the list of devices: facts to findings."""

from __future__ import annotations

from ._facts import CLOSED, TIMEOUT, DevicesFacts, EndpointFacts, HttpFacts, PingFacts
from ._judge_network import HTTP_1
from ._report import Finding
from ._words import listed, shown

_PATH = "correct the path of the URL: the server may be below a prefix, or another program has the port"


def judge_http(facts: HttpFacts) -> tuple[Finding, ...]:
    """Judges the answer to a GET. 404 is no fault: other servers have other paths."""
    if facts.outcome != "answered":
        return (_no_answer(facts),)
    status = facts.status
    if 300 <= status < 400:
        return (redirect(facts.location),)
    if status in (401, 403, 407):
        return (refused(status, facts.error, has_token=facts.has_token, origin=facts.origin),)
    if status == 429:
        fix = "wait, or raise the limits of requests for this address"
        return (Finding("too_many_requests", "the server refuses more requests for now (429)", fix),)
    if status in (502, 504):
        text = f"a proxy answers {status}: it does not reach the server behind it"
        return (Finding("proxy_without_server", text, "start the server, or correct its address in the proxy"),)
    if status == 503:
        said = f": {shown(facts.error)}" if facts.error else ""
        text = f"the server is not ready (503){said}"
        return (Finding("not_ready", text, "wait until it has started or drained, or raise its limits"),)
    if status >= 500:
        text = f"the server answers {status}: {shown(facts.error)}".rstrip(": ")
        return (Finding("server_error", text, "look into the log of the server"),)
    return ()


def _no_answer(facts: HttpFacts) -> Finding:
    if facts.outcome == "silent":
        text = "the server has accepted the connection, and sends nothing"
        return Finding("http_silent", text, "check that the port is that of the server, and that it does not hang")
    if facts.outcome == "slow":
        text = "the server has sent a part of an answer only"
        return Finding("http_slow", text, "check the load of the server, and the network; --timeout gives more time")
    if facts.outcome == CLOSED:
        text = "the server closes the connection without an answer"
        fix = "check the log: it may be full (503 without time for it), or refuse this address, or speak TLS only"
        return Finding("http_closed", text, fix)
    if facts.outcome == "tls":
        return Finding("speaks_tls", "the server speaks TLS on this port", "write wss:// or https://")
    if facts.outcome == "http2":
        return Finding("http2_only", "the server speaks HTTP/2 alone", HTTP_1)
    if facts.outcome == "garbage":
        text = f"the server does not speak HTTP; it sends {shown(facts.reason)!r}"
        return Finding("not_http", text, "correct the port: another program listens there")
    text = f"the connection fails: {shown(facts.reason)}"
    return Finding("http_failed", text, "check the log of the server, and proxies on the way")


def redirect(location: str) -> Finding:
    """Returns the finding of a redirect, which neither devices nor browsers follow for a WebSocket."""
    text = f"the server redirects to {shown(location) or 'an unknown place'}; WebSockets do not follow"
    return Finding("redirect", text, "give that URL to the peers, or have the proxy pass on the request")


def refused(status: int, error: str, *, has_token: bool, origin: str) -> Finding:
    """Returns the finding of a refusal: host, origin, token."""
    said = f": {shown(error)}" if error else ""
    if error.startswith("Host not allowed"):
        return Finding("wrong_host", f"the server refuses this name{said}", "give `serve` the flag --allow-host NAME")
    if error.startswith(("Origin not allowed", "Pages of other sites")):
        text = f"the server refuses pages of the origin {shown(origin) or 'none'}{said}"
        return Finding("wrong_origin", text, "give `serve` the flag --allow-origin ORIGIN")
    if status == 407:
        return Finding("proxy_login", "a proxy asks for a login (407)", "reach the server without this proxy")
    if has_token:
        fix = "give a token that the server knows (--token-file of `serve`), or one whose grant has this device"
        return Finding("wrong_token", f"the server refuses the token ({status}){said}", fix)
    if status == 401:
        fix = "give --token-file FILE, or log in at the proxy"
        return Finding("token_missing", f"the server asks for a token (401){said}", fix)
    fix = "give --token-file FILE if it has an `authorize` hook, else look into the log of the server or proxy"
    return Finding("forbidden", f"the server refuses the request ({status}){said}", fix)


def judge_endpoint(facts: EndpointFacts) -> tuple[Finding, ...]:
    """Judges a WebSocket handshake."""
    if facts.outcome == "open":
        return _subprotocol(facts)
    path = shown(facts.path)
    if facts.outcome == "status":
        return (_status(facts),)
    if facts.outcome == TIMEOUT:
        text = f"{path}: no answer to the WebSocket handshake"
        fix = "check that the proxy passes on `Upgrade`, and that the `authorize` hook does not hang"
        return (Finding("websocket_silent", text, fix),)
    if facts.outcome == CLOSED:
        text = f"{path}: the connection ends during the WebSocket handshake"
        return (Finding("websocket_closed", text, "look into the log of the server, and of a proxy before it"),)
    text = f"{path}: no WebSocket: {shown(facts.reason)}"
    return (Finding("bad_handshake", text, "check that the proxy passes on `Upgrade` and `Connection`"),)


def _status(facts: EndpointFacts) -> Finding:
    path, status = shown(facts.path), facts.status
    if 300 <= status < 400:
        return redirect(facts.location)
    if status in (401, 403, 407):
        one = refused(status, facts.error, has_token=facts.has_token, origin=facts.origin)
        return Finding(one.cause, f"{path}: {one.text}", one.fix)
    if status == 404:
        return Finding("no_endpoint", f"{path}: not found (404)", _PATH)
    if status in (200, 400, 405, 426):
        text = f"{path}: answered {status} and not 101"
        fix = "have the proxy pass on `Upgrade` and `Connection` with HTTP/1.1 (docs/proxies.md)"
        return Finding("upgrade_lost", text, fix)
    found = judge_http(HttpFacts(facts.path, status=status, error=facts.error))
    if found:
        return Finding(found[0].cause, f"{path}: {found[0].text}", found[0].fix)
    text = f"{path}: answered {status} {shown(facts.error)}".rstrip()
    return Finding("handshake_refused", text, "look into the log of the server")


def _subprotocol(facts: EndpointFacts) -> tuple[Finding, ...]:
    if facts.subprotocol == facts.wanted_subprotocol:
        return ()
    text = f"{shown(facts.path)}: the server does not select the sub-protocol {facts.wanted_subprotocol}"
    fix = "have the proxy pass on `Sec-WebSocket-Protocol`: a legacy device offers it and needs it"
    return (Finding("subprotocol_not_selected", text, fix),)


def judge_ping(facts: PingFacts) -> tuple[Finding, ...]:
    """Judges the pongs."""
    got = f"{len(facts.seconds)} of {facts.wanted} pings were answered"
    if facts.outcome == "answered":
        return ()
    if facts.outcome == CLOSED:
        text = f"{got}, then the connection ended: {shown(facts.reason)}"
        return (Finding("closed_at_once", text, "look into the log of the server, and of a proxy before it"),)
    fix = "have the proxy pass on WebSocket frames at once, without a buffer; a peer without pongs is dropped"
    return (Finding("no_pong", got, fix),)


def judge_devices(facts: DevicesFacts) -> tuple[Finding, ...]:
    """Judges the list of devices. Without a list, a device may be there: that is a warning."""
    if facts.ids is None:
        found = judge_http(facts.http)
        if found:
            return (Finding(found[0].cause, f"no list of devices: {found[0].text}", found[0].fix, is_error=False),)
        text = f"no list of devices: GET {shown(facts.http.path)} answers {facts.http.status}"
        fix = "this server and the current operator have a list; others may do without"
        return (Finding("no_device_list", text, fix, is_error=False),)
    if facts.device_id is not None and facts.device_id not in facts.ids:
        return (device_missing(facts.device_id, facts.ids),)
    if not facts.ids:
        return (Finding("no_devices", "no device is registered", _REGISTER, is_error=False),)
    return ()


_REGISTER = (
    "start the device with the address of this server (docs/cuttlefish.md), and look for `registered` in the log; "
    "a token may not have a grant for it"
)


def device_missing(device_id: str, ids: tuple[str, ...]) -> Finding:
    """Returns the finding of a device that is not registered."""
    there = f"; there are {listed(ids)}" if ids else "; no device is"
    return Finding("device_not_registered", f"the device {shown(device_id)!r} is not registered{there}", _REGISTER)
