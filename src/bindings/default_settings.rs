//! The defaults of the settings, which a test compares with Python's table of settings.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::config::{CLIENT_IDS, DEVICES_FORMAT, ON_DUPLICATE, ON_TOKEN_EXPIRY};
use super::listen::listener_tuple;
use crate::config::control::Control;
use crate::config::rate::Rate;
use crate::config::{Adb, Config, IceSource, Keepalive, Limits};

/// The default of each setting, by the keys that [`super::config::config`] reads. `ice_servers` is the `config` message.
#[pyfunction]
pub(super) fn default_settings(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let defaults = Config::default();
    let settings = PyDict::new(py);
    server(&settings, &defaults)?;
    limits(&settings, &defaults.limits)?;
    rates(&settings, &defaults.limits)?;
    let Keepalive { interval, timeout } = defaults.keepalive;
    settings.set_item("keepalive.interval", interval.map(seconds))?;
    settings.set_item("keepalive.timeout", seconds(timeout))?;
    Ok(settings)
}

fn server(settings: &Bound<'_, PyDict>, defaults: &Config) -> PyResult<()> {
    let ice = match &defaults.ice {
        IceSource::Fixed(servers) => Some(servers.config().as_str().to_owned()),
        IceSource::TurnRest(_) | IceSource::Command(_) | IceSource::Hook => None,
    };
    settings.set_item("host", defaults.host.to_string())?;
    settings.set_item("port", defaults.port)?;
    settings.set_item("listen", defaults.listen.iter().map(listener_tuple).collect::<Vec<_>>())?;
    settings.set_item("sockets", Vec::<i32>::new())?;
    settings.set_item("metrics", defaults.metrics.iter().map(listener_tuple).collect::<Vec<_>>())?;
    settings.set_item("device_socket", defaults.device_socket.as_deref())?;
    settings.set_item("control_socket", defaults.control_socket.as_deref())?;
    settings.set_item("tls", defaults.tls.as_ref().map(|_| "a certificate"))?;
    settings.set_item("tls_check_interval", defaults.tls_check_interval.map(seconds))?;
    settings.set_item("ice_servers", ice)?;
    settings.set_item("device_wait_timeout", defaults.device_wait_timeout.map(seconds))?;
    settings.set_item("on_duplicate", word(&ON_DUPLICATE, defaults.on_duplicate))?;
    settings.set_item("client_ids", word(&CLIENT_IDS, defaults.client_ids))?;
    settings.set_item("hook_timeout", seconds(defaults.hook_timeout))?;
    settings.set_item("devices_format", word(&DEVICES_FORMAT, defaults.devices_format))?;
    settings.set_item("workers", defaults.workers)?;
    control(settings, &defaults.control)?;
    access(settings, defaults)
}

fn control(settings: &Bound<'_, PyDict>, defaults: &Control) -> PyResult<()> {
    settings.set_item("control_api", defaults.listen.iter().map(listener_tuple).collect::<Vec<_>>())?;
    settings.set_item("control_token", defaults.token.as_ref().map(|_| "a token"))?;
    settings.set_item("limits.max_control_api_connections", defaults.max_connections)?;
    settings.set_item("limits.max_control_api_requests", defaults.max_requests)?;
    settings.set_item("limits.control_api_wait", seconds(defaults.max_wait))?;
    settings.set_item("limits.control_api_body", defaults.max_body)?;
    settings.set_item("limits.control_api_page", defaults.max_page)
}

fn access(settings: &Bound<'_, PyDict>, defaults: &Config) -> PyResult<()> {
    settings.set_item("allowed_hosts", &defaults.allowed_hosts)?;
    settings.set_item("trusted_proxies", &defaults.trusted_proxies)?;
    settings.set_item("advertise_address", &defaults.advertise_address)?;
    settings.set_item("allowed_origins", &defaults.allowed_origins)?;
    settings.set_item("allow_unauthenticated", defaults.allow_unauthenticated)?;
    settings.set_item("access_log", defaults.access_log)?;
    settings.set_item("audit_log", defaults.audit_log.as_deref())?;
    settings.set_item("dashboard", defaults.dashboard)?;
    settings.set_item("assets_dir", defaults.assets_dir.as_deref())?;
    settings.set_item("proxy_device_files", defaults.proxy_device_files)?;
    settings.set_item("journal", defaults.journal)?;
    settings.set_item("cluster", defaults.cluster.as_ref().map(|_| "a cluster"))?;
    settings.set_item("one_client_per_device", defaults.one_client_per_device)?;
    settings.set_item("on_token_expiry", word(&ON_TOKEN_EXPIRY, defaults.on_token_expiry))?;
    settings.set_item("jwt", defaults.jwt.as_ref().map(|_| "tokens"))?;
    settings.set_item("upstream", defaults.upstream.as_ref().map(ToString::to_string))?;
    let Adb { is_on, max_connections, max_message, timeout } = defaults.adb;
    settings.set_item("adb", is_on)?;
    settings.set_item("limits.max_adb", max_connections)?;
    settings.set_item("limits.max_adb_message", max_message)?;
    settings.set_item("limits.adb_timeout", seconds(timeout))
}

fn limits(settings: &Bound<'_, PyDict>, limits: &Limits) -> PyResult<()> {
    let numbers = [
        ("max_message_size", limits.max_message_size),
        ("max_first_message", limits.max_first_message),
        ("max_connections", limits.max_connections),
        ("max_connections_per_address", limits.max_connections_per_address),
        ("max_opening", limits.max_opening),
        ("max_handshakes", limits.max_handshakes),
        ("max_device_socket_connections", limits.max_device_socket_connections),
        ("max_control_connections", limits.max_control_connections),
        ("max_metrics_connections", limits.max_metrics_connections),
        ("max_devices", limits.max_devices),
        ("max_device_id", limits.max_device_id),
        ("max_clients_per_device", limits.max_clients_per_device),
        ("outbox_bytes", limits.backpressure.outbox_bytes),
        ("outbox_budget", limits.backpressure.outbox_budget),
        ("device_high_water", limits.backpressure.device_high_water),
        ("device_low_water", limits.backpressure.device_low_water),
        ("client_window_bytes", limits.backpressure.client_window_bytes),
        ("client_window_messages", limits.backpressure.client_window_messages),
        ("held_bytes", limits.backpressure.held_bytes),
        ("max_headers", limits.max_headers),
        ("max_request_head", limits.max_request_head),
        ("journal_entries", limits.journal_entries),
        ("journal_bytes", limits.journal_bytes),
        ("held_by_faults", limits.held_by_faults),
        ("held_by_faults_bytes", limits.backpressure.held_by_faults_bytes),
        ("max_polled", limits.max_polled),
        ("max_viewers", limits.http.max_viewers),
        ("max_viewers_per_address", limits.http.max_viewers_per_address),
        ("viewer_bytes", limits.http.viewer_bytes),
        ("viewer_bytes_per_second", limits.http.viewer_bytes_per_second),
    ];
    for (name, number) in numbers {
        settings.set_item(format!("limits.{name}"), number)?;
    }
    nodes(settings, limits)?;
    times(settings, limits)
}

/// The limits about the other nodes of a cluster.
fn nodes(settings: &Bound<'_, PyDict>, limits: &Limits) -> PyResult<()> {
    settings.set_item("limits.max_node_dials", limits.max_node_dials)?;
    settings.set_item("limits.max_node_dial_queue", limits.max_node_dial_queue)?;
    settings.set_item("limits.max_node_idle", limits.max_node_idle)
}

fn times(settings: &Bound<'_, PyDict>, limits: &Limits) -> PyResult<()> {
    let times = [
        ("opening_silence", Some(limits.opening_silence)),
        ("handshake_turn", Some(limits.handshake_turn)),
        ("write_timeout", Some(limits.write_timeout)),
        ("borrow_timeout", Some(limits.backpressure.borrow_timeout)),
        ("max_message_age", Some(limits.backpressure.max_message_age)),
        ("first_message_timeout", limits.first_message_timeout),
        ("request_head_timeout", Some(limits.request_head_timeout)),
        ("tls_handshake_timeout", Some(limits.tls_handshake_timeout)),
        ("probe_timeout", Some(limits.probe_timeout)),
        ("close_timeout", Some(limits.close_timeout)),
        ("polled_timeout", Some(limits.polled_timeout)),
        ("proxy_timeout", Some(limits.proxy_timeout)),
        ("goodbye_timeout", Some(limits.goodbye_timeout)),
    ];
    for (name, time) in times {
        settings.set_item(format!("limits.{name}"), time.map(seconds))?;
    }
    Ok(())
}

fn rates(settings: &Bound<'_, PyDict>, limits: &Limits) -> PyResult<()> {
    settings.set_item("limits.audit_queue", limits.audit_queue)?;
    settings.set_item("limits.new_per_second", limits.new_per_second)?;
    settings.set_item("limits.refusals_logged_per_second", limits.refusals_logged_per_second)?;
    settings.set_item("limits.requests_logged_per_second", limits.http.requests_logged_per_second)?;
    let rates = [
        ("message", limits.messages),
        ("byte", limits.bytes),
        ("error", limits.errors),
        ("ping", limits.pings),
        ("request", limits.http.requests),
        ("address_request", limits.http.address_requests),
    ];
    for (name, Rate { per_second, burst }) in rates {
        settings.set_item(format!("limits.{name}_per_second"), per_second)?;
        settings.set_item(format!("limits.{name}_burst"), burst)?;
    }
    Ok(())
}

/// The word for a value; `None` where the table lacks it.
fn word<T: PartialEq>(words: &'static [(&'static str, T)], value: T) -> Option<&'static str> {
    words.iter().find(|(_, choice)| *choice == value).map(|(word, _)| *word)
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
