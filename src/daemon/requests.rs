//! Executes the requests of clients.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::control::{Answer, PendingRequest};
use super::notify;
use super::protocol::{Command, Failure, FailureKind, Flushed};
use super::state::Daemon;
use super::status::{Connections, DeviceStatus, LastDisruption, Paths, Protocol, Status};
use crate::engine::{Engine, Env, FlowError};
use crate::selector::{Policy, Selected, Selector};
use crate::time::Instant;

/// This host's connections; none if the kernel cannot list them, in which case those that were open before are not
/// shown.
fn open_connections() -> Vec<(SocketAddr, SocketAddr)> {
    crate::linux::open_connections().unwrap_or_else(|error| {
        tracing::debug!("{error}");
        Vec::new()
    })
}

/// How long the packet loop may take for a request.
const TIMEOUT: Duration = Duration::from_secs(10);

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Failed, error.to_string())
}

impl Daemon {
    /// Executes a request, after resolving host names in it in the background.
    pub(super) async fn handle_request(&mut self, request: PendingRequest) -> anyhow::Result<ControlFlow<()>> {
        if let Command::Probe { remote } = request.command {
            return self.probe(remote, request.answer).await;
        }
        if let Command::Enable { selectors, .. } = &request.command {
            let names: std::collections::BTreeSet<String> =
                selectors.iter().filter_map(|it| it.selector.name()).map(str::to_owned).collect();
            if !names.is_empty() {
                self.resolve_then(names, Some(request));
                return Ok(ControlFlow::Continue(()));
            }
        }
        self.execute(request).await
    }

    /// Executes a request.
    pub(super) async fn execute(&mut self, request: PendingRequest) -> anyhow::Result<ControlFlow<()>> {
        let PendingRequest { command, answer } = request;
        let command = command.canonical();
        let next = if command == (Command::Down {}) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let reply = match command {
            Command::Status {} => self.status().await,
            Command::Flows {} => self.flows().await,
            Command::Flow { local, remote } => self.flow(local, remote).await,
            Command::Session { local, remote } => self.session(local, remote).await,
            Command::Rekey { local, remote } => self.rekey(local, remote).await,
            // It is handled separately, since it takes long.
            Command::Probe { .. } => Err(failed("a probe is not executed here")),
            Command::ForgetPaths { host, port } => {
                self.with_engine(move |engine, _, _| engine.forget_paths(host, port)).await.and_then(Answer::one)
            }
            Command::Enable { selectors, policy } => self.enable(selectors, policy).await,
            Command::Disable { selectors } => self.disable(&selectors).await,
            Command::CacheList {} => {
                self.with_engine(|engine, now, _| engine.sessions(now)).await.and_then(Answer::list)
            }
            Command::CacheFlush { peer } => self.flush(peer).await,
            Command::CacheFlushConnection { local, remote } => self.flush_connection(local, remote).await,
            Command::Down {} => {
                tracing::info!("stopping because of `enotun down`");
                Answer::one("shutting down")
            }
        };
        // The client may be gone.
        let _ = answer.send(reply);
        Ok(next)
    }

    async fn with_engine<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Engine, Instant, &mut dyn Env) -> R + Send + 'static,
    ) -> Result<R, Failure> {
        match timeout(TIMEOUT, self.worker.call_async(job)).await {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(failed("the packet loop is stuck; the log may say why")),
        }
    }

    /// The connections the engine knows, and those that pass unknown, which only the kernel knows.
    async fn flows(&self) -> Result<Answer, Failure> {
        let open = open_connections();
        let list = move |engine: &mut Engine| {
            let mut flows = engine.flows();
            flows.extend(engine.unknown(&open));
            flows
        };
        self.with_engine(move |engine, _, _| list(engine)).await.and_then(Answer::list)
    }

    async fn flow(&self, local: SocketAddr, remote: SocketAddr) -> Result<Answer, Failure> {
        let open: Vec<_> = open_connections().into_iter().filter(|ends| *ends == (local, remote)).collect();
        let one = move |engine: &mut Engine| engine.flow(local, remote).or_else(|| engine.unknown(&open).pop());
        let flow = self.with_engine(move |engine, _, _| one(engine)).await?;
        flow.map_or_else(|| Err(unknown(local, remote)), Answer::one)
    }

    async fn session(&self, local: SocketAddr, remote: SocketAddr) -> Result<Answer, Failure> {
        match self.with_engine(move |engine, _, _| engine.session(local, remote)).await? {
            Ok(session) => Answer::one(session),
            Err(FlowError::Unknown { .. }) => Err(unknown(local, remote)),
            Err(error) => Err(Failure::new(FailureKind::NotFound, error.to_string())),
        }
    }

    async fn rekey(&self, local: SocketAddr, remote: SocketAddr) -> Result<Answer, Failure> {
        let rekeyed = self
            .with_engine(move |engine, now, env| {
                engine.rekey(now, local, remote, env).map(|()| engine.flow(local, remote))
            })
            .await?;
        match rekeyed {
            Ok(Some(flow)) => Answer::one(flow),
            Ok(None) => Err(unknown(local, remote)),
            Err(error) => Err(Failure::new(FailureKind::NotFound, error.to_string())),
        }
    }

    async fn flush(&self, peer: Option<IpAddr>) -> Result<Answer, Failure> {
        let flushed = self.with_engine(move |engine, _, _| engine.flush_sessions(peer)).await?;
        let whose = peer.map_or_else(|| "all hosts".to_owned(), |peer| peer.to_string());
        tracing::info!("cache flushed: {flushed} sessions with {whose}");
        Answer::one(Flushed { flushed })
    }

    /// TC-22: what the connection used and what it produced.
    async fn flush_connection(&self, local: SocketAddr, remote: SocketAddr) -> Result<Answer, Failure> {
        let erased = self.with_engine(move |engine, _, _| engine.flush_flow_session(local, remote)).await?;
        let erased = erased.map_err(|error| Failure::new(FailureKind::NotFound, error.to_string()))?;
        tracing::info!("cache flushed: what {local} - {remote} used and produced");
        Answer::one(Flushed { flushed: usize::from(erased) })
    }

    async fn enable(&mut self, selectors: Vec<Selected>, policy: Option<Policy>) -> Result<Answer, Failure> {
        let policy = policy.unwrap_or(self.settings.policy);
        let before = self.selectors.clone();
        for selected in &selectors {
            self.selectors.enable(selected.clone(), policy);
        }
        if let Err(error) = self.selectors.check() {
            self.selectors = before;
            return Err(Failure::new(FailureKind::BadRequest, format!("nothing is changed: {error}")));
        }
        let missing = self.selectors.unresolved();
        if let Some(name) =
            selectors.iter().filter_map(|it| it.selector.name()).find(|name| missing.iter().any(|it| it == name))
        {
            let message = format!(
                "the host name `{name}` has no address outside this host, so nothing is changed; check the spelling"
            );
            self.selectors = before;
            return Err(Failure::new(FailureKind::NotFound, message));
        }
        self.change(before, "enabled", &selectors).await
    }

    async fn disable(&mut self, selectors: &[Selector]) -> Result<Answer, Failure> {
        if let Some(unknown) = selectors.iter().find(|selector| !self.selectors.has(selector)) {
            let message = format!(
                "`{unknown}` is not among the selectors, so nothing is changed; `enotun status` lists them. To exempt part of a selector, use `enotun enable --policy off {unknown}`; to remove a route, use `ip route del`"
            );
            return Err(Failure::new(FailureKind::NotFound, message));
        }
        let before = self.selectors.clone();
        for selector in selectors {
            self.selectors.disable(selector);
        }
        if let Err(error) = self.selectors.check() {
            self.selectors = before;
            return Err(Failure::new(FailureKind::BadRequest, format!("nothing is changed: {error}")));
        }
        self.change(before, "disabled", selectors).await
    }

    async fn change(
        &mut self,
        before: super::selectors::Selectors,
        what: &str,
        selectors: &[impl ToString],
    ) -> Result<Answer, Failure> {
        self.apply(before).await.map_err(|error| failed(format!("nothing is changed: {error:#}")))?;
        let names: Vec<String> = selectors.iter().map(ToString::to_string).collect();
        tracing::info!("{what}: {}", names.join(" "));
        Answer::list(self.selectors.entries())
    }

    async fn status(&self) -> Result<Answer, Failure> {
        let (connections, counters, sessions, random_ready, paths, last_disruption) = self
            .with_engine(|engine, now, env| {
                let connections = Connections::count(&engine.flows());
                let (counters, sessions) = (engine.counters().clone(), engine.session_count());
                let paths = Paths::new(engine.paths(now));
                let disruption =
                    engine.last_disruption().map(|done| LastDisruption::new(&done, now, SystemTime::now()));
                (connections, counters, sessions, env.random_is_ready(), paths, disruption)
            })
            .await?;
        let io = self.worker.io_counters().await.map_err(failed)?;
        notify::status(&format!("{} connections encrypted, {} plain", connections.encrypted, connections.plain));
        let device = |facts: &super::state::DeviceInfo| DeviceStatus {
            name: facts.name.clone(),
            side: facts.side.to_owned(),
            mtu: facts.mtu,
            offloads: facts.offloads,
        };
        Answer::one(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.settings.instance.to_string(),
            pid: std::process::id(),
            up_since: humantime::format_rfc3339_seconds(self.since.0).to_string(),
            up_seconds: self.since.1.elapsed().as_secs(),
            policy: self.settings.policy,
            selectors: self.selectors.entries(),
            protocol: Protocol::new(&self.settings.engine, self.provider, sessions),
            devices: self.devices.iter().map(device).collect(),
            random_ready,
            recovered: self.recovered,
            exporting_keys: self.settings.export_keys.clone(),
            connections,
            paths,
            kept_connections: self.kept.len(),
            last_disruption,
            counters: counters
                .named()
                .into_iter()
                .map(|(name, count)| (name.to_owned(), count))
                .collect::<BTreeMap<_, _>>(),
            io: serde_json::to_value(io).map_err(failed)?,
            problems: self.log.problems(),
        })
    }
}

fn unknown(local: SocketAddr, remote: SocketAddr) -> Failure {
    let message = format!(
        "no connection {local} - {remote} is known; the local address comes first, and `enotun flows` lists all connections"
    );
    Failure::new(FailureKind::NotFound, message)
}
