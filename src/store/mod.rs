//! What outlives a connection: sessions that can be resumed, what was learnt of paths, and which connections are over here
//! while their kernel may go on. Pure: bounded in number and in time, the time comes in as an argument.

mod paths;
mod sessions;
mod tombstones;

pub(crate) use paths::{Advice, Doubt, PathKey, Paths};
pub use paths::{Finding, PathInfo, PathLimits};
pub(crate) use sessions::{ChainId, Sessions};
pub use sessions::{SessionInfo, SessionLimits};
pub(crate) use tombstones::Tombstones;
