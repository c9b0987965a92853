//! Which connection a segment belongs to.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

/// The two ends of a connection. Each connection has it in the table, in its timer and in itself, so it is kept small: no scope of
/// IPv6 addresses, which packets do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowKey {
    addresses: [IpAddr; 2],
    ports: [u16; 2],
}

impl Hash for FlowKey {
    /// In as few pieces as possible: every packet's key is hashed, and a derived implementation feeds the hasher nine.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [local, remote] = self.ports.map(u32::from);
        let ports = local << 16 | remote;
        match self.addresses {
            [IpAddr::V4(local), IpAddr::V4(remote)] => {
                let addresses = u128::from(local.to_bits()) << 64 | u128::from(remote.to_bits()) << 32;
                state.write_u128(addresses | u128::from(ports));
            }
            addresses => {
                for address in addresses {
                    state.write_u128(match address {
                        IpAddr::V4(address) => address.to_bits().into(),
                        IpAddr::V6(address) => address.to_bits(),
                    });
                }
                state.write_u32(ports);
            }
        }
    }
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
