//! Packets as bytes: views, builders, offload metadata and the two sequence spaces. Pure.

pub mod build;
pub mod checksum;
pub mod flow_key;
pub mod gro;
pub mod icmp;
pub mod mss;
pub mod options;
pub mod outgoing;
pub mod packet;
pub mod segment;
pub mod seq;
pub mod split;

pub use flow_key::FlowKey;
pub use outgoing::{HeaderBuf, Outgoing};
pub use packet::{Checksum, Flags, Gso, Offload, Packet};
pub use segment::Segment;
pub use seq::{C, Offset, P, Seq};
