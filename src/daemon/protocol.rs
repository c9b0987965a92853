//! The control socket's protocol: one JSON object per line, a request, then its reply in one or more lines.
//!
//! A client sends `{"version":1,"request":{"command":"status"}}` and reads lines until one without `"more":true`.
//! Each line carries either `"ok"` or `"error"`. A connection may carry several requests, one after the other.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::selector::{Policy, Selected, Selector};

/// The version of this protocol. Another one is refused, never guessed at.
pub const VERSION: u32 = 1;
/// The longest request, in bytes with its newline.
pub const REQUEST_MAX: usize = 256 << 10;
/// Maximum number of list items in one line of a reply; the next line continues the list.
pub const ITEMS_PER_LINE: usize = 128;

/// A line from a client.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What is requested.
    pub request: Command,
}

/// Commands to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// The daemon's state: [`super::status::Status`].
    Status {},
    /// All connections: a list of [`crate::engine::FlowInfo`].
    Flows {},
    /// One connection: a [`crate::engine::FlowInfo`].
    Flow {
        /// Address and port on the plain side.
        local: SocketAddr,
        /// Address and port on the wire side.
        remote: SocketAddr,
    },
    /// What an application can ask about one connection: a [`crate::engine::FlowSession`] (ENO-19).
    Session {
        /// Address and port on the plain side.
        local: SocketAddr,
        /// Address and port on the wire side.
        remote: SocketAddr,
    },
    /// Starts a rekey of one connection (TC-31).
    Rekey {
        /// Address and port on the plain side.
        local: SocketAddr,
        /// Address and port on the wire side.
        remote: SocketAddr,
    },
    /// Probes what the path to a service does with ENO, by opening connections: [`super::diagnosis::ProbeReply`]. It
    /// takes up to 20 seconds.
    Probe {
        /// Address and port of the service.
        remote: SocketAddr,
    },
    /// Forgets what is remembered about paths; the answer is their number.
    ForgetPaths {
        /// Those to and from this host; all if absent.
        host: Option<std::net::IpAddr>,
        /// Of those, the one to this port.
        port: Option<u16>,
    },
    /// Protects more connections, or changes policy and options of selectors.
    Enable {
        /// Which connections, with options.
        selectors: Vec<Selected>,
        /// What to do with them; the daemon's default if absent.
        policy: Option<Policy>,
    },
    /// Removes selectors.
    Disable {
        /// Each as it was given.
        selectors: Vec<Selector>,
    },
    /// The sessions that can be resumed: a list of [`crate::engine::SessionInfo`].
    CacheList {},
    /// Erases sessions that could be resumed: [`Flushed`].
    CacheFlush {
        /// Those with this host only.
        peer: Option<IpAddr>,
    },
    /// Erases what one connection resumed and what it would let others resume (TC-22): [`Flushed`].
    CacheFlushConnection {
        /// Address and port on the plain side.
        local: SocketAddr,
        /// Address and port on the wire side.
        remote: SocketAddr,
    },
    /// Stops the daemon and restores the host. The reply comes when that has begun; the end of the connection means
    /// that the process is gone.
    Down {},
}

impl Command {
    /// With IPv4-mapped IPv6 addresses (`::ffff:10.0.0.1`, as sockets have them) as the IPv4 addresses by which
    /// connections are known.
    #[must_use]
    pub(super) fn canonical(mut self) -> Self {
        match &mut self {
            Self::Flow { local, remote }
            | Self::Session { local, remote }
            | Self::Rekey { local, remote }
            | Self::CacheFlushConnection { local, remote } => {
                for end in [local, remote] {
                    *end = SocketAddr::new(end.ip().to_canonical(), end.port());
                }
            }
            Self::Probe { remote } => *remote = SocketAddr::new(remote.ip().to_canonical(), remote.port()),
            Self::ForgetPaths { host: Some(host), .. } | Self::CacheFlush { peer: Some(host) } => {
                *host = host.to_canonical();
            }
            _ => {}
        }
        self
    }

    /// Whether it changes something, which only root may do.
    #[must_use]
    pub fn changes(&self) -> bool {
        !matches!(
            self,
            Self::Status {} | Self::Flows {} | Self::Flow { .. } | Self::Session { .. } | Self::CacheList {}
        )
    }
}

/// The result of flushing the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// Sessions erased.
    pub flushed: usize,
}

/// A line to a client.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`].
    pub version: u32,
    /// The answer, or a part of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Another line of the same answer follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// The outcome of a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Success.
    Ok(Value),
    /// Failure.
    Error(Failure),
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For programs.
    pub kind: FailureKind,
    /// For people: what happened and what to do.
    pub message: String,
}

/// Kinds of [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The request itself is wrong.
    BadRequest,
    /// The client speaks another [`VERSION`].
    Version,
    /// The client may not do that.
    NotPermitted,
    /// What was named does not exist.
    NotFound,
    /// It could not be done.
    Failed,
    /// The daemon is shutting down or has too many clients.
    Busy,
}

impl Failure {
    /// A failure with its message.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_have_the_documented_form() {
        let request = Request { version: VERSION, request: Command::Status {} };
        assert_eq!(serde_json::to_string(&request).unwrap(), r#"{"version":1,"request":{"command":"status"}}"#);
        let reply = Reply { version: VERSION, outcome: Outcome::Ok(Value::Null), more: true };
        assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"version":1,"ok":null,"more":true}"#);
        let failure = Failure::new(FailureKind::NotFound, "no");
        let reply = Reply { version: VERSION, outcome: Outcome::Error(failure), more: false };
        let text = serde_json::to_string(&reply).unwrap();
        assert_eq!(text, r#"{"version":1,"error":{"kind":"not-found","message":"no"}}"#);
        assert!(matches!(serde_json::from_str::<Reply>(&text).unwrap().outcome, Outcome::Error(_)));
    }

    #[test]
    fn unknown_commands_and_fields_are_refused() {
        for bad in [
            r#"{"version":1,"request":{"command":"reboot"}}"#,
            r#"{"version":1,"request":{"command":"status","now":true}}"#,
            r#"{"version":1,"request":{"command":"enable","selectors":["10.0.0.1/8"],"policy":null}}"#,
            r#"{"version":1}"#,
        ] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_those_that_connections_are_known_by() {
        let (local, remote) = ("[::ffff:10.0.0.1]:80".parse().unwrap(), "[fe80::1%3]:5".parse().unwrap());
        let Command::Session { local, remote } = (Command::Session { local, remote }).canonical() else { panic!() };
        assert_eq!((local.to_string(), remote.to_string()), ("10.0.0.1:80".to_owned(), "[fe80::1]:5".to_owned()));
        let peer = Some("::ffff:10.0.0.2".parse().unwrap());
        let flush = Command::CacheFlush { peer }.canonical();
        assert_eq!(flush, Command::CacheFlush { peer: Some("10.0.0.2".parse().unwrap()) });
    }

    #[test]
    fn looking_changes_nothing_and_everything_else_does() {
        assert!(!Command::Status {}.changes());
        assert!(!Command::Flows {}.changes());
        assert!(!Command::CacheList {}.changes());
        assert!(Command::CacheFlush { peer: None }.changes());
        assert!(Command::Down {}.changes());
        assert!(Command::Disable { selectors: Vec::new() }.changes());
    }
}
