//! Which connection a segment belongs to.

use std::net::{IpAddr, SocketAddr};

/// The two ends of a connection. Each connection has it in the table, in its timer and in itself, so it is kept small: no scope of
/// IPv6 addresses, which packets do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    addresses: [IpAddr; 2],
    ports: [u16; 2],
}

impl FlowKey {
    /// `local` is on the plain side, `remote` on the wire side.
    #[must_use]
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { addresses: [local.ip(), remote.ip()], ports: [local.port(), remote.port()] }
    }

    /// The end on the plain side.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.addresses[0], self.ports[0])
    }

    /// The end on the wire side.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.addresses[1], self.ports[1])
    }
}
