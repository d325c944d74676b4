//! The adb port of a device: announced, or of a device on this machine, and never one of the system or of the server
//! (docs/protocol.md 5.3.37 and 5.3.38).

use std::sync::Arc;

use cuttlefish_signaling::access::adb::{NoAdbPort, port_of};
use cuttlefish_signaling::hub::Device;
use cuttlefish_signaling::outbox::{Budget, Outbox};
use cuttlefish_signaling::peer::{Peer, Role};
use cuttlefish_signaling::preregistrations::{DeviceMetadata, NO_METADATA};
use cuttlefish_signaling::protocol::{DeviceId, outbound};

/// A device with this device info, on this machine or not, announced with this port.
fn device(info: &str, is_local: bool, announced: Option<u16>) -> Device {
    let peer = Peer { is_local, ..Peer::anonymous(Role::Device) };
    let outbox = Arc::new(Outbox::new(&Budget::new(
        cuttlefish_signaling::Config::default().limits.backpressure.outbox_bounds(),
    )));
    let mut device = Device::new(DeviceId::new("d"), outbound::device_info(info), Arc::new(peer), outbox);
    device.metadata = announced.map(|adb_port| Arc::new(DeviceMetadata { adb_port, ..NO_METADATA.clone() }));
    device
}

const INFO: &str = r#"{"adb_port":6521,"other":[{"adb_port":1}]}"#;

#[test]
fn announced_port_counts_for_each_device_and_before_that_of_device_info() {
    for is_local in [true, false] {
        assert_eq!(port_of(&device(INFO, is_local, Some(6520)), &[]), Ok(6520));
        assert_eq!(port_of(&device("null", is_local, Some(6520)), &[]), Ok(6520));
    }
}

#[test]
fn port_of_device_info_counts_for_devices_on_this_machine_only() {
    for announced in [None, Some(0)] {
        assert_eq!(port_of(&device(INFO, true, announced), &[]), Ok(6521));
        assert_eq!(port_of(&device(INFO, false, announced), &[]), Err(NoAdbPort::Remote));
    }
}

#[test]
fn ports_of_the_system_and_of_this_server_are_refused_by_either_way() {
    let ways =
        [|port: u16| device(&format!(r#"{{"adb_port":{port}}}"#), true, None), |port| device("{}", false, Some(port))];
    for way in ways {
        for port in [1, 22, 80, 1023] {
            assert_eq!(port_of(&way(port), &[]), Err(NoAdbPort::OutOfRange(port.into())));
        }
        for port in [1024, 6520, 65_535] {
            assert_eq!(port_of(&way(port), &[1080, 1443]), Ok(port));
            assert_eq!(port_of(&way(port), &[1080, port]), Err(NoAdbPort::Own(port)));
        }
    }
}

#[test]
fn device_info_without_a_valid_port_has_none() {
    for info in [
        "null",
        "{}",
        "[6520]",
        "6520",
        r#"{"adb_port":null}"#,
        r#"{"adb_port":"6520"}"#,
        r#"{"adb_port":6520.5}"#,
        r#"{"adb_port":-6520}"#,
        r#"{"adb_port":0}"#,
        r#"{"adb_port":6520,"adb_port":22}"#,
        r#"{"adb_port":99999999999999999999}"#,
        r#"{"ADB_PORT":6520}"#,
    ] {
        assert_eq!(port_of(&device(info, true, None), &[]), Err(NoAdbPort::Unknown), "{info}");
    }
    for port in [65_536, u64::MAX] {
        let info = format!(r#"{{"adb_port":{port}}}"#);
        assert_eq!(port_of(&device(&info, true, None), &[]), Err(NoAdbPort::OutOfRange(port)));
    }
    let escaped = r#"{"adb\u005fport":6520}"#;
    assert_eq!(port_of(&device(escaped, true, None), &[]), Ok(6520));
}
