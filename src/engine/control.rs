//! The control plane's queries and commands.

use std::net::{IpAddr, SocketAddr};

use super::state::Engine;
use crate::flow::{Counters, Env, Flow, FlowInfo, FlowSession, FlowState, Transition, settle};
use crate::selector::Policy;
use crate::store::{Finding, PathInfo, PathKey, SessionInfo};
use crate::time::Instant;
use crate::wire::FlowKey;

/// Why a command on one connection failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// There is no such connection.
    #[error("no connection {local} - {remote} is known")]
    Unknown {
        /// Address and port on the plain side.
        local: SocketAddr,
        /// Address and port on the wire side.
        remote: SocketAddr,
    },
    /// It is not encrypted.
    #[error("that connection is not encrypted")]
    NotEncrypted,
    /// It has no session ID.
    #[error("the connection {local} - {remote} is {state}{} and has no session ID", reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})")))]
    NoSession {
        /// Address and port on the plain side.
        local: SocketAddr,
        /// Address and port on the wire side.
        remote: SocketAddr,
        /// The state of its life cycle.
        state: FlowState,
        /// The reason, if any.
        reason: Option<String>,
    },
}

impl Engine {
    /// All connections, in no particular order.
    #[must_use]
    pub fn flows(&self) -> Vec<FlowInfo> {
        self.table.iter().map(|(key, flow)| flow.info(key)).collect()
    }

    /// Those of `open`, the local kernel's connections by local and remote address, that are selected and unknown
    /// here: they pass unchanged.
    #[must_use]
    pub fn unknown(&self, open: &[(SocketAddr, SocketAddr)]) -> Vec<FlowInfo> {
        let passes = |(local, remote): &&(SocketAddr, SocketAddr)| {
            let key = FlowKey::new(*local, *remote);
            let rule = self.policy.lookup(remote.ip(), remote.port(), local.port());
            rule.is_some_and(|rule| rule.policy == Policy::Opportunistic)
                && self.table.get(&key).is_none()
                && !self.unknown.is_over(&key)
        };
        let plain = |&(local, remote): &(SocketAddr, SocketAddr)| FlowInfo {
            reason: Some("unknown".to_owned()),
            ..FlowInfo::new(local, remote, FlowState::Plain)
        };
        open.iter().filter(passes).map(plain).collect()
    }

    /// One connection.
    #[must_use]
    pub fn flow(&self, local: SocketAddr, remote: SocketAddr) -> Option<FlowInfo> {
        let key = FlowKey::new(local, remote);
        self.table.get(&key).map(|flow| flow.info(&key))
    }

    /// Everything an application can ask about one connection (ENO-19).
    ///
    /// # Errors
    /// If there is no such connection, or it has no session ID.
    pub fn session(&self, local: SocketAddr, remote: SocketAddr) -> Result<FlowSession, FlowError> {
        let key = FlowKey::new(local, remote);
        let flow = self.table.get(&key).ok_or(FlowError::Unknown { local, remote })?;
        flow.session(&key).ok_or_else(|| {
            let FlowInfo { state, reason, .. } = flow.info(&key);
            FlowError::NoSession { local, remote, state, reason }
        })
    }

    /// The sessions that can be resumed, oldest first.
    #[must_use]
    pub fn sessions(&self, now: Instant) -> Vec<SessionInfo> {
        self.sessions.list(now)
    }

    /// Connections, by local and remote address, that are over here while the local kernel may continue with them: it
    /// is not known yet whether it got the RST.
    #[must_use]
    pub fn reset_unconfirmed(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let closed = self.table.iter().filter(|(_, flow)| match flow {
            Flow::Closed(closed) => closed.kernel_may_go_on(),
            _ => false,
        });
        closed.map(|(key, _)| key).chain(self.unknown.over()).map(|key| (key.local(), key.remote())).collect()
    }

    /// Number of resumable sessions.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Erases all resumable sessions, or those with the host `peer`; returns their number. Connections continue;
    /// their later ones make fresh keys.
    pub fn flush_sessions(&mut self, peer: Option<IpAddr>) -> usize {
        self.sessions.flush(peer)
    }

    /// What is remembered about paths: avoided ones first, then by last use, most recent first.
    #[must_use]
    pub fn paths(&self, now: Instant) -> Vec<PathInfo> {
        self.paths.list(now)
    }

    /// What is remembered about the path to `remote`.
    #[must_use]
    pub fn path(&self, now: Instant, remote: SocketAddr) -> Option<PathInfo> {
        self.paths.info(now, PathKey::new(remote, true))
    }

    /// Remembers a finding about the path to `remote`.
    pub fn learn_path(&mut self, now: Instant, remote: SocketAddr, finding: Finding) {
        self.paths.learn(now, PathKey::new(remote, true), finding);
    }

    /// Forgets what is remembered about all paths, those to and from one host, or those to one of its ports; returns
    /// their number.
    pub fn forget_paths(&mut self, host: Option<IpAddr>, port: Option<u16>) -> usize {
        self.paths.forget(host, port)
    }

    /// Erases what a connection resumed and what it has cached, and keeps it from caching anything more (TC-22).
    /// Returns whether there was anything to erase.
    ///
    /// # Errors
    /// If there is no such connection or it is not encrypted.
    pub fn flush_flow_session(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<bool, FlowError> {
        match self.table.get_mut(&FlowKey::new(local, remote)) {
            None => Err(FlowError::Unknown { local, remote }),
            Some(Flow::Encrypted(encrypted)) => Ok(encrypted.forget_session(&mut self.sessions)),
            Some(_) => Err(FlowError::NotEncrypted),
        }
    }

    /// The counters since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Bytes of memory held for connections: data beyond a gap, and plaintext awaiting the kernel. Frames in flight are not
    /// counted: the send buffers of the kernel bound them.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.table.held()
    }

    /// Number of connections in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Number of timers set: at most one per connection.
    #[must_use]
    pub fn timers(&self) -> usize {
        self.table.timers()
    }

    /// Whether the table is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Starts a rekey of one connection now (TC-31).
    ///
    /// # Errors
    /// If there is no such connection or it is not encrypted.
    pub fn rekey(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        env: &mut dyn Env,
    ) -> Result<(), FlowError> {
        let key = FlowKey::new(local, remote);
        let mut result = Err(FlowError::Unknown { local, remote });
        self.leave_no_keys(|engine| {
            engine.with_flow(now, key, env, |cx, flow| match flow {
                Flow::Encrypted(encrypted) => {
                    result = Ok(());
                    let next = encrypted.start_rekey(cx);
                    settle(cx, encrypted, next)
                }
                _ => {
                    result = Err(FlowError::NotEncrypted);
                    Transition::Stay
                }
            });
        });
        result
    }

    /// Aborts every connection that is encrypted or becoming so, on both sides: before the host's routes are
    /// restored, after which the kernel would send their plaintext to the network itself.
    pub fn abort_all(&mut self, now: Instant, env: &mut dyn Env) {
        self.leave_no_keys(|engine| engine.abort_each(now, env));
    }

    fn abort_each(&mut self, now: Instant, env: &mut dyn Env) {
        let keys: Vec<FlowKey> = self.table.iter().map(|(key, _)| *key).collect();
        for key in keys {
            self.with_flow(now, key, env, |cx, flow| flow.shut_down(cx));
        }
    }
}
