//! The engine's surroundings on a host: devices, the clock, randomness and the loop that moves packets.

mod busy_poll;
pub mod device;
mod disruption;
pub mod env;
mod gro;
pub mod keylog;
pub mod memory;
pub mod run;
mod sys;
pub mod vnet;

pub use busy_poll::BusyPoll;
pub use device::{Device, DeviceCounters, Format};
pub use disruption::log_disruption;
pub use env::now;
pub use keylog::{KeyLog, KeyLogError};
pub use run::{Caller, IoCounters, Stopped, WorkerError, WorkerHandle, spawn};
