//! What outlives a connection: resumable sessions, knowledge about paths, and connections that are over here while
//! their kernel may continue. Pure: bounded in number and in time, with time as an argument.

mod paths;
mod sessions;
mod tombstones;

pub(crate) use paths::{Advice, Doubt, PathKey, Paths};
pub use paths::{Finding, PathInfo, PathLimits};
pub(crate) use sessions::{ChainId, Sessions};
pub use sessions::{SessionInfo, SessionLimits};
pub(crate) use tombstones::Tombstones;
