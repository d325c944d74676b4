//! Events of the hub: the observer sees them in the order of the changes.

use std::sync::Arc;

use cuttlefish_signaling::hub::{Client, Device, Hub, Observer};
use cuttlefish_signaling::peer::{Peer, Role};
use cuttlefish_signaling::protocol::{DeviceId, outbound};
use shuttle::thread;

use super::{device, outbox, under_all_schedules};

/// Records events as texts. A device is told by its address, since two may have the same id.
#[derive(Default)]
struct Records(std::sync::Mutex<Vec<(&'static str, usize)>>);

impl Records {
    fn add(&self, event: &'static str, device: &Device) {
        // Other threads may run between the change and this.
        thread::yield_now();
        self.0.lock().unwrap().push((event, std::ptr::from_ref(device).addr()));
    }
}

impl Observer for Records {
    fn device_registered(&self, device: &Device) {
        self.add("registered", device);
    }

    fn device_left(&self, device: &Device) {
        self.add("left", device);
    }

    fn client_connected(&self, device: &Device, _: &Client) {
        self.add("client connected", device);
    }

    fn client_left(&self, device: &Device, _: &Client) {
        self.add("client left", device);
    }
}

fn replace(hub: &Hub, device: &Arc<Device>) {
    let mut outcome = hub.register(device, &outbound::config("[]"), None);
    while let Err(holder) = outcome {
        outcome = hub.register(device, &outbound::config("[]"), Some(&holder));
    }
}

#[test]
fn events_come_in_the_order_of_the_changes() {
    under_all_schedules(|| {
        let records = Arc::new(Records::default());
        let hub = Arc::new(Hub::new(Arc::clone(&records) as _, 100, || 1));
        let devices: Vec<_> = (0..2).map(|_| device("a")).collect();
        let threads: Vec<_> = devices
            .iter()
            .cloned()
            .map(|device| {
                let hub = Arc::clone(&hub);
                thread::spawn(move || {
                    replace(&hub, &device);
                    let peer = Arc::new(Peer::anonymous(Role::Client));
                    let info = outbound::device_info("1");
                    if let Ok(Some(client)) = hub.attach(&device, info, &peer, &outbox(), 10) {
                        hub.detach(&device, &client);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let holder = hub.device(&DeviceId::new("a")).unwrap();
        hub.unregister(&holder);
        let records = records.0.lock().unwrap();
        let of_devices: Vec<_> = records.iter().filter(|(event, _)| !event.starts_with("client")).collect();
        let order: Vec<_> = of_devices.iter().map(|(event, _)| *event).collect();
        assert_eq!(order, ["registered", "left", "registered", "left"], "one device at a time holds the id");
        for pair in of_devices.chunks(2) {
            assert_eq!(pair[0].1, pair[1].1);
        }
        for device in &devices {
            let address = Arc::as_ptr(device).addr();
            let own: Vec<_> = records.iter().filter(|(_, of)| *of == address).map(|(event, _)| *event).collect();
            let with_client = ["registered", "client connected", "client left", "left"];
            assert!(own == with_client || own == ["registered", "left"], "{own:?}");
        }
    });
}
