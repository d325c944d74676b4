//! Several nodes, one service: which node has which device. Sans-I/O.
//!
//! A node registers its devices in a registry that all nodes share, the *engine*. [`registry`] has the operations that
//! the engine offers, each of which it executes at once or not at all. [`membership`] decides which operation comes
//! next, [`claim`] follows the registration of one device, and [`directory`] is the copy of the registry in this node.
//!
//! A node is known by its [`Incarnation`], a device by its [`Registration`]. Both are unique forever and compared for
//! equality only, so that an engine that forgets or repeats itself confuses none of them with another.

mod announcing;
pub mod claim;
mod claiming;
mod claims;
pub mod directory;
pub mod facts;
mod history;
mod holders;
mod maintaining;
pub mod membership;
pub mod names;
pub mod nodes;
pub mod output;
pub mod registry;
mod shared_ice;
mod upkeep;

pub use directory::Directory;
pub use membership::Membership;
pub use names::{Incarnation, Registration};
pub use output::Output;
