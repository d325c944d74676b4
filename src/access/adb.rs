//! Which port the adb connections of a device go to (docs/protocol.md 5.3.37 and 5.3.38).
//!
//! The server opens the connection, to a port of its own machine. So a port counts only if a program of this machine
//! named it, and some ports never do.

use crate::core::device::Device;
use crate::protocol::{outbound, payload};

/// The lowest port that is allowed: those below it belong to services of the system.
const LOWEST: u64 = 1024;

/// The reason why a device has no adb port that clients may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAdbPort {
    /// Neither its pre-registration nor its device info names a port.
    Unknown,
    /// Its device info names one, but the device came over the network or through a proxy.
    Remote,
    /// The port is below 1024, or above 65535.
    OutOfRange(u64),
    /// The port is one of this server's own.
    Own(u16),
}

impl std::fmt::Display for NoAdbPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("The device has named no adb port"),
            Self::Remote => f.write_str(
                "The device came over the network or through a proxy, and was not announced with an adb port",
            ),
            Self::OutOfRange(port) => write!(f, "adb port {port} is refused: it must be {LOWEST} to 65535"),
            Self::Own(port) => write!(f, "adb port {port} is refused: this server listens on it"),
        }
    }
}

/// Returns the adb port of a device: that of its pre-registration, else that of its device info.
///
/// `own` are the ports that this server listens on.
///
/// # Errors
/// [`NoAdbPort`]
pub fn port_of(device: &Device, own: &[u16]) -> Result<u16, NoAdbPort> {
    let port = match device.metadata().adb_port {
        0 => port_in_info(device)?,
        announced => u64::from(announced),
    };
    match u16::try_from(port) {
        Ok(port) if own.contains(&port) => Err(NoAdbPort::Own(port)),
        Ok(small) if port >= LOWEST => Ok(small),
        _ => Err(NoAdbPort::OutOfRange(port)),
    }
}

/// Returns the port of the device info, if the device is on this machine.
fn port_in_info(device: &Device) -> Result<u64, NoAdbPort> {
    let port = payload::adb_port_of(outbound::info_of(&device.info)).ok_or(NoAdbPort::Unknown)?;
    if device.peer.is_local { Ok(port) } else { Err(NoAdbPort::Remote) }
}
