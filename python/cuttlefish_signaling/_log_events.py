"""The table of log events: the name, level, fields and meaning of each record of the logger `cuttlefish_signaling`.

`docs/observing.md` is made from it, and `tests/python/test_log_events.py` compares it with each place that logs.
"""

from __future__ import annotations

from typing import NamedTuple


class LogEvent(NamedTuple):
    """One kind of record."""

    name: str
    """The value of `record.event`. It is stable: a changed name is told in CHANGELOG.md."""
    level: str
    """The level of its records."""
    fields: str
    """The further attributes of its records, separated by spaces. A field without a value is missing."""
    text: str
    """The meaning, for the reference."""


FIELDS = {
    "event": "The name of the event.",
    "device_id": "The id of the device.",
    "client_id": "The id of the client, a number.",
    "peer": "The address and port of the peer; `a local peer` for a peer without an address.",
    "role": "`device`, `client` or `http`.",
    "code": "The code of the close frame, or the status of the HTTP response.",
    "reason": "The text for the peer, or the error, cut at 1,024 bytes. Words of a peer may be in it.",
    "duration": "Seconds: since the peer connected, or from the request to the end of its response.",
    "hook": "The name of the hook.",
    "method": "The method of the request.",
    "path": "The decoded path of the request, without its query. `{id}` stands for the id of a polled connection.",
    "status": "The status of the response.",
    "bytes": "The bytes of the response's body.",
    "user_agent": "The header `User-Agent`.",
    "left_out": "Records that the rate has left out since the last one.",
    "version": "The version of the package.",
    "listeners": "The listeners, as `--listen`, `--metrics` and `--control-api` have them, separated by spaces.",
    "settings_digest": "16 hexadecimal digits, which differ if a setting differs. Secrets do not count.",
    "to_device": "Bytes to the device.",
    "from_device": "Bytes from the device.",
    "node": "The name of a node of the cluster.",
    "nodes": "The number of nodes of the cluster that have a lease.",
    "address": "The `HOST:PORT` at which other nodes should reach a node.",
}
"""The attributes of records, and the keys of JSON lines."""

EVENTS = (
    LogEvent("starting", "info", "version listeners settings_digest", "The first record of `serve`."),
    LogEvent("listening", "info", "listeners", "`serve` accepts connections, at these URLs."),
    LogEvent("stopping", "info", "reason", "`serve` was told to stop."),
    LogEvent("reloaded", "info", "reason", "`serve` has read its settings again; the reason names those that changed."),
    LogEvent("reload_failed", "error", "reason", "The settings have a fault. All old ones stay in effect."),
    LogEvent("reload_stopped", "warning", "", "The server was told to stop before a reload was done."),
    LogEvent("draining", "info", "duration", "The server is not ready, and its connections go on for this time."),
    LogEvent("closing", "info", "duration", "The server closes its connections over this time."),
    LogEvent("drain_ended", "info", "", "Another signal has ended the drain."),
    LogEvent("device_registered", "info", "device_id peer", "A device has registered."),
    LogEvent("device_left", "info", "device_id peer duration", "The connection of a device has ended."),
    LogEvent("client_connected", "info", "device_id client_id peer", "A client has connected to a device."),
    LogEvent("client_waiting", "info", "device_id peer", "A client waits for a device to register."),
    LogEvent("client_left", "info", "device_id client_id peer duration", "The connection of a client has ended."),
    LogEvent(
        "peer_closed",
        "info",
        "role device_id peer code reason left_out",
        "The server closes a peer, for another reason than 1000 and 1001.",
    ),
    LogEvent("peer_silent", "info", "role device_id peer left_out", "A peer has not answered a ping, and is dropped."),
    LogEvent(
        "error_withheld", "info", "role peer reason left_out", "A Cuttlefish device broke a rule. It is sent no error."
    ),
    LogEvent("request_unauthorized", "info", "role peer code reason left_out", "A hook has refused a request."),
    LogEvent(
        "control_refused",
        "info",
        "peer code reason left_out",
        "A request to the control API is of a page, or has no token.",
    ),
    LogEvent("control_disconnects", "info", "device_id client_id", "The control API disconnects a peer."),
    LogEvent("request_foreign", "info", "peer code reason left_out", "`Host` or `Origin` is not allowed."),
    LogEvent("local_peer_refused", "info", "reason left_out", "A local socket has as many connections as it may."),
    LogEvent("refusals_left_out", "info", "left_out", "Records about refusals that their rate has left out."),
    LogEvent(
        "http_request",
        "info",
        "method path status bytes duration peer user_agent left_out",
        "A response has ended; `--access-log`.",
    ),
    LogEvent("requests_left_out", "info", "left_out", "Records about requests that their rate has left out."),
    LogEvent("dashboard_disconnects", "info", "device_id client_id peer", "A viewer disconnects a device or a client."),
    LogEvent("dashboard_exports", "info", "device_id peer", "A viewer exports the payloads of a device."),
    LogEvent("adb_opened", "info", "device_id peer", "A client has opened the adb port of a device."),
    LogEvent(
        "adb_closed", "info", "device_id peer code reason duration to_device from_device", "That connection has ended."
    ),
    LogEvent(
        "adb_refused",
        "warning",
        "device_id peer code reason",
        "A request for adb was closed without a connection to the device.",
    ),
    LogEvent(
        "device_files_failed",
        "info",
        "device_id reason left_out",
        "The web server of a device cannot be reached, or gives no final answer.",
    ),
    LogEvent(
        "hook_failed",
        "error",
        "hook device_id role peer reason",
        "A hook raised, took too long, returned invalid data or was not called.",
    ),
    LogEvent("hook_failures_dropped", "error", "left_out", "Further calls of hooks had no answer."),
    LogEvent("hook_thread_failed", "warning", "reason", "No further hook thread can be started."),
    LogEvent("hook_hangs", "warning", "reason", "The server has stopped, and a hook keeps its thread."),
    LogEvent("ice_command_failed", "error", "reason", "The command for ICE servers has failed."),
    LogEvent("upstream_failed", "info", "peer code reason", "The server behind a proxy has given no answer."),
    LogEvent("turn_failed", "error", "reason", "No TURN credentials can be made."),
    LogEvent("listening_open", "warning", "listeners", "Other machines reach the server without `authorize`."),
    LogEvent("accept_failed", "warning", "reason", "No connection can be accepted, and the server tries again."),
    LogEvent("listener_failed", "error", "reason", "The system does not watch a listening socket."),
    LogEvent("timer_failed", "error", "reason", "The system sets no timer, and deadlines will be missed."),
    LogEvent("bug", "error", "peer reason", "A bug of the server has ended a connection."),
    LogEvent("setting_ignored", "warning", "reason", "A variable or a line of a file has no effect."),
    LogEvent("faults_armed", "warning", "reason", "The config file has faults, which `serve` has armed; for tests."),
    LogEvent("fault_overran", "warning", "reason", "A fault of the config file held more than it may, and dropped it."),
    LogEvent("certificate_created", "info", "reason", "`serve` has written a certificate or an authority."),
    LogEvent("certificate_replaced", "warning", "reason", "A certificate or an authority that was kept is replaced."),
    LogEvent("audit_dropped", "warning", "reason", "Records of the audit log are dropped, since too many wait."),
    LogEvent("audit_failed", "error", "reason", "The audit log cannot be written. Records are dropped and counted."),
    LogEvent("audit_resumed", "info", "left_out", "The audit log is written again, without the records left out."),
    LogEvent("token_keys_taken", "info", "", "New requests are judged by new keys of token issuers."),
    LogEvent("token_keys_refused", "warning", "reason", "The files of new keys of token issuers cannot be used."),
    LogEvent("certificate_taken", "info", "", "New connections get a renewed certificate."),
    LogEvent("certificate_refused", "warning", "reason", "The files of a renewed certificate cannot be used."),
    LogEvent("certificate_check_failed", "error", "reason", "The files of the certificate cannot be checked."),
    LogEvent("certificate_not_kept", "warning", "reason", "The certificate is kept in memory only."),
    LogEvent("stdout_failed", "warning", "reason", "The URLs cannot be written to stdout."),
    LogEvent("records_dropped", "warning", "left_out", "The server logged faster than handlers took records."),
    LogEvent("tls_failed", "debug", "peer reason", "A TLS handshake has failed or took too long."),
    LogEvent("http_failed", "debug", "peer reason", "A connection for HTTP has ended with an error."),
    LogEvent("connection_lost", "debug", "role peer reason", "The connection of a peer has failed."),
    LogEvent("close_timeout", "debug", "role peer", "A peer has not completed the closing handshake in time."),
    LogEvent(
        "cluster_ice_servers_invalid",
        "warning",
        "reason",
        "This node cannot use the ICE servers that another node has set.",
    ),
    LogEvent("polled_client_gone", "debug", "role peer", "A polled client has sent no request for too long."),
    LogEvent("socket_option_failed", "debug", "peer reason", "The system has refused an option of a socket."),
    LogEvent("reset_failed", "warning", "reason", "A connection cannot be reset, and ends as others do."),
    LogEvent("cluster_joined", "info", "node nodes", "This node has joined its cluster."),
    LogEvent("cluster_left", "info", "node", "This node has left its cluster, since it stops."),
    LogEvent("cluster_secret_replaced", "info", "node", "All records of this node are signed with another secret."),
    LogEvent("cluster_engine_lost", "warning", "reason", "The engine cannot be used. The node tries again."),
    LogEvent("cluster_forgotten", "warning", "node", "The registry has no lease of this node, which joins again."),
    LogEvent("cluster_place_invalid", "warning", "reason", "A pre-registration of another node cannot be read."),
    LogEvent("cluster_paused", "warning", "duration", "This process was paused. Other nodes count it as gone."),
    LogEvent("cluster_unsigned", "warning", "reason", "A record of the registry has no valid signature."),
    LogEvent("cluster_name_taken", "error", "node address", "Another node that is alive has the name of this one."),
    LogEvent("cluster_address", "warning", "node address reason", "A node has an address that leads elsewhere."),
    LogEvent("cluster_unreachable", "warning", "node address reason", "Another node cannot be reached."),
    LogEvent("cluster_reachable", "info", "node address", "A node that could not be reached can be reached again."),
    LogEvent(
        "cluster_request_refused",
        "info",
        "peer code reason left_out",
        "The listener for nodes has refused a request: the first one of its sender for this reason.",
    ),
    LogEvent("cluster_settings_differ", "warning", "node", "Another node has other settings."),
    LogEvent("cluster_disconnects", "info", "device_id client_id", "Another node disconnects a peer."),
    LogEvent(
        "cluster_request_failed", "debug", "node reason", "A request cannot be passed on to the node of a device."
    ),
    LogEvent("cluster_search_failed", "debug", "node device_id reason", "The node of a device cannot be reached."),
)
"""All events."""

LEVELS = {event.name: event.level for event in EVENTS}
