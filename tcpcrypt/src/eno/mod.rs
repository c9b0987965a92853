//! TCP-ENO (RFC 8547): the option, the negotiation, the handshake.

pub mod ack;
pub mod negotiate;
pub(crate) mod negotiated;
pub mod option;
pub mod transcript;
