//! The daemon's life cycle: up, running, down.

use std::ops::ControlFlow;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use tcpcrypt::Provider;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::alerts::Alerts;
use super::config::File;
use super::control;
use super::log::Log;
use super::resolve::resolve;
use super::selectors::Selectors;
use super::settings::Settings;
use super::state::{Daemon, DeviceInfo, Event, WORKER_TIMEOUT, blocking, kept};
use super::{log, notify};
use crate::crypto;
use crate::engine::{Disruption, Engine, Env};
use crate::io::{self, BusyPoll, Format, KeyLog, WorkerHandle};
use crate::linux::{self, Host, TunDevice, TunDevices, Watcher};
use crate::selector::PolicyTable;

/// Interval of the health and limit checks.
const TICK: Duration = Duration::from_secs(1);
/// How often host names are resolved again, and how often those without an address.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(60);
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// How often kept connections are checked for whether they have ended.
const KEPT_INTERVAL: Duration = Duration::from_secs(10);
/// How often other firewalls are checked for changes of which there is no notification.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// Time for the last packets to leave before the devices go.
const DRAIN: Duration = Duration::from_millis(200);

/// Signals, caught from the start: one that arrives during `up` is handled afterwards.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// When what is done now and then was done last.
struct Chores {
    resolved: Instant,
    kept: Instant,
    refreshed: Instant,
}

impl Chores {
    fn new() -> Self {
        let now = Instant::now();
        Self { resolved: now, kept: now, refreshed: now }
    }
}

/// Whether `interval` has passed since `at`; if so, `at` becomes now.
fn is_due(at: &mut Instant, interval: Duration) -> bool {
    let due = at.elapsed() >= interval;
    if due {
        *at = Instant::now();
    }
    due
}

/// Comes up, runs, goes down.
pub(super) async fn live(settings: Settings, log: Log, provider: &'static dyn Provider) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot catch signals")?;
    let (events, mut inbox) = mpsc::channel(64);
    let (mut daemon, mut watcher) = Daemon::up(settings, log, provider, events).await?;
    let (sender, mut requests) = mpsc::channel(16);
    match control::bind(&daemon.settings.instance) {
        Ok(listener) => drop(tokio::spawn(control::serve(listener, sender))),
        Err(error) => {
            let socket = daemon.settings.instance.socket();
            daemon.down().await?;
            bail!("cannot open the control socket {}: {error}; all changes were undone", socket.display());
        }
    }
    daemon.log_ready();
    notify::ready();

    let mut ticks = interval(notify::watchdog().map_or(TICK, |watchdog| watchdog.min(TICK)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut chores = Chores::new();
    loop {
        let next = tokio::select! {
            _ = signals.terminate.recv() => Ok(ControlFlow::Break(())),
            _ = signals.interrupt.recv() => Ok(ControlFlow::Break(())),
            _ = signals.hangup.recv() => daemon.reload().await,
            Some(request) = requests.recv() => daemon.handle_request(request).await,
            Some(event) = inbox.recv() => daemon.handle_event(event).await,
            ended = daemon.worker.ended() => match ended {
                Ok(()) => Err(anyhow::anyhow!("the packet loop has stopped")),
                Err(error) => Err(error.into()),
            },
            change = watcher.next() => daemon.handle_change(change).await,
            _ = ticks.tick() => daemon.tick(&mut chores).await,
        };
        match next {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            Err(error) => {
                // As after a crash: what was diverted is dropped, since without the engine nobody knows which
                // connections were encrypted.
                tracing::error!("{error:#}; exiting; selected traffic is now blocked");
                let instance = &daemon.settings.instance;
                return Err(error.context(format!(
                    "gave up; protected connections stay blocked until `enotun up` or `enotun down --instance {instance}`"
                )));
            }
        }
    }
    // No more requests are accepted; the socket goes first, so that a new client gets a connect error.
    requests.close();
    if let Err(error) = daemon.settings.instance.remove_socket() {
        tracing::warn!("cannot remove the control socket: {error}");
    }
    daemon.down().await
}

impl Daemon {
    /// Sets up the host and starts the packet loop. If that fails, all changes are undone.
    async fn up(
        settings: Settings,
        log: Log,
        provider: &'static dyn Provider,
        events: mpsc::Sender<Event>,
    ) -> anyhow::Result<(Self, Watcher)> {
        let selectors = selected(&settings).await?;
        let rules = selectors.rules();
        let keys = settings.export_keys.as_deref().map(KeyLog::create).transpose()?;

        let (host_settings, host_rules) = (settings.host.clone(), rules.clone());
        let (host, devices) = blocking(move || Host::up(host_settings, &host_rules)).await??;
        let TunDevices { plain, wire } = &devices;
        let facts = vec![DeviceInfo::new(plain, "plain"), DeviceInfo::new(wire, "wire")];
        let mut engine = Engine::new(settings.engine.clone(), provider);
        let recovered = host.orphans().is_some();
        if let Some(orphans) = host.orphans() {
            tracing::warn!(
                "an earlier daemon died without cleaning up; {} open connections are refused, since they may have been encrypted",
                orphans.len()
            );
            engine.refuse(io::now(), orphans);
        }
        // Connections that were open before continue once the engine knows them.
        engine.change_policy(PolicyTable::new(rules));
        let started = linux::watch(&devices)
            .map_err(anyhow::Error::from)
            .and_then(|watcher| Ok((watcher, start_worker(engine, devices, keys, settings.busy_poll)?)));
        let (watcher, worker) = match started {
            Ok(started) => started,
            Err(error) => {
                blocking(move || host.down()).await?.context("cannot restore the host")?;
                return Err(error.context("cannot start the packet loop; all changes were undone"));
            }
        };
        let daemon = Self {
            settings,
            provider,
            log,
            selectors,
            worker,
            host: Some(host),
            devices: facts,
            recovered,
            since: (SystemTime::now(), Instant::now()),
            kept: Vec::new(),
            probing: Vec::new(),
            probes_made: 0,
            alerts: Alerts::default(),
            events,
            resolving: false,
            report_unresolved: false,
        };
        daemon.admit().await?;
        Ok((daemon, watcher))
    }

    fn log_ready(&self) {
        let devices: Vec<&str> = self.devices.iter().map(|device| device.name.as_str()).collect();
        tracing::info!(
            "up: instance {}, devices {}, {} selectors, policy {}",
            self.settings.instance,
            devices.join(" and "),
            self.selectors.entries().len(),
            self.settings.policy
        );
        if self.provider.name() != crypto::provider().name() {
            tracing::warn!("this is a special build of enotun; its cryptography: {}", self.provider.name());
        }
        if let Some(path) = &self.settings.export_keys {
            tracing::warn!(
                "the keys of every connection are written to {}: whoever can read that file can read the traffic",
                path.display()
            );
            if KeyLog::may_be_swapped() {
                tracing::warn!(
                    "this host has swap, so exported keys may reach a disk after all; `swapoff -a` prevents that"
                );
            }
        }
        if let Some(slow) = self.devices.iter().find(|device| !device.offloads) {
            tracing::warn!(
                "{}: the kernel refuses offloads; segments are handled one by one, which is slow",
                slow.name
            );
        }
        self.settings.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        if self.selectors.entries().is_empty() {
            tracing::info!(
                "nothing is selected yet: use `enotun enable SELECTOR`, or `ip route add PREFIX dev {} table enotun`",
                self.settings.host.tun
            );
        }
    }

    /// Ends encrypted connections, then restores the host.
    async fn down(mut self) -> anyhow::Result<()> {
        tracing::info!("shutting down");
        notify::stopping();
        // From here on new connections bypass the engine. Encrypted ones are reset on both sides before the routes
        // change: otherwise the kernel would send their plaintext to the network.
        let aborted = self.worker.call_async(|engine, now, env| {
            engine.set_policy(PolicyTable::default());
            engine.abort_all(now, env);
            kept(engine, &PolicyTable::default())
        });
        let Ok(Ok(aborted)) = timeout(WORKER_TIMEOUT, aborted).await else {
            bail!(
                "the packet loop does not respond, so encrypted connections could not be reset; protected connections stay blocked until `enotun down --instance {}` is run again",
                self.settings.instance
            )
        };
        tokio::time::sleep(DRAIN).await;
        if let Some(host) = self.host.take() {
            blocking(move || {
                host.close(&aborted);
                host.down()
            })
            .await?
            .context("the host could not be restored")?;
        }
        // Dropping it waits for its end.
        drop(self.worker);
        tracing::info!("down: the host is as it was before");
        Ok(())
    }

    /// Reacts to a change of the host.
    async fn handle_change(&mut self, change: Result<linux::Event, linux::Error>) -> anyhow::Result<ControlFlow<()>> {
        match change {
            Ok(linux::Event::Prefixes(prefixes)) => {
                let before = self.selectors.clone();
                if self.selectors.set_routes(prefixes.iter().copied().collect()) {
                    let names: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
                    match self.apply(before).await {
                        Ok(()) => tracing::info!(
                            "selected by routes: {}",
                            if names.is_empty() { "nothing".to_owned() } else { names.join(" ") }
                        ),
                        Err(error) => tracing::warn!("cannot follow routes into the TUN device: {error:#}"),
                    }
                }
            }
            Ok(linux::Event::Host) => self.refresh().await,
            Ok(linux::Event::AddressChange) => {
                let react = |engine: &mut Engine, now, env: &mut dyn Env| {
                    engine.handle_disruption(now, Disruption::AddressChange, env)
                };
                io::log_disruption(&self.worker.call_async(react).await?);
            }
            // Otherwise nobody would notice that routes and interfaces change.
            Err(error) => return Err(anyhow::Error::new(error).context("cannot watch the host any more")),
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Adapts to changes of the host.
    async fn refresh(&mut self) {
        if let Err(error) = self.with_host(Host::refresh).await {
            tracing::warn!(
                "the host's network changed and the rules could not be updated: {error:#}; `enotun doctor` may tell more"
            );
        }
    }

    /// Health, limits, and connections that are kept only until they end.
    async fn tick(&mut self, chores: &mut Chores) -> anyhow::Result<ControlFlow<()>> {
        if is_due(&mut chores.refreshed, REFRESH_INTERVAL) {
            self.refresh().await;
        }
        let again = if self.selectors.unresolved().is_empty() { RESOLVE_INTERVAL } else { RETRY_INTERVAL };
        if is_due(&mut chores.resolved, again) {
            self.resolve_again();
        }
        let counters = self.counters().await?;
        notify::alive();
        for line in self.alerts.lines(&counters, Instant::now()) {
            tracing::warn!("{line}");
        }
        if is_due(&mut chores.kept, KEPT_INTERVAL) && !self.kept.is_empty() {
            let table = PolicyTable::new(self.selectors.rules());
            let still = self.worker.call_async(move |engine, _, _| kept(engine, &table)).await?;
            if still != self.kept {
                self.kept = still;
                self.update_host().await?;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Resolves all host names again, in the background.
    fn resolve_again(&mut self) {
        let names = self.selectors.names();
        if self.resolving || names.is_empty() {
            return;
        }
        self.resolving = true;
        self.resolve_then(names, None);
    }

    async fn handle_event(&mut self, event: Event) -> anyhow::Result<ControlFlow<()>> {
        match event {
            Event::Probed(number) => {
                self.probed(number).await;
                Ok(ControlFlow::Continue(()))
            }
            Event::Resolved(resolved, request) => {
                let before = self.selectors.clone();
                let mut changed = Vec::new();
                for (name, addresses) in resolved {
                    if self.selectors.set_addresses(&name, addresses) {
                        changed.push(name);
                    }
                }
                // Names in a request are not selected yet, or may be already.
                if request.is_none() && !changed.is_empty() || self.selectors.rules() != before.rules() {
                    tracing::info!("addresses changed: {}", changed.join(", "));
                    if let Err(error) = self.apply(before).await {
                        tracing::warn!("cannot apply new addresses of host names: {error:#}");
                    }
                }
                if let Some(request) = request {
                    return self.execute(request).await;
                }
                self.resolving = false;
                if std::mem::take(&mut self.report_unresolved) {
                    self.selectors.unresolved().iter().for_each(|name| warn_unresolved(name));
                }
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    /// Reloads the configuration file.
    async fn reload(&mut self) -> anyhow::Result<ControlFlow<()>> {
        let Some((path, old)) = self.settings.file.clone() else {
            tracing::warn!("SIGHUP, but there is no configuration file to reload");
            return Ok(ControlFlow::Continue(()));
        };
        let new = match File::read(&path) {
            Ok(new) => new,
            Err(error) => {
                tracing::warn!("the configuration is not changed: {error}");
                return Ok(ControlFlow::Continue(()));
            }
        };
        let fixed = |file: &File| File { selectors: Default::default(), policy: None, log: None, ..file.clone() };
        if fixed(&new) != fixed(&old) {
            tracing::warn!(
                "only selectors, policy and log change without `enotun down` and `enotun up`; the rest stays as it was"
            );
        }
        let policy = self.settings.policy_option.or(new.policy).unwrap_or_default();
        let before = self.selectors.clone();
        self.selectors.reload(new.selectors.rules(), policy);
        if let Err(error) = self.selectors.check() {
            self.selectors = before;
            tracing::warn!("the configuration is not changed: {error}");
            return Ok(ControlFlow::Continue(()));
        }
        match self.apply(before).await {
            Ok(()) => {
                if log::from_environment().is_none()
                    && let Err(error) = self.log.change(new.log.as_deref().unwrap_or(log::DEFAULT))
                {
                    tracing::warn!("the log level is not changed: {error}");
                }
                self.settings.policy = policy;
                self.settings.file = Some((path, new));
                tracing::info!("configuration reloaded: {} selectors", self.selectors.entries().len());
                self.report_unresolved = true;
                self.resolve_again();
            }
            Err(error) => tracing::warn!("the configuration is not changed: {error:#}"),
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// What is selected, with the addresses of its host names.
async fn selected(settings: &Settings) -> anyhow::Result<Selectors> {
    let mut selectors = Selectors::new(settings.file_rules.clone(), settings.command_rules.clone(), settings.policy);
    for (name, addresses) in resolve(selectors.names()).await {
        selectors.set_addresses(&name, addresses);
    }
    for name in selectors.unresolved() {
        // A name on the command line was typed just now; the file may be read before the network is up.
        if settings.command_rules.iter().any(|rule| rule.selector.name() == Some(name.as_str())) {
            bail!("the host name `{name}` has no address outside this host; check the spelling and name resolution");
        }
        warn_unresolved(&name);
    }
    Ok(selectors)
}

fn warn_unresolved(name: &str) {
    tracing::warn!("the host name `{name}` has no address yet; connections to it are not protected until it does");
}

fn start_worker(
    engine: Engine,
    devices: TunDevices,
    keys: Option<KeyLog>,
    busy: BusyPoll,
) -> anyhow::Result<WorkerHandle> {
    let queue = |device: TunDevice| {
        let name = device.name;
        device.queues.into_iter().next().with_context(|| format!("the kernel provided no queue for {name}"))
    };
    let plain = io::Device::new(queue(devices.plain)?, Format::Vnet);
    let wire = io::Device::new(queue(devices.wire)?, Format::Vnet);
    Ok(io::spawn(engine, plain, wire, keys, busy)?)
}
