"""The effect of a reload on each setting."""

from __future__ import annotations

AT_ONCE = "at once"
"""The next request, connection or call is under the new value. Connections stay."""

NEW_CONNECTIONS = "new connections"
"""Connections that are there keep the old value."""

RESTART = "restart"
"""A server that runs cannot change it."""

_RESTART = """
    host port listen sockets metrics control_api operator no_tls device_socket control_socket dashboard journal workers
    cluster_name cluster_listen cluster_address cluster_ca node device_id_template
    cluster_on_outage upstream upstream_ca upstream_insecure upstream_timeout
    log_format log_file log_file_size audit_log
"""

_NEW_CONNECTIONS = """
    advertise_address
    device_wait_timeout on_duplicate one_client_per_device on_token_expiry keepalive.interval keepalive.timeout
    limits.max_message_size limits.max_first_message limits.max_device_id limits.max_clients_per_device
    limits.message_per_second limits.message_burst limits.byte_per_second limits.byte_burst
    limits.error_per_second limits.error_burst limits.ping_per_second limits.ping_burst
    limits.write_timeout limits.outbox_bytes limits.borrow_timeout limits.max_message_age
    limits.device_high_water limits.device_low_water limits.client_window_bytes limits.client_window_messages
    limits.held_bytes limits.first_message_timeout limits.request_head_timeout limits.max_headers
    limits.max_request_head limits.tls_handshake_timeout limits.handshake_turn limits.close_timeout
    limits.goodbye_timeout limits.polled_timeout limits.max_adb_message limits.adb_timeout
"""

_AT_ONCE = """
    cluster cluster_secret_file operator_defaults tls_cert tls_key state_dir tls tls_check_interval
    stun turn turn_secret turn_secret_file turn_ttl
    ice_servers ice_servers_command ice_servers_timeout ice_servers_ttl
    filter_device_info authorize hooks token_file control_token control_token_file hook_timeout jwt jwt_keys jwt_issuer
    jwt_audience jwt_leeway jwt_identity jwt_devices jwt_rights jwt_value jwt_needed_for jwt_allow_no_exp jwt_max_token
    jwt_max_keys jwt_check_interval client_ids
    allowed_hosts allowed_origins trusted_proxies allow_unauthenticated
    assets_dir proxy_device_files adb devices_format access_log log_level drain drain_spread stop_timeout
    limits.max_connections limits.max_connections_per_address limits.new_per_second limits.max_opening
    limits.max_node_dials limits.max_node_dial_queue limits.max_node_idle
    limits.opening_silence limits.max_handshakes limits.max_device_socket_connections limits.max_control_connections
    limits.refusals_logged_per_second limits.max_devices limits.outbox_budget limits.probe_timeout
    limits.journal_entries limits.journal_bytes limits.held_by_faults limits.held_by_faults_bytes
    limits.max_polled limits.max_viewers limits.max_viewers_per_address limits.viewer_bytes
    limits.viewer_bytes_per_second limits.requests_logged_per_second limits.max_metrics_connections
    limits.request_per_second limits.request_burst limits.address_request_per_second limits.address_request_burst
    limits.proxy_timeout limits.max_adb limits.hook_threads limits.hook_queue
    limits.max_control_api_connections limits.max_control_api_requests limits.control_api_wait limits.control_api_body
    limits.control_api_page limits.audit_queue
"""

RELOAD: dict[str, str] = {
    path: when
    for when, paths in ((RESTART, _RESTART), (NEW_CONNECTIONS, _NEW_CONNECTIONS), (AT_ONCE, _AT_ONCE))
    for path in paths.split()
}
"""The row of each setting by its path. `limits` and `keepalive` themselves have none: their fields have."""
