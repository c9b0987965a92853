//! Signs that this machine was cloned, rolled back or stopped (TC-14, TC-19).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// A sign that this machine's memory is older than the world around it, or in use twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disruption {
    /// The hypervisor reports that this machine is a copy, or was rolled back.
    VmGeneration,
    /// The hypervisor reports that the machine was moved or restored, and cannot tell which.
    Moved,
    /// The machine was suspended.
    Suspend,
    /// This process did not run for a long time, though the clocks did.
    Stop,
    /// The wall clock was set.
    ClockStep,
    /// An interface has lost its link and came back with another address.
    AddressChange,
}

impl Disruption {
    /// Whether another copy with the same keys is to be expected, rather than just possible.
    #[must_use]
    pub fn is_certain(self) -> bool {
        self == Self::VmGeneration
    }
}

impl fmt::Display for Disruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VmGeneration => "this virtual machine was cloned or rolled back",
            Self::Moved => "this virtual machine was moved or restored",
            Self::Suspend => "this machine was suspended",
            Self::Stop => "this process was stopped for long",
            Self::ClockStep => "the wall clock was set",
            Self::AddressChange => "an interface came back with another address",
        })
    }
}

/// A sign and the reaction to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disrupted {
    /// The sign.
    pub sign: Disruption,
    /// When it was acted on.
    pub at: Instant,
    /// Resumable sessions erased.
    pub sessions_flushed: usize,
    /// Connections that have new keys, or get them with their next frame.
    pub connections_rekeyed: usize,
    /// Connections aborted, those whose keys were being made included.
    pub connections_aborted: usize,
}

impl fmt::Display for Disrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} cached sessions erased, {} connections rekeyed, {} aborted",
            self.sign, self.sessions_flushed, self.connections_rekeyed, self.connections_aborted
        )
    }
}
