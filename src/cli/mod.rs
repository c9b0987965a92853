//! The command line: one file per command. Exit statuses: 0 done, 1 failed, 2 wrong usage.

mod address;
mod cache;
mod client;
mod common;
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
mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use common::{CommandError, Common, Connection};

const ABOUT: &str = "Encrypts TCP connections on the wire (TCP-ENO, RFC 8547; tcpcrypt, RFC 8548)";

const LONG_ABOUT: &str = "\
Encrypts TCP connections on the wire with TCP-ENO (RFC 8547) and tcpcrypt (RFC 8548), with no change to \
applications or to the kernel's TCP. `enotun up` is the daemon: it stays in the foreground and diverts the \
selected connections through two TUN devices. The other commands talk to it through its control socket.

The peer is not authenticated: this protects against eavesdroppers, not against an attacker who can impersonate \
the peer, unless the session IDs of both ends are compared.";

const SELECTOR_HELP: &str = "\
Selectors name the remote side of connections:
  192.0.2.7   10.0.0.0/8   2001:db8::/32      every port of an address or network
  10.0.0.0/8:443   [2001:db8::1]:8000-8100    a port or a range of ports
  db.example   db.example:5432                the addresses of a host name
  :5432                                       that port of any address
or, for services offered here, the local side:
  local:8080                                  whoever connects to port 8080
A selector inside another is an exception to it, and decides. Where two cross instead (a port
and a network), `required` decides, then `off`, then `opportunistic`; `required` and `off` must
not cross. `required` takes no host names: a name's next address would not be known.

Options follow a selector, separated by commas, as in 10.0.0.0/8:443,no-resume:
  no-resume         neither propose nor accept session resumption: always exchange fresh keys
  no-cache          do not cache the session for later connections to resume
  aware             tell the peer that the application knows of the encryption (a = 1)
  mandatory-aware   encrypt only if the peer's application knows of it, too
  role-b            take role B when this host opens: for one side of a simultaneous open;
                    with any other peer the connection is plain";

const EXAMPLES: &str = "\
Examples:
  enotun up 10.0.0.0/8                    protect everything to and from 10.0.0.0/8
  enotun up --policy required :5432       never plain: refuse what cannot be encrypted
  enotun up --dry-run 10.0.0.0/8          show what would change on this host
  enotun flows                            list connections: state, cipher, reason
  enotun down                             stop, and restore the host

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

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon, in the foreground, until SIGTERM, SIGINT or `enotun down`
    ///
    /// Sets up two TUN devices (`tun0` for plaintext, `tun0-w` for ciphertext), rules, routes and nftables chains for
    /// the selected connections, and encrypts them. Everything is restored on exit. Logs go to stderr. The daemon is
    /// ready when `enotun status` succeeds; it notifies systemd (Type=notify). SIGHUP reloads the configuration.
    #[command(after_help = SELECTOR_HELP)]
    Up(up::Arguments),
    /// Stop the daemon and restore the host; also cleans up after one that crashed
    ///
    /// Encrypted connections are reset on both sides first, so that none continues in the clear. It is an error
    /// (status 1) if no daemon runs and there is nothing to clean up.
    Down,
    /// Protect more connections now, or change the policy and options of a selector
    ///
    /// Applies to new connections, and lasts until the daemon exits. Giving a selector again replaces its policy and options.
    #[command(after_help = SELECTOR_HELP)]
    Enable(selectors::EnableArguments),
    /// Remove selectors, each written as it was given
    ///
    /// Encrypted connections stay encrypted until they end. To exempt part of a wider selector, use
    /// `enotun enable --policy off PART`.
    Disable(selectors::DisableArguments),
    /// Show uptime, selectors, counters and problems
    Status,
    /// List connections: state, cipher, reason
    Flows,
    /// Show the session ID and role of one connection, or fail if it has none
    ///
    /// Both ends of a connection have the same session ID if and only if nobody has interposed with keys of their own (RFC
    /// 8547, section 5.1). Comparing it over an authenticated channel authenticates the connection.
    Session(Connection),
    /// List or erase resumable sessions, kept in memory
    #[command(subcommand)]
    Cache(cache::Command),
    /// Replace the keys of one connection now
    Rekey(Connection),
    /// Test whether the path to a service passes ENO, or forget what is remembered about paths
    ///
    /// Opens one to three connections, sends no data on them, and distinguishes: encrypted; no ENO at the peer; ENO
    /// stripped on the forward path, on the return path, or from non-SYN segments; SYNs with ENO dropped. One end cannot
    /// see everything: the answer says what was seen, told by the peer's enotun, inferred, or remains open. It may take
    /// 20 seconds. The finding is remembered. Exit status 0 if a connection was encrypted, 1 otherwise.
    Probe(probe::Arguments),
    /// Check this host for anything that would keep enotun from working
    ///
    /// Says what to do about each problem, and changes nothing. Exit status 1 if something does not work.
    Doctor,
}

/// Parses the arguments and executes the command.
#[must_use]
pub fn main() -> ExitCode {
    main_with(crate::crypto::provider())
}

/// [`main`] with `provider` for the daemon's cryptography: for measurements. `enotun status` and the log name a
/// provider that is not the default.
#[must_use]
pub fn main_with(provider: &'static dyn tcpcrypt::Provider) -> ExitCode {
    let done = match Cli::try_parse() {
        Ok(cli) => run(cli, provider),
        // Help and version, which go to stdout.
        Err(error) if error.exit_code() == 0 => error.exit(),
        Err(error) => Err(CommandError::usage(usage::one_line(&error))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            if !failed.message.is_empty() {
                eprintln!("enotun: {}", failed.message);
            }
            ExitCode::from(failed.status)
        }
    }
}

fn run(cli: Cli, provider: &'static dyn tcpcrypt::Provider) -> Result<(), CommandError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
