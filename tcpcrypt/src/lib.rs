//! TCP-ENO (RFC 8547) and tcpcrypt (RFC 8548): the protocol alone.
//!
//! The crate speaks options and byte streams, not packets. It does no I/O, reads no clock and has no random source
//! of its own: random bytes come in as arguments, and a caller that passes the same ones gets the same results.
//! `ENO-n` and `TC-n` in comments are the project's numbered requirements, restated from the two RFCs.
//!
//! # Order of calls
//!
//! 1. SYNs. An active opener sends [`eno::negotiate::active_option`], a passive one answers what
//!    [`eno::option::find_syn`] found with [`eno::negotiate::passive_reply`]. Once both options are known, each calls
//!    [`eno::negotiate::conclude`].
//! 2. [`eno::ack::AckPhase`] says which segments carry the option, and when plain TCP or encryption is final.
//! 3. Key exchange, unless the outcome is a resumed session. A: [`handshake::Initiator::start`], send Init1, gather
//!    Init2 (as long as [`messages::message_len`] says), [`handshake::Initiator::handle_init2`]. B: gather Init1,
//!    [`handshake::respond`], send Init2. Both end with a [`resume::Session`].
//! 4. [`record::Record::new`] from the session; [`record::Record::seal`] and [`record::Record::open`] for each frame,
//!    at its offset in the stream. [`frame::Header`] finds where a frame ends.
//! 5. [`resume::Session::id`] is the session ID; [`resume::Session::into_next`] is what may be cached to resume later.
//!
//! Cryptography is a [`kex::Provider`]; [`rust_crypto::PROVIDER`] is the one that comes with the crate.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod aead;
mod codec;
pub mod constants;
pub mod eno;
mod error;
pub mod frame;
pub mod handshake;
pub mod kex;
pub mod messages;
mod nonce;
pub mod record;
pub mod resume;
pub mod rust_crypto;
pub mod schedule;
pub mod stack;
mod tep;

pub use aead::AeadId;
pub use eno::ack::{Acceptable, AckPhase, Decision};
pub use eno::negotiate::{Aware, Negotiated, NegotiationConfig, Outcome, PlainReason};
pub use error::{Error, Malformed, Misuse, NoCommonGround, PeerViolation};
pub use frame::{Opened, Plaintext};
pub use kex::Provider;
pub use record::{KeyUse, OpenError, Record};
pub use resume::{CachedSecret, Proposal, Session};
pub use schedule::SessionId;
pub use tep::{Role, Tep};
