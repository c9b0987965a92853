//! enotun: TCP-ENO (RFC 8547) and tcpcrypt (RFC 8548) as a TUN-based endpoint.

pub mod cli;
pub mod crypto;
pub mod daemon;
pub mod engine;
mod flow;
pub mod io;
pub mod linux;
pub mod selector;
mod store;
pub mod time;
pub mod wire;
