//! Probes among the connections.

use std::net::SocketAddr;

use super::probe::{Probe, ProbeReport};
use super::state::Engine;
use crate::flow::{Flow, FlowState, ProbeMode, Side};
use crate::wire::FlowKey;
use crate::wire::icmp::IcmpError;

impl Engine {
    /// Makes the connection between `local`, on the plain side, and `remote` a probe, whatever its selector says. It
    /// does not exist yet. [`Self::end_probe`] must follow.
    pub fn begin_probe(&mut self, local: SocketAddr, remote: SocketAddr, mode: ProbeMode) {
        self.probes.insert(FlowKey::new(local, remote), Probe::new(mode));
    }

    /// The observations of a probe so far.
    #[must_use]
    pub fn probe(&self, local: SocketAddr, remote: SocketAddr) -> Option<ProbeReport> {
        let key = FlowKey::new(local, remote);
        let (state, reason) = match self.table.get(&key) {
            None => (None, None),
            // Neither end has data to send in a frame.
            Some(Flow::Encrypted(encrypted)) if encrypted.is_ready() => (Some(FlowState::Encrypted), None),
            Some(flow) => {
                let info = flow.info(&key);
                (Some(info.state), info.reason)
            }
        };
        self.probes.get(&key).map(|probe| probe.report(state, reason))
    }

    /// From here on the connection, if it still exists, is treated like any other.
    pub fn end_probe(&mut self, local: SocketAddr, remote: SocketAddr) {
        self.probes.remove(&FlowKey::new(local, remote));
    }

    /// Handles an ICMP error about a probe; returns whether it was one.
    pub(super) fn probe_quoted(&mut self, side: Side, key: FlowKey, error: &IcmpError, bytes: &[u8]) -> bool {
        side == Side::Wire && self.probes.get_mut(&key).is_some_and(|probe| probe.from_router(error, bytes))
    }
}
