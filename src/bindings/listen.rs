//! Listeners, between the tuples of Python and [`Listen`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::config::listen::Listen;

/// A listener in Python: scheme, address and port; or `unix`, path and mode.
pub(super) type ListenTuple = (String, String, u32);

/// Converts a tuple of Python. `None` if it is not a listener.
pub(super) fn listener((scheme, place, number): ListenTuple) -> Option<Listen> {
    if scheme == "unix" {
        return Some(Listen::Unix { path: PathBuf::from(place), mode: number });
    }
    let address = SocketAddr::new(place.parse().ok()?, u16::try_from(number).ok()?);
    match &*scheme {
        "http" => Some(Listen::Http(address)),
        "https" => Some(Listen::Https(address)),
        _ => None,
    }
}

/// Converts a listener to a tuple of Python.
pub(super) fn listener_tuple(listener: &Listen) -> ListenTuple {
    let tcp = |scheme: &str, address: &SocketAddr| (scheme.into(), address.ip().to_string(), address.port().into());
    match listener {
        Listen::Http(address) => tcp("http", address),
        Listen::Https(address) => tcp("https", address),
        Listen::Unix { path, mode } => ("unix".into(), path.display().to_string(), *mode),
    }
}

/// Returns the addresses by which other machines may reach this one: no loopback, and none that needs the name of an
/// interface. IPv4 first.
#[pyfunction]
pub(super) fn machine_addresses() -> PyResult<Vec<String>> {
    let interfaces = if_addrs::get_if_addrs().map_err(|error| PyOSError::new_err(error.to_string()))?;
    let useful = interfaces.iter().filter(|interface| !interface.is_loopback() && !interface.is_link_local());
    let mut addresses: Vec<IpAddr> = useful.map(if_addrs::Interface::ip).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses.iter().map(ToString::to_string).collect())
}
