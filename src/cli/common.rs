//! Shared by all commands.

use std::net::SocketAddr;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use super::address;
use crate::daemon::instance::Instance;
use crate::selector::{Policy, SelectorError};

/// The default device and instance.
pub(super) const DEFAULT_TUN: &str = "tun0";

/// Common options.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Which daemon, if several run on this machine [default: the TUN device's name, tun0]
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) instance: Option<Instance>,
    /// Print JSON (`up`: with --dry-run)
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl Common {
    pub(super) fn instance(&self) -> Result<Instance, CommandError> {
        match &self.instance {
            Some(instance) => Ok(instance.clone()),
            None => DEFAULT_TUN.parse().map_err(CommandError::usage),
        }
    }
}

/// One connection.
#[derive(Debug, Args)]
pub(super) struct Connection {
    /// Address and port on this side, as `enotun flows` or ss(8) prints them: 10.0.0.1:40000, [2001:db8::1]:40000
    #[arg(value_parser = address::end)]
    pub(super) local: SocketAddr,
    /// Address and port of the peer
    #[arg(value_parser = address::end)]
    pub(super) remote: SocketAddr,
}

/// Why a command failed, with its exit status.
#[derive(Debug)]
pub(super) struct CommandError {
    pub(super) status: u8,
    pub(super) message: String,
}

impl CommandError {
    pub(super) fn usage(error: impl std::fmt::Display) -> Self {
        Self { status: 2, message: error.to_string() }
    }

    pub(super) fn new(error: impl std::fmt::Display) -> Self {
        Self { status: 1, message: error.to_string() }
    }
}

/// Parses a policy; the possible values appear in the help.
pub(super) fn policy_parser() -> impl clap::builder::TypedValueParser<Value = Policy> {
    PossibleValuesParser::new(["opportunistic", "required", "off"])
        .try_map(|text| text.parse::<Policy>().map_err(|error: SelectorError| error))
}
