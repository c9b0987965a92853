//! A connection whose handshake negotiated encryption: from then on nothing but frames is on the wire.

mod action;
mod closed;
mod emit;
mod encrypted;
mod facts;
mod icmp;
mod keys;
mod outcome;
mod params;
mod portion;
mod receiver;
mod sender;
mod timer;

pub(crate) use action::Actions;
pub(crate) use closed::{Closed, End};
pub(crate) use encrypted::{Encrypted, Start};
pub(crate) use keys::{Caching, Keys, Open};
pub(crate) use outcome::{AbortReason, Exchange, Next};
pub(crate) use params::HandshakeParams;
pub(crate) use receiver::Waits;
pub(crate) use sender::Sender;
