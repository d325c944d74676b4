//! Converts the settings of `_config.py`, a dictionary of plain values, to a [`Config`]. Python has checked the types.

use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::cluster::Cluster;
use super::error::config_error;
use super::ice_command::IceCommand;
use super::jwt::Jwt;
use super::listen::{ListenTuple, listener};
use super::tls::Tls;
use super::turn::{TurnRest, ice_servers};
use crate::config::allowances::{AllowedHost, AllowedOrigin};
use crate::config::control::{Control, ControlToken};
use crate::config::error::ConfigError;
use crate::config::listen::Listen;
use crate::config::rate::Rate;
use crate::config::upstream::Upstream;
use crate::config::{
    Adb, Backpressure, Config, DevicesFormat, HttpLimits, IceSource, Keepalive, Limits, OnTokenExpiry,
};
use crate::core::client_ids::ClientIds;
use crate::core::session::OnDuplicate;
use crate::protocol::candidates::AddressRules;

/// The words for [`OnDuplicate`].
pub(super) const ON_DUPLICATE: [(&str, OnDuplicate); 2] =
    [("reject", OnDuplicate::Reject), ("replace", OnDuplicate::Replace)];

/// The words for [`ClientIds`].
pub(super) const CLIENT_IDS: [(&str, ClientIds); 2] = [("from_one", ClientIds::FromOne), ("unique", ClientIds::Unique)];

/// The words for [`DevicesFormat`].
pub(super) const DEVICES_FORMAT: [(&str, DevicesFormat); 2] =
    [("full", DevicesFormat::Full), ("ids", DevicesFormat::Ids)];

/// The words for [`OnTokenExpiry`].
pub(super) const ON_TOKEN_EXPIRY: [(&str, OnTokenExpiry); 2] =
    [("close", OnTokenExpiry::Close), ("keep", OnTokenExpiry::Keep)];

/// Reads settings from the dictionary, and names the setting in each error.
struct Settings<'a, 'py>(&'a Bound<'py, PyDict>);

impl<'py> Settings<'_, 'py> {
    fn raw(&self, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.0.get_item(name)?.ok_or_else(|| self.error(name, "is missing"))
    }

    fn error(&self, name: &str, what: impl Into<String>) -> PyErr {
        config_error(self.0.py(), &ConfigError::new(name, what))
    }

    /// Reads an integer that fits into `T`.
    fn number<T: TryFrom<i64>>(&self, name: &str) -> PyResult<T> {
        let raw = self.raw(name)?;
        let number = raw.extract::<i64>().ok().and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| self.error(name, format!("{raw} is out of range")))
    }

    /// The value that one of a few words stands for.
    fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> PyResult<T> {
        let word: String = self.raw(name)?.extract()?;
        let found = choices.iter().find(|(choice, _)| *choice == word);
        found.map(|(_, value)| *value).ok_or_else(|| self.error(name, format!("{word:?} is not a choice")))
    }

    fn optional_seconds(&self, name: &str) -> PyResult<Option<Duration>> {
        let Some(seconds) = self.raw(name)?.extract::<Option<f64>>()? else { return Ok(None) };
        match Duration::try_from_secs_f64(seconds) {
            Ok(time) => Ok(Some(time)),
            Err(_) => Err(self.error(name, format!("must be a number of seconds, got {seconds}"))),
        }
    }

    fn seconds(&self, name: &str) -> PyResult<Duration> {
        self.optional_seconds(name)?.ok_or_else(|| self.error(name, "must be a number of seconds, got None"))
    }
}

/// The reason why no request can match a value of `allowed_hosts` or of `allowed_origins`, or None.
#[pyfunction]
pub(super) fn allowance_fault(setting: &str, text: &str) -> Option<String> {
    match setting {
        "allowed_hosts" => AllowedHost::parse(text).err(),
        _ => AllowedOrigin::parse(text).err(),
    }
}

/// The reason why rules of `advertise_address` are invalid, or contradict each other, or None.
#[pyfunction]
pub(super) fn address_rules_fault(rules: Vec<String>) -> Option<String> {
    AddressRules::parse(&rules).err()
}

/// Converts and validates the settings of a server.
pub(super) fn config(settings: &Bound<'_, PyDict>) -> PyResult<Config> {
    let config = read(&Settings(settings))?;
    config.validate().map_err(|error| config_error(settings.py(), &error))?;
    Ok(config)
}

fn read(from: &Settings<'_, '_>) -> PyResult<Config> {
    Ok(Config {
        host: host(from)?,
        port: from.number("port")?,
        listen: listen(from, "listen")?,
        sockets: sockets(from)?,
        metrics: listen(from, "metrics")?,
        control: control(from)?,
        device_socket: from.raw("device_socket")?.extract()?,
        control_socket: from.raw("control_socket")?.extract()?,
        tls: tls(from)?,
        tls_check_interval: from.optional_seconds("tls_check_interval")?,
        ice: ice_source(&from.raw("ice_servers")?)?,
        device_wait_timeout: from.optional_seconds("device_wait_timeout")?,
        on_duplicate: from.choice("on_duplicate", &ON_DUPLICATE)?,
        client_ids: from.choice("client_ids", &CLIENT_IDS)?,
        hook_timeout: from.seconds("hook_timeout")?,
        limits: limits(from)?,
        keepalive: keepalive(from)?,
        access_log: from.raw("access_log")?.extract()?,
        audit_log: from.raw("audit_log")?.extract()?,
        echo: false,
        dashboard: from.raw("dashboard")?.extract()?,
        assets_dir: from.raw("assets_dir")?.extract()?,
        proxy_device_files: from.raw("proxy_device_files")?.extract()?,
        adb: adb(from)?,
        devices_format: from.choice("devices_format", &DEVICES_FORMAT)?,
        journal: from.raw("journal")?.extract()?,
        cluster: cluster(from)?,
        allowed_hosts: from.raw("allowed_hosts")?.extract()?,
        trusted_proxies: from.raw("trusted_proxies")?.extract()?,
        advertise_address: from.raw("advertise_address")?.extract()?,
        allowed_origins: from.raw("allowed_origins")?.extract()?,
        upstream: upstream(from)?,
        workers: from.number("workers")?,
        ..access(from)?
    })
}

fn keepalive(from: &Settings<'_, '_>) -> PyResult<Keepalive> {
    let interval = from.optional_seconds("keepalive.interval")?;
    Ok(Keepalive { interval, timeout: from.seconds("keepalive.timeout")? })
}

fn control(from: &Settings<'_, '_>) -> PyResult<Control> {
    let token: Option<String> = from.raw("control_token")?.extract()?;
    let token = token.map(|token| ControlToken::new(&token)).transpose();
    Ok(Control {
        listen: listen(from, "control_api")?,
        token: token.map_err(|error| config_error(from.0.py(), &error))?,
        max_connections: from.number("limits.max_control_api_connections")?,
        max_requests: from.number("limits.max_control_api_requests")?,
        max_wait: from.seconds("limits.control_api_wait")?,
        max_body: from.number("limits.control_api_body")?,
        max_page: from.number("limits.control_api_page")?,
    })
}

fn tls(from: &Settings<'_, '_>) -> PyResult<Option<crate::config::tls::Tls>> {
    let tls = from.raw("tls")?;
    Ok(if tls.is_none() { None } else { Some(tls.cast::<Tls>()?.get().0.clone()) })
}

fn cluster(from: &Settings<'_, '_>) -> PyResult<Option<crate::config::cluster::Cluster>> {
    let cluster = from.raw("cluster")?;
    Ok(if cluster.is_none() { None } else { Some(cluster.cast::<Cluster>()?.get().0.clone()) })
}

/// Reads the settings of tokens. The other settings are the defaults.
fn access(from: &Settings<'_, '_>) -> PyResult<Config> {
    Ok(Config {
        jwt: jwt(from)?,
        on_token_expiry: from.choice("on_token_expiry", &ON_TOKEN_EXPIRY)?,
        one_client_per_device: from.raw("one_client_per_device")?.extract()?,
        allow_unauthenticated: from.raw("allow_unauthenticated")?.extract()?,
        ..Config::default()
    })
}

fn jwt(from: &Settings<'_, '_>) -> PyResult<Option<crate::config::jwt::Jwt>> {
    let jwt = from.raw("jwt")?;
    Ok(if jwt.is_none() { None } else { Some(jwt.cast::<Jwt>()?.get().0.clone()) })
}

fn upstream(from: &Settings<'_, '_>) -> PyResult<Option<Upstream>> {
    let given: Option<(String, Option<PathBuf>, bool, f64)> = from.raw("upstream")?.extract()?;
    let Some((url, ca, is_insecure, timeout)) = given else { return Ok(None) };
    let read = |path: PathBuf| {
        let what = |error| from.error("Upstream.ca", format!("cannot read {}: {error}", path.display()));
        std::fs::read(&path).map_err(what)
    };
    let timeout = Duration::try_from_secs_f64(timeout)
        .map_err(|_| from.error("Upstream.timeout", format!("must be a number of seconds, got {timeout}")))?;
    let upstream = Upstream::new(&url, ca.map(read).transpose()?, is_insecure);
    upstream.map(|it| Some(Upstream { timeout, ..it })).map_err(|error| config_error(from.0.py(), &error))
}

fn host(from: &Settings<'_, '_>) -> PyResult<IpAddr> {
    let host: String = from.raw("host")?.extract()?;
    host.parse().map_err(|_| from.error("host", format!("must be an IP address, got {host:?}")))
}

fn listen(from: &Settings<'_, '_>, setting: &str) -> PyResult<Vec<Listen>> {
    let raw: Vec<ListenTuple> = from.raw(setting)?.extract()?;
    let convert = |tuple: ListenTuple| {
        let shown = format!("{tuple:?}");
        listener(tuple).ok_or_else(|| from.error(setting, format!("{shown} is not a listener")))
    };
    raw.into_iter().map(convert).collect()
}

/// Duplicates the descriptors, so that those of Python stay open when the server stops.
fn sockets(from: &Settings<'_, '_>) -> PyResult<Vec<Arc<OwnedFd>>> {
    let numbers: Vec<RawFd> = from.raw("sockets")?.extract()?;
    let duplicate = |(index, number): (usize, RawFd)| {
        let error = |what: String| from.error(&format!("sockets[{index}]"), format!("{number} {what}"));
        if number < 0 {
            return Err(error("is no descriptor".into()));
        }
        // SAFETY: it is borrowed for one call, which fails for a number that is not open.
        #[allow(unsafe_code, reason = "a number from Python has no owner in Rust")]
        let socket = unsafe { BorrowedFd::borrow_raw(number) };
        let owned = socket.try_clone_to_owned().map_err(|source| error(format!("is not open: {source}")))?;
        Ok(Arc::new(owned))
    };
    numbers.into_iter().enumerate().map(duplicate).collect()
}

fn rate(from: &Settings<'_, '_>, what: &str) -> PyResult<Rate> {
    Ok(Rate {
        per_second: from.number(&format!("limits.{what}_per_second"))?,
        burst: from.number(&format!("limits.{what}_burst"))?,
    })
}

fn limits(from: &Settings<'_, '_>) -> PyResult<Limits> {
    Ok(Limits {
        max_message_size: from.number("limits.max_message_size")?,
        max_first_message: from.number("limits.max_first_message")?,
        max_connections: from.number("limits.max_connections")?,
        max_connections_per_address: from.number("limits.max_connections_per_address")?,
        new_per_second: from.number("limits.new_per_second")?,
        max_opening: from.number("limits.max_opening")?,
        max_node_dials: from.number("limits.max_node_dials")?,
        max_node_dial_queue: from.number("limits.max_node_dial_queue")?,
        max_node_idle: from.number("limits.max_node_idle")?,
        max_handshakes: from.number("limits.max_handshakes")?,
        max_device_socket_connections: from.number("limits.max_device_socket_connections")?,
        max_control_connections: from.number("limits.max_control_connections")?,
        max_metrics_connections: from.number("limits.max_metrics_connections")?,
        refusals_logged_per_second: from.number("limits.refusals_logged_per_second")?,
        audit_queue: from.number("limits.audit_queue")?,
        max_devices: from.number("limits.max_devices")?,
        max_device_id: from.number("limits.max_device_id")?,
        max_clients_per_device: from.number("limits.max_clients_per_device")?,
        messages: rate(from, "message")?,
        bytes: rate(from, "byte")?,
        errors: rate(from, "error")?,
        pings: rate(from, "ping")?,
        backpressure: backpressure(from)?,
        max_headers: from.number("limits.max_headers")?,
        max_request_head: from.number("limits.max_request_head")?,
        journal_entries: from.number("limits.journal_entries")?,
        journal_bytes: from.number("limits.journal_bytes")?,
        held_by_faults: from.number("limits.held_by_faults")?,
        max_polled: from.number("limits.max_polled")?,
        http: http_limits(from)?,
        ..timeouts(from)?
    })
}

/// Reads the times of the limits. The other limits are the defaults.
fn timeouts(from: &Settings<'_, '_>) -> PyResult<Limits> {
    Ok(Limits {
        opening_silence: from.seconds("limits.opening_silence")?,
        handshake_turn: from.seconds("limits.handshake_turn")?,
        write_timeout: from.seconds("limits.write_timeout")?,
        first_message_timeout: from.optional_seconds("limits.first_message_timeout")?,
        request_head_timeout: from.seconds("limits.request_head_timeout")?,
        tls_handshake_timeout: from.seconds("limits.tls_handshake_timeout")?,
        probe_timeout: from.seconds("limits.probe_timeout")?,
        close_timeout: from.seconds("limits.close_timeout")?,
        polled_timeout: from.seconds("limits.polled_timeout")?,
        proxy_timeout: from.seconds("limits.proxy_timeout")?,
        goodbye_timeout: from.seconds("limits.goodbye_timeout")?,
        ..Limits::default()
    })
}

fn http_limits(from: &Settings<'_, '_>) -> PyResult<HttpLimits> {
    Ok(HttpLimits {
        max_viewers: from.number("limits.max_viewers")?,
        max_viewers_per_address: from.number("limits.max_viewers_per_address")?,
        viewer_bytes: from.number("limits.viewer_bytes")?,
        viewer_bytes_per_second: from.number("limits.viewer_bytes_per_second")?,
        requests: rate(from, "request")?,
        address_requests: rate(from, "address_request")?,
        requests_logged_per_second: from.number("limits.requests_logged_per_second")?,
    })
}

fn adb(from: &Settings<'_, '_>) -> PyResult<Adb> {
    Ok(Adb {
        is_on: from.raw("adb")?.extract()?,
        max_connections: from.number("limits.max_adb")?,
        max_message: from.number("limits.max_adb_message")?,
        timeout: from.seconds("limits.adb_timeout")?,
    })
}

/// Converts a source of ICE servers: `None` for the hook, a `TurnRest`, or the JSON text of a list.
pub(super) fn ice_source(source: &Bound<'_, PyAny>) -> PyResult<IceSource> {
    if source.is_none() {
        return Ok(IceSource::Hook);
    }
    if let Ok(turn) = source.cast::<TurnRest>() {
        return Ok(IceSource::TurnRest(turn.get().0.clone()));
    }
    if let Ok(command) = source.cast::<IceCommand>() {
        return Ok(IceSource::Command(Arc::clone(&command.get().0)));
    }
    Ok(IceSource::Fixed(ice_servers(source.py(), &source.extract::<String>()?)?))
}

fn backpressure(from: &Settings<'_, '_>) -> PyResult<Backpressure> {
    Ok(Backpressure {
        outbox_bytes: from.number("limits.outbox_bytes")?,
        outbox_budget: from.number("limits.outbox_budget")?,
        borrow_timeout: from.seconds("limits.borrow_timeout")?,
        device_high_water: from.number("limits.device_high_water")?,
        device_low_water: from.number("limits.device_low_water")?,
        client_window_bytes: from.number("limits.client_window_bytes")?,
        client_window_messages: from.number("limits.client_window_messages")?,
        held_bytes: from.number("limits.held_bytes")?,
        max_message_age: from.seconds("limits.max_message_age")?,
        held_by_faults_bytes: from.number("limits.held_by_faults_bytes")?,
    })
}
