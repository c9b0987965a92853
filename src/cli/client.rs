//! The client's side of the control socket.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::common::CommandError;
use crate::daemon::instance::Instance;
use crate::daemon::protocol::{Command, Outcome, Reply, Request, VERSION};

/// How long the daemon may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to a running daemon.
pub(super) struct Client {
    stream: BufReader<UnixStream>,
    instance: Instance,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// No daemon runs.
    #[error("no daemon runs as instance `{instance}`; start it with `enotun up{}`{}", option(.instance), also(.others))]
    NotRunning {
        /// Which.
        instance: Instance,
        /// Names of those that do run.
        others: Vec<String>,
    },
    /// One runs but cannot be reached.
    #[error("cannot reach the daemon of instance `{instance}` at {}: {error}{}", .instance.socket().display(), hint(.error))]
    Unreachable {
        /// Which.
        instance: Instance,
        /// Why.
        error: std::io::Error,
    },
}

/// The option by which a command names an instance.
fn option(instance: &Instance) -> String {
    if instance.as_str() == super::common::DEFAULT_TUN { String::new() } else { format!(" --instance {instance}") }
}

/// The intended daemon may have another name.
fn also(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names.get(..SHOWN.min(names.len())) {
        None | Some([]) => String::new(),
        Some(shown) => {
            let more = if names.len() > SHOWN { ", .." } else { "" };
            format!(", or name one that runs with --instance: {}{more}", shown.join(", "))
        }
    }
}

fn hint(error: &std::io::Error) -> &'static str {
    if error.kind() == ErrorKind::PermissionDenied { "; run this as root" } else { "" }
}

impl Client {
    /// Connects to the daemon of `instance`.
    pub(super) fn connect(instance: &Instance) -> Result<Self, ConnectError> {
        let unreachable = |error| ConnectError::Unreachable { instance: instance.clone(), error };
        let stream = UnixStream::connect(instance.socket()).map_err(|error| match error.kind() {
            // Refused: the socket of a daemon that died.
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                ConnectError::NotRunning { instance: instance.clone(), others: instance.others_running() }
            }
            _ => unreachable(error),
        })?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(unreachable)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(unreachable)?;
        Ok(Self { stream: BufReader::new(stream), instance: instance.clone() })
    }

    /// Sends one command and returns the answer. The parts of a list are joined.
    pub(super) fn ask(&mut self, command: Command) -> Result<Value, CommandError> {
        let mut line =
            serde_json::to_vec(&Request { version: VERSION, request: command }).map_err(CommandError::new)?;
        line.push(b'\n');
        let instance = &self.instance;
        let lost = |error: std::io::Error| {
            let what = match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => "it does not answer".to_owned(),
                _ => error.to_string(),
            };
            CommandError::new(format!("lost the daemon of instance `{instance}`: {what}; its log (stderr) may say why"))
        };
        self.stream.get_mut().write_all(&line).map_err(lost)?;
        let mut items = Vec::new();
        loop {
            line.clear();
            if self.stream.read_until(b'\n', &mut line).map_err(lost)? == 0 {
                return Err(lost(ErrorKind::UnexpectedEof.into()));
            }
            let reply: Reply = serde_json::from_slice(&line).map_err(|error| {
                CommandError::new(format!("the daemon's answer is not understood ({error}); is it another version?"))
            })?;
            match reply.outcome {
                Outcome::Error(failure) => return Err(CommandError::new(failure)),
                Outcome::Ok(Value::Array(part)) => {
                    items.extend(part);
                    if !reply.more {
                        return Ok(Value::Array(items));
                    }
                }
                Outcome::Ok(value) => return Ok(value),
            }
        }
    }

    /// Waits until the daemon is gone.
    pub(super) fn wait_for_end(mut self) -> Result<(), CommandError> {
        let mut rest = [0; 64];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(_) => {
                    let message = format!(
                        "the daemon of instance `{}` was told to stop and has not after {} s; its log says why. After a `kill -9` of it, `enotun down` cleans up",
                        self.instance,
                        TIMEOUT.as_secs()
                    );
                    return Err(CommandError::new(message));
                }
            }
        }
    }
}

/// Connects, sends one command, and returns the raw answer.
pub(super) fn ask(instance: &Instance, command: Command) -> Result<Value, CommandError> {
    Client::connect(instance).map_err(CommandError::new)?.ask(command)
}

/// Decodes a `value` from the daemon.
pub(super) fn decode<T: DeserializeOwned>(value: Value) -> Result<T, CommandError> {
    serde_json::from_value(value).map_err(|error| {
        CommandError::new(format!("the daemon's answer is not understood ({error}); is it another version?"))
    })
}
