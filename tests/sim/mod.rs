//! A simulated network: two hosts, each a smoltcp TCP stack and an engine, virtual time, everything from one seed.

pub mod app;
pub mod host;
pub mod net;
pub mod profile;
pub mod run;
pub mod watch;
