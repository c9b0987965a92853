//! The command line: one file per command. Exit statuses: 0 done, 1 failed, 2 wrong usage.

mod cache;
mod client;
mod doctor;
mod down;
mod flows;
mod output;
mod probe;
mod rekey;
mod selectors;
mod session;
mod status;
mod up;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand};

use crate::daemon::instance::Instance;
use crate::selector::{Policy, SelectorError};

/// The device and instance if nothing is said.
const DEFAULT_TUN: &str = "tun0";

const ABOUT: &str = "Encrypts TCP connections on the wire (TCP-ENO, RFC 8547; tcpcrypt, RFC 8548)";

const LONG_ABOUT: &str = "\
Encrypts TCP connections on the wire with TCP-ENO (RFC 8547) and tcpcrypt (RFC 8548), without any change to
applications or to the kernel's TCP. `enotun up` is the daemon; it stays in the foreground and diverts the selected
connections through two TUN devices. The other commands ask it or tell it something through its control socket.

The peer is not authenticated: this protects from whoever only listens, not from whoever can pose as the peer, unless
the session IDs of both ends are compared.";

const SELECTOR_HELP: &str = "\
Selectors name the remote side of connections:
  192.0.2.7   10.0.0.0/8   2001:db8::/32      every port of an address or network
  10.0.0.0/8:443   [2001:db8::1]:8000-8100    a port or a range of ports
  db.example   db.example:5432                the addresses of a host name
  :5432                                       that port of any address
or, for services offered here, the local side:
  local:8080                                  whoever connects to port 8080
The most specific one decides: the longest prefix, then the smaller number of ports.

Options stand behind a selector, with commas, as in 10.0.0.0/8:443,no-resume:
  no-resume         neither propose nor accept to resume a session: always fresh keys
  no-cache          keep no session for others to resume
  aware             tell the peer that the application knows of the encryption (a = 1)
  mandatory-aware   no encryption unless the peer's application knows of it, too
  role-b            be B where this host opens: for one side of a simultaneous open,
                    and with everybody else a plain connection";

const EXAMPLES: &str = "\
Examples:
  enotun up 10.0.0.0/8                    protect everything to and from 10.0.0.0/8
  enotun up --policy required db.example:5432
  enotun up --dry-run 10.0.0.0/8          show what would be changed on this host
  enotun flows                            who is encrypted, who is not, and why
  enotun down                             stop, and put everything back

Exit status: 0 done, 1 failed, 2 wrong usage.";

/// All arguments.
#[derive(Debug, Parser)]
#[command(name = "enotun", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
struct Common {
    /// Which daemon, where several run on one machine [default: the TUN's name, tun0]
    #[arg(long, global = true, value_name = "NAME")]
    instance: Option<Instance>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

impl Common {
    fn instance(&self) -> Result<Instance, Failed> {
        match &self.instance {
            Some(instance) => Ok(instance.clone()),
            None => DEFAULT_TUN.parse().map_err(Failed::usage),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon, in the foreground, until SIGTERM, SIGINT or `enotun down`
    ///
    /// Sets up two TUN devices (`tun0` for plaintext, `tun0-w` for ciphertext), rules, routes and nftables chains for
    /// the selected connections, and encrypts them. Everything is put back when it ends. Logs go to stderr; it is
    /// ready when `enotun status` succeeds, and says so to systemd (Type=notify). SIGHUP reads the configuration again.
    #[command(after_help = SELECTOR_HELP)]
    Up(up::Arguments),
    /// Stop the daemon and put everything back; also cleans up after one that crashed
    ///
    /// Encrypted connections are reset on both sides first, so that none goes on in plain. It is an error (status 1) if
    /// no daemon runs and nothing is left of one.
    Down,
    /// Protect more connections now, or change policy and options of a selector
    ///
    /// Applies to new connections, and lasts until the daemon ends.
    #[command(after_help = SELECTOR_HELP)]
    Enable(selectors::EnableArguments),
    /// Take selectors away again, each written as it was given
    ///
    /// Connections that are encrypted stay so until they end. To leave out a part of a wider selector, use
    /// `enotun enable --policy off PART`.
    Disable(selectors::DisableArguments),
    /// How the daemon is: since when it is up, what is protected, what happened
    Status,
    /// All connections: who is encrypted, who is plain and why
    Flows,
    /// The session ID and role of one connection, or an error if it has none
    ///
    /// Both ends of a connection have the same session ID exactly if nobody is between them (RFC 8547, section 5.1).
    /// Comparing it over a channel that is authenticated authenticates the connection.
    Session(Connection),
    /// Sessions kept in memory, which later connections resume without a key exchange: list or erase them
    #[command(subcommand)]
    Cache(cache::Command),
    /// Change the keys of one connection now
    Rekey(Connection),
    /// Find out what the path to a service does with ENO, or forget what is remembered of paths
    ///
    /// Opens one to three connections, sends no data on them, and tells apart: encrypted; no ENO at the peer; ENO removed on
    /// the way there, on the way back, or from segments without SYN; SYNs with ENO that vanish. One end cannot see
    /// everything: the answer says what was seen, told by the peer's enotun, inferred, or stays open. It may take 20
    /// seconds. What it finds is remembered. Exit status 0 if a connection was encrypted, 1 otherwise.
    Probe(probe::Arguments),
    /// Look for what would keep enotun from working on this host, and what to do about it
    ///
    /// Changes nothing. Exit status 1 if something does not work as it is.
    Doctor,
}

/// One connection.
#[derive(Debug, Args)]
struct Connection {
    /// Address and port on this side, e.g. 10.0.0.1:40000 or [2001:db8::1]:40000
    #[arg(value_parser = parse_end)]
    local: SocketAddr,
    /// Address and port of the peer
    #[arg(value_parser = parse_end)]
    remote: SocketAddr,
}

/// Parses one end of a connection.
fn parse_end(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "`{text}` is no address with a port; write it as `enotun flows` does, 10.0.0.1:40000 or [2001:db8::1]:40000"
        )
    })
}

/// Why a command did not succeed, with its exit status.
#[derive(Debug)]
struct Failed {
    status: u8,
    message: String,
}

impl Failed {
    fn usage(error: impl std::fmt::Display) -> Self {
        Self { status: 2, message: error.to_string() }
    }

    fn new(error: impl std::fmt::Display) -> Self {
        Self { status: 1, message: error.to_string() }
    }
}

/// Reads the arguments and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    main_with(crate::crypto::provider())
}

/// [`main`], with the daemon's cryptography by `provider`: for measuring. `enotun status` and the log name a provider that
/// is not the usual one.
#[must_use]
pub fn main_with(provider: &'static dyn tcpcrypt::Provider) -> ExitCode {
    // Help and version go to stdout with status 0, usage errors to stderr with status 2.
    let cli = Cli::try_parse().unwrap_or_else(|error| error.exit());
    match run(cli, provider) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            if !failed.message.is_empty() {
                eprintln!("enotun: {}", failed.message);
            }
            ExitCode::from(failed.status)
        }
    }
}

fn run(cli: Cli, provider: &'static dyn tcpcrypt::Provider) -> Result<(), Failed> {
    let common = &cli.common;
    match cli.command {
        Command::Up(arguments) => up::run(common, arguments, provider),
        Command::Down => down::run(common),
        Command::Enable(arguments) => selectors::enable(common, arguments),
        Command::Disable(arguments) => selectors::disable(common, arguments),
        Command::Status => status::run(common),
        Command::Flows => flows::run(common),
        Command::Session(connection) => session::run(common, &connection),
        Command::Cache(command) => cache::run(common, command),
        Command::Rekey(connection) => rekey::run(common, &connection),
        Command::Probe(arguments) => probe::run(common, &arguments),
        Command::Doctor => doctor::run(common),
    }
}

/// Parses a policy, its possible values being part of the help.
fn policy_parser() -> impl clap::builder::TypedValueParser<Value = Policy> {
    PossibleValuesParser::new(["opportunistic", "required", "off"])
        .try_map(|text| text.parse::<Policy>().map_err(|error: SelectorError| error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
