//! The other holders of an id, as the claim of a registration remembers them.

use super::names::Registration;

/// Other registrations that hold the id of a claim, or have held it.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// The one that the directory has named last, until it counts no more.
    known: Option<Registration>,
    /// The one whose node was asked last, and did not say that it is alive.
    passed: Option<Registration>,
    /// The one whose node could not be asked the last time.
    unreachable: Option<Registration>,
}

impl Holders {
    /// Returns the holder that may contradict the engine, which is asked now. `named` is the one that the directory names.
    ///
    /// The claim itself changes the directory, and an engine that is restored from an old copy brings holders back that have
    /// left. If it is lost before its answer, only the claim knows the holder.
    pub(super) fn name(&mut self, named: Option<Registration>) -> Option<Registration> {
        self.known = named.filter(|holder| self.passed.as_ref() != Some(holder)).or_else(|| self.known.take());
        self.known.clone()
    }

    /// Forgets the holder that the directory has named: it has released the id, was asked, or the id is granted.
    pub(super) fn forget_known(&mut self) {
        self.known = None;
    }

    /// Notes that the node of a holder was asked, and did not say that it is alive. The directory may go on to name it.
    pub(super) fn pass(&mut self, holder: &Registration) {
        self.passed = Some(holder.clone());
    }

    /// Notes that the node of a holder could not be asked.
    pub(super) fn miss(&mut self, holder: &Registration) {
        self.unreachable = Some(holder.clone());
    }

    /// Forgets that a node could not be asked: the engine is lost.
    ///
    /// An engine that comes back has leases which no node could renew meanwhile. So a holder without a lease is asked again.
    pub(super) fn forget_unreachable(&mut self) {
        self.unreachable = None;
    }

    /// Returns whether the node of this holder could not be asked the last time.
    pub(super) fn is_unreachable(&self, holder: &Registration) -> bool {
        self.unreachable.as_ref() == Some(holder)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::core::cluster::Incarnation;
    use crate::core::cluster::holders::*;

    fn holder(number: u64) -> Registration {
        Registration::new(Incarnation::new("lab", 1).unwrap(), number)
    }

    #[test]
    fn holder_that_the_directory_no_longer_names_is_remembered() {
        let mut holders = Holders::default();
        assert_eq!(holders.name(None), None);
        assert_eq!(holders.name(Some(holder(1))), Some(holder(1)));
        assert_eq!(holders.name(None), Some(holder(1)), "the claim itself has changed the directory");
        assert_eq!(holders.name(Some(holder(2))), Some(holder(2)), "the last one counts");
        holders.forget_known();
        assert_eq!(holders.name(None), None);
    }

    #[test]
    fn holder_that_was_passed_is_not_named_again_and_hides_no_other() {
        let mut holders = Holders::default();
        holders.name(Some(holder(1)));
        holders.pass(&holder(2));
        assert_eq!(holders.name(Some(holder(2))), Some(holder(1)), "an old copy of the registry brings it back");
        holders.pass(&holder(1));
        assert_eq!(holders.name(None), Some(holder(1)), "it is forgotten with the question, and not before");
        holders.forget_known();
        assert_eq!(holders.name(Some(holder(1))), None);
        assert_eq!(holders.name(Some(holder(2))), Some(holder(2)), "the last one that was passed counts");
    }

    #[test]
    fn only_the_last_holder_that_was_missed_is_unreachable() {
        let mut holders = Holders::default();
        assert!(!holders.is_unreachable(&holder(1)));
        holders.miss(&holder(1));
        assert!(holders.is_unreachable(&holder(1)) && !holders.is_unreachable(&holder(2)));
        // That says nothing of the two others.
        assert_eq!(holders.name(Some(holder(1))), Some(holder(1)));
        holders.forget_known();
        holders.pass(&holder(1));
        assert!(holders.is_unreachable(&holder(1)));
        holders.miss(&holder(2));
        assert!(holders.is_unreachable(&holder(2)) && !holders.is_unreachable(&holder(1)));
        holders.forget_unreachable();
        assert!(!holders.is_unreachable(&holder(2)));
    }
}
