//! The sorted list of devices, against a map.

use std::collections::BTreeMap;
use std::sync::Arc;

use cuttlefish_signaling::hub::{Device, Hub};
use cuttlefish_signaling::outbox::{Budget, Outbox};
use cuttlefish_signaling::peer::{Peer, Role};
use cuttlefish_signaling::protocol::{DeviceId, outbound};
use proptest::prelude::*;

fn device(id: &str) -> Arc<Device> {
    let outbox = Arc::new(Outbox::new(&Budget::new(
        cuttlefish_signaling::Config::default().limits.backpressure.outbox_bounds(),
    )));
    let peer = Arc::new(Peer::anonymous(Role::Device));
    Arc::new(Device::new(DeviceId::new(id), outbound::device_info("null"), peer, outbox))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A number registers the device, replaces it, or, if the flag is set, removes it.
    #[test]
    fn list_is_sorted_and_a_change_replaces_few_chunks(changes in prop::collection::vec((0..400_u16, any::<bool>()), 0..800)) {
        let hub = Hub::new(Arc::new(()), 1000, || 1);
        let mut model: BTreeMap<DeviceId, Arc<Device>> = BTreeMap::new();
        let config = outbound::config("[]");
        for (number, leaves) in changes {
            let id = DeviceId::new(&format!("cvd-{number}"));
            let (revision, before) = hub.device_list();
            let (ids, count) = (before.iter().map(|device| device.id.clone()).collect::<Vec<_>>(), before.len());
            match (leaves, model.get(&id).cloned()) {
                (true, Some(holder)) => {
                    hub.unregister(&holder);
                    model.remove(&id);
                }
                (true, None) => hub.unregister(&device(id.as_str())),
                (false, holder) => {
                    let new = device(id.as_str());
                    hub.register(&new, &config, holder.as_ref()).unwrap();
                    model.insert(id, new);
                }
            }
            let (changed, after) = hub.device_list();
            let same = |chunk: &&Arc<_>| before.chunks().iter().any(|other| Arc::ptr_eq(chunk, other));
            let replaced = after.chunks().iter().filter(|chunk| !same(chunk)).count();
            prop_assert!(replaced <= 2, "{replaced} chunks were replaced");
            prop_assert_eq!(replaced > 0 || after.len() != count, changed > revision);
            prop_assert!(after.chunks().iter().all(|chunk| (1..=64).contains(&chunk.len())));
            prop_assert_eq!((after.len(), after.is_empty()), (model.len(), model.is_empty()));
            prop_assert!(after.iter().zip(model.values()).all(|(one, other)| Arc::ptr_eq(one, other)));
            // A copy does not change.
            prop_assert!(before.iter().map(|device| &device.id).eq(&ids));
        }
    }
}
