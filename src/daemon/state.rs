//! The state of a running daemon, and how selectors are put in force.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use tcpcrypt::Provider;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::alerts::Alerts;
use super::control::PendingRequest;
use super::log::Log;
use super::resolve::{Resolved, resolve};
use super::selectors::Selectors;
use super::settings::Settings;
use crate::engine::{Counters, Engine, FlowInfo, FlowState};
use crate::io::WorkerHandle;
use crate::linux::{self, Host, KeptFlow, TunDevice};
use crate::selector::PolicyTable;

/// The packet loop answers faster; otherwise it is stuck.
pub(super) const WORKER_TIMEOUT: Duration = Duration::from_secs(10);

/// A device as it was when it came up.
pub(super) struct DeviceInfo {
    pub(super) name: String,
    pub(super) side: &'static str,
    pub(super) mtu: u32,
    pub(super) offloads: bool,
}

impl DeviceInfo {
    pub(super) fn new(device: &TunDevice, side: &'static str) -> Self {
        let offloads = device.offloads.checksum && device.offloads.tso4 && device.offloads.tso6;
        Self { name: device.name.clone(), side, mtu: device.mtu, offloads }
    }
}

/// A daemon that is up.
pub(super) struct Daemon {
    pub(super) settings: Settings,
    pub(super) provider: &'static dyn Provider,
    pub(super) log: Log,
    pub(super) selectors: Selectors,
    pub(super) worker: WorkerHandle,
    /// `None` while a thread works with it.
    pub(super) host: Option<Host>,
    pub(super) devices: Vec<DeviceInfo>,
    pub(super) recovered: bool,
    pub(super) since: (SystemTime, Instant),
    pub(super) kept: Vec<KeptFlow>,
    /// The connections of running probes, which are diverted whatever is selected.
    pub(super) probing: Vec<(u64, Vec<KeptFlow>)>,
    pub(super) probes_made: u64,
    pub(super) alerts: Alerts,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) resolving: bool,
    /// The file was reloaded, and names without an address were not reported yet.
    pub(super) report_unresolved: bool,
}

/// Events other than requests and signals.
pub(super) enum Event {
    /// Host names were resolved; then a request that waited for this is executed.
    Resolved(Resolved, Option<PendingRequest>),
    /// A probe is over.
    Probed(u64),
}

impl Daemon {
    /// Tells the engine which connections were open before the selectors were in force.
    pub(super) async fn admit(&self) -> anyhow::Result<()> {
        let open = blocking(linux::all_connections).await?.unwrap_or_else(|error| {
            tracing::warn!(
                "cannot list the connections that are already open; they will be refused where policy is required: {error}"
            );
            Vec::new()
        });
        let admitted = self.worker.call_async(move |engine, now, _| engine.admit(now, &open));
        timeout(WORKER_TIMEOUT, admitted).await.context("the packet loop is stuck")?.map_err(Into::into)
    }

    /// Applies the selectors, to the engine first, so that it knows what the firewall then diverts. On an error the
    /// selectors in `before` are restored.
    pub(super) async fn apply(&mut self, before: Selectors) -> anyhow::Result<()> {
        let error = match self.try_apply().await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        self.selectors = before;
        self.try_apply().await.context("and the previous selectors could not be restored")?;
        Err(error)
    }

    async fn try_apply(&mut self) -> anyhow::Result<()> {
        let rules = self.selectors.rules();
        let table = PolicyTable::new(rules.clone());
        let lookup = table.clone();
        // Atomic with the new policy: no connection that is not in the list can become encrypted in between.
        let kept = self.worker.call_async(move |engine, _, _| {
            engine.change_policy(table);
            kept(engine, &lookup)
        });
        self.kept = timeout(WORKER_TIMEOUT, kept).await.context("the packet loop is stuck")??;
        let updated = self.update_host().await;
        // Listed when no new connection that bypassed the engine can be among them.
        self.admit().await?;
        updated
    }

    /// Checks again which connections stay diverted although nothing selects them.
    pub(super) async fn keep(&mut self) -> anyhow::Result<()> {
        let table = PolicyTable::new(self.selectors.rules());
        let kept = self.worker.call_async(move |engine, _, _| kept(engine, &table));
        self.kept = timeout(WORKER_TIMEOUT, kept).await.context("the packet loop is stuck")??;
        self.update_host().await
    }

    pub(super) async fn update_host(&mut self) -> anyhow::Result<()> {
        let (rules, mut kept) = (self.selectors.rules(), self.kept.clone());
        kept.extend(self.probing.iter().flat_map(|(_, flows)| flows));
        self.with_host(move |host| host.update(&rules, &kept)).await
    }

    pub(super) async fn with_host(
        &mut self,
        work: impl FnOnce(&mut Host) -> Result<(), linux::Error> + Send + 'static,
    ) -> anyhow::Result<()> {
        let Some(mut host) = self.host.take() else { bail!("a change of the host is already in progress") };
        let (host, result) = blocking(move || {
            let result = work(&mut host);
            (host, result)
        })
        .await?;
        self.host = Some(host);
        Ok(result?)
    }

    /// The engine's counters, or an error if the packet loop is gone or stuck.
    pub(super) async fn counters(&self) -> anyhow::Result<Counters> {
        let counters = self.worker.call_async(|engine, _, _| engine.counters().clone());
        timeout(WORKER_TIMEOUT, counters).await.context("the packet loop is stuck")?.map_err(Into::into)
    }

    pub(super) fn resolve_then(&self, names: BTreeSet<String>, request: Option<PendingRequest>) {
        let events = self.events.clone();
        tokio::spawn(async move {
            let resolved = resolve(names).await;
            // The receiver is gone when the daemon is shutting down.
            let _ = events.send(Event::Resolved(resolved, request)).await;
        });
    }
}

/// Connections that are (becoming) encrypted and that no rule selects any more: they stay diverted until they end,
/// since neither may their ciphertext reach an application nor their plaintext the wire. The same applies to those
/// that were aborted, until the kernel is known to have noticed.
pub(super) fn kept(engine: &Engine, table: &PolicyTable) -> Vec<KeptFlow> {
    let live = |flow: &FlowInfo| matches!(flow.state, FlowState::Negotiating | FlowState::Encrypted);
    let live = engine.flows().into_iter().filter(live).map(|flow| (flow.local, flow.remote));
    let all = live.chain(engine.reset_unconfirmed()).map(|(local, remote)| KeptFlow { local, remote });
    let mut kept: Vec<KeptFlow> = all.filter(|flow| !diverted(table, flow.local, flow.remote)).collect();
    kept.sort_unstable();
    kept
}

fn diverted(table: &PolicyTable, local: std::net::SocketAddr, remote: std::net::SocketAddr) -> bool {
    table
        .lookup(remote.ip(), remote.port(), local.port())
        .is_some_and(|rule| rule.policy != crate::selector::Policy::Off)
}

/// Runs blocking work, or work with a runtime of its own, in another thread.
pub(super) async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> anyhow::Result<R> {
    Ok(tokio::task::spawn_blocking(work).await?)
}
