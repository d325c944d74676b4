//! The history of the registry, as far as a node knows it: by it, the node notices missing changes and lost writes.
//!
//! Each version has the stamp of the operation that has made it, and each change names the stamp of the version before.
//! Changes that follow one another so are the history of the registry itself. An engine that comes back as it was before
//! has another one from there on, also where it has as many versions again.

use std::collections::{BTreeMap, VecDeque};

use super::registry::Version;

/// Versions that are kept, to be compared with those that the engine names late.
const RECENT: usize = 1_024;

/// Place of a change in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It follows the last change that is known.
    Next,
    /// Changes before it are missing.
    BehindGap,
    /// It is not newer than what is known.
    Known,
}

/// The known history of the registry.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The last versions, one after the other. The last one is the latest that is known.
    recent: VecDeque<Version>,
    /// Stamps of versions that the engine has named, and whose changes have not come yet.
    named: BTreeMap<u64, u64>,
    /// Set when the registry has lost a version that this node knows of.
    lost: bool,
    /// Set when versions are missing in what is known: the registry may have lost one of this node before them.
    unproven: bool,
}

impl History {
    /// Begins with this version.
    pub(super) fn reset(&mut self, version: Version) {
        *self = Self::default();
        self.recent.push_back(version);
    }

    /// Returns the latest version that is known.
    pub(super) fn latest(&self) -> Version {
        self.recent.back().copied().unwrap_or_default()
    }

    /// Returns the greatest number that a change or an answer has named.
    pub(super) fn greatest(&self) -> u64 {
        self.named.last_key_value().map_or(self.latest().number, |(number, _)| *number)
    }

    /// Notes a change of the feed: its version, and the stamp of the one before.
    pub(super) fn on_change(&mut self, version: Version, after: u64) -> Place {
        let latest = self.latest();
        if version.number <= latest.number {
            // One that was published before the node joined may come after the answer.
            self.lost |= self.stamp_of(version.number).is_some_and(|stamp| stamp != version.stamp);
            return Place::Known;
        }
        let named = self.named.get(&version.number);
        self.lost |= named.is_some_and(|stamp| *stamp != version.stamp);
        self.forget_named(version.number);
        // A change that no engine has made may have any number.
        if version.number - latest.number == 1 {
            self.lost |= after != latest.stamp;
            self.push(version);
            return Place::Next;
        }
        self.skip_to(version);
        Place::BehindGap
    }

    /// Notes a version that the engine has named in an answer. `asked` is the greatest number that was known when it was
    /// asked.
    pub(super) fn on_named(&mut self, version: Version, asked: u64) {
        if version.number < asked {
            self.lost = true;
        } else if version.number > self.latest().number {
            let before = self.named.insert(version.number, version.stamp);
            self.lost |= before.is_some_and(|stamp| stamp != version.stamp);
        } else {
            match self.stamp_of(version.number) {
                Some(stamp) => self.lost |= stamp != version.stamp,
                None => self.unproven = true,
            }
        }
    }

    /// Compares with a version whose change has to be known by now. Returns whether changes are missing.
    pub(super) fn check(&mut self, version: Version) -> bool {
        let is_missing = version.number > self.latest().number;
        if is_missing {
            self.forget_named(version.number);
            self.skip_to(version);
        }
        is_missing
    }

    /// Returns whether the registry has lost a version that this node knows of.
    pub(super) fn has_lost(&self) -> bool {
        self.lost
    }

    /// Returns whether the registry may have lost writes of this node unnoticed since the last call.
    pub(super) fn take_unproven(&mut self) -> bool {
        std::mem::take(&mut self.unproven)
    }

    /// Forgets the versions up to this one that the engine has named.
    fn forget_named(&mut self, number: u64) {
        while let Some(first) = self.named.first_entry().filter(|first| *first.key() <= number) {
            first.remove();
        }
    }

    fn skip_to(&mut self, version: Version) {
        self.recent.clear();
        self.unproven = true;
        self.push(version);
    }

    fn push(&mut self, version: Version) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(version);
    }

    fn stamp_of(&self, number: u64) -> Option<u64> {
        let first = self.recent.front()?.number;
        let place = usize::try_from(number.checked_sub(first)?).ok()?;
        self.recent.get(place).map(|version| version.stamp)
    }
}
