//! When the clients of a node that cannot be reached look for their devices again.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::Mutex;

use crate::protocol::DeviceId;

/// Pause until the clients of a node that cannot be reached look again: on average, so that those of many devices do not
/// all do so at once.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The devices for which waiting clients look again soon.
#[derive(Default)]
pub(super) struct Looks(Mutex<HashSet<DeviceId>>);

impl Looks {
    /// Begins the wait of the clients of a device. Returns its pause, unless it has begun: all of them look at its end.
    pub(super) fn begin(&self, id: &DeviceId) -> Option<Duration> {
        self.0.lock().insert(id.clone()).then(|| LOOK_AGAIN.mul_f64(0.5 + fastrand::f64()))
    }

    pub(super) fn end(&self, id: &DeviceId) {
        self.0.lock().remove(id);
    }
}

#[cfg(test)]
mod tests {
    use crate::server::nodes::looks::*;

    /// Devices of a node that is gone, which a crowd of clients wants.
    const DEVICES: usize = 1_000;

    #[test]
    fn clients_of_a_node_that_is_gone_look_again_at_different_times() {
        let looks = Looks::default();
        let ids: Vec<_> = (0..DEVICES).map(|number| DeviceId::new(&format!("cvd-{number}"))).collect();
        let pauses: Vec<_> = ids.iter().map(|id| looks.begin(id).unwrap()).collect();
        for tenth in 5..15 {
            let within = LOOK_AGAIN.mul_f64(f64::from(tenth) / 10.0)..LOOK_AGAIN.mul_f64(f64::from(tenth + 1) / 10.0);
            let looks = pauses.iter().filter(|pause| within.contains(*pause)).count();
            assert!((DEVICES / 20..DEVICES / 5).contains(&looks), "{looks} within {within:?}");
        }
    }

    #[test]
    fn all_clients_of_a_device_look_again_at_one_time() {
        let (looks, id) = (Looks::default(), DeviceId::new("cvd-1"));
        for _ in 0..3 {
            assert!(looks.begin(&id).is_some());
            assert!((0..300).all(|_| looks.begin(&id).is_none()), "each would have all clients look");
            assert!(looks.begin(&DeviceId::new("cvd-2")).is_some());
            looks.end(&DeviceId::new("cvd-2"));
            looks.end(&id);
        }
    }
}
