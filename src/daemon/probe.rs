//! Probes of a path: ordinary connections of this host, opened without sending any data, about which the engine
//! reports what it saw.

use std::net::{SocketAddr, UdpSocket};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::control::Answer;
use super::diagnosis::{Attempt, ConnectOutcome, Evidence, ProbeReply, ProbeResult, distance};
use super::protocol::{Failure, FailureKind};
use super::state::{Daemon, Event};
use crate::engine::{FlowInfo, FlowState, PathInfo, ProbeMode, ProbeReport, SynAnswer};
use crate::io::{Caller, Stopped};
use crate::linux::KeptFlow;

/// Maximum number of concurrent probes.
const PROBES_MAX: usize = 4;
/// How long a SYN and its retransmissions wait for an answer: the kernel sends three or more in this time.
const SYN_TIMEOUT: Duration = Duration::from_millis(4500);
/// How long the key exchange may take.
const KEY_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a FIN may wait for its acknowledgement. The kernel retransmits it several times.
const FIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Minimum time for a peer to object to an acknowledgement.
const MIN_RST_WAIT: Duration = Duration::from_millis(300);
/// How often progress is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Routers to query if their number is unknown.
const DEFAULT_HOPS: u8 = 16;
/// Routers to query beyond the known number: the path there may be longer than the path back.
const EXTRA_HOPS: u8 = 2;

type Reply = oneshot::Sender<Result<Answer, Failure>>;

/// A connection that is not open yet.
struct BoundSocket {
    socket: TcpSocket,
    local: SocketAddr,
}

impl BoundSocket {
    /// A local port, on the address from which `remote` is reached.
    fn new(remote: SocketAddr) -> anyhow::Result<Self> {
        let any: SocketAddr = if remote.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
        let route = UdpSocket::bind(any).and_then(|socket| socket.connect(remote).map(|()| socket));
        let source = route.and_then(|socket| socket.local_addr()).context("no route")?;
        let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(source.ip(), 0))?;
        let local = SocketAddr::new(source.ip(), socket.local_addr()?.port());
        Ok(Self { socket, local })
    }
}

impl Daemon {
    /// Starts a probe; [`Event::Probed`] reports its end.
    pub(super) async fn probe(&mut self, remote: SocketAddr, answer: Reply) -> anyhow::Result<ControlFlow<()>> {
        let (number, sockets) = match self.prepare(remote).await {
            Ok(prepared) => prepared,
            Err(failure) => {
                // The client may be gone.
                let _ = answer.send(Err(failure));
                return Ok(ControlFlow::Continue(()));
            }
        };
        let (caller, events) = (self.worker.caller(), self.events.clone());
        tokio::spawn(async move {
            let locals: Vec<SocketAddr> = sockets.iter().map(|socket| socket.local).collect();
            let result = run(&caller, remote, sockets).await;
            // The engine forgets the probe, whatever the result. An error means that the engine is gone.
            let _ = caller
                .call_async(move |engine, _, _| {
                    for local in locals {
                        engine.end_probe(local, remote);
                    }
                })
                .await;
            let _ = answer.send(match result {
                Ok(probed) => Answer::one(probed),
                Err(error) => Err(Failure::new(FailureKind::Failed, format!("{error:#}"))),
            });
            let _ = events.send(Event::Probed(number)).await;
        });
        Ok(ControlFlow::Continue(()))
    }

    /// Diverts the connections of a probe through the engine, whatever is selected.
    async fn prepare(&mut self, remote: SocketAddr) -> Result<(u64, Vec<BoundSocket>), Failure> {
        if self.probing.len() >= PROBES_MAX {
            let message = format!("{PROBES_MAX} probes are running already; try again");
            return Err(Failure::new(FailureKind::Busy, message));
        }
        let failed = |what: &str, error: anyhow::Error| {
            Failure::new(FailureKind::Failed, format!("cannot {what} to {remote}: {error:#}"))
        };
        let sockets = (0..3).map(|_| BoundSocket::new(remote)).collect::<anyhow::Result<Vec<_>>>();
        let sockets = sockets.map_err(|error| failed("open a connection", error))?;
        let number = self.probes_made;
        self.probes_made += 1;
        self.probing.push((number, sockets.iter().map(|socket| KeptFlow { local: socket.local, remote }).collect()));
        if let Err(error) = self.update_host().await {
            self.probing.retain(|(other, _)| *other != number);
            return Err(failed("divert the connections of a probe", error));
        }
        Ok((number, sockets))
    }

    /// A probe is over.
    pub(super) async fn probed(&mut self, number: u64) {
        self.probing.retain(|(other, _)| *other != number);
        // One that is encrypted may still be open.
        if let Err(error) = self.keep().await {
            tracing::warn!("the connections of a probe stay diverted: {error:#}");
        }
    }
}

/// Probes the path to `remote`.
async fn run(caller: &Caller, remote: SocketAddr, sockets: Vec<BoundSocket>) -> anyhow::Result<ProbeReply> {
    let mut sockets = sockets.into_iter();
    let mut socket = move || sockets.next().context("a probe has three connections");
    let (remembered, known) = caller
        .call_async(move |engine, now, _| {
            let of_host = |path: &PathInfo| path.address == remote.ip().to_canonical();
            let known = engine.paths(now).into_iter().filter(of_host).filter_map(|path| path.encrypted_seconds).min();
            (engine.path(now, remote), known)
        })
        .await?;

    let offered = socket()?;
    let local = offered.local;
    let (offer, flow) = offer(caller, remote, offered).await?;
    if offer.report.syns == 0 && !matches!(offer.connect, ConnectOutcome::Failed(_)) {
        anyhow::bail!(
            "a connection from {} to {remote} does not go through enotun: is {} an address of this host?",
            local.ip(),
            remote.ip()
        );
    }
    let mut evidence = Evidence { offer, bare: None, insist: None, known };
    let answer = evidence.offer.report.answer;
    let silent = evidence.offer.connect == ConnectOutcome::Silent;
    if silent || (evidence.offer.connect == ConnectOutcome::Open && answer == Some(SynAnswer::NoEno)) {
        let hops = match evidence.offer.report.answer_ttl {
            Some(ttl) => distance(ttl).saturating_add(EXTRA_HOPS),
            None => DEFAULT_HOPS,
        };
        let (bare, insist) = tokio::join!(
            finish(caller, remote, socket()?, ProbeMode::Bare),
            finish(caller, remote, socket()?, ProbeMode::Insist { hops })
        );
        evidence.bare = Some(bare?);
        evidence.insist = Some(insist?);
    }
    let probed = ProbeReply::new(remote, &evidence, flow, remembered);
    if let Some(finding) = probed.diagnosis.result.remembered() {
        caller.call_async(move |engine, now, _| engine.learn_path(now, remote, finding)).await?;
    }
    if probed.diagnosis.result != ProbeResult::Encrypted {
        tracing::debug!("probe of {remote}: {evidence:?}");
    }
    Ok(probed)
}

/// Opens a connection, or returns why it is not open now.
async fn open(
    caller: &Caller,
    remote: SocketAddr,
    BoundSocket { socket, local }: BoundSocket,
    mode: ProbeMode,
) -> Result<(Result<TcpStream, ConnectOutcome>, Duration), Stopped> {
    caller.call_async(move |engine, _, _| engine.begin_probe(local, remote, mode)).await?;
    let start = Instant::now();
    let opened = match timeout(SYN_TIMEOUT, socket.connect(remote)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Err(ConnectOutcome::Refused),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::TimedOut => Err(ConnectOutcome::Silent),
        // It was open, and the peer's RST came before we looked.
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionReset => Err(ConnectOutcome::Open),
        Ok(Err(error)) => Err(ConnectOutcome::Failed(error.to_string())),
        Err(_) => Err(ConnectOutcome::Silent),
    };
    Ok((opened, start.elapsed()))
}

async fn report(caller: &Caller, local: SocketAddr, remote: SocketAddr) -> Result<ProbeReport, Stopped> {
    let report = caller.call_async(move |engine, _, _| engine.probe(local, remote)).await?;
    Ok(report.unwrap_or_default())
}

/// Polls a probe until `done`, or until the time `limit`.
async fn watch(
    caller: &Caller,
    local: SocketAddr,
    remote: SocketAddr,
    limit: Duration,
    done: impl Fn(&ProbeReport) -> bool,
) -> Result<ProbeReport, Stopped> {
    let start = Instant::now();
    loop {
        let seen = report(caller, local, remote).await?;
        if done(&seen) || start.elapsed() >= limit {
            return Ok(seen);
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// A connection that offers ENO, until it is encrypted or clearly will not be.
async fn offer(
    caller: &Caller,
    remote: SocketAddr,
    socket: BoundSocket,
) -> anyhow::Result<(Attempt, Option<FlowInfo>)> {
    let local = socket.local;
    let (opened, _) = open(caller, remote, socket, ProbeMode::Offer).await?;
    let stream = match opened {
        Ok(stream) => stream,
        Err(connect) => return Ok((Attempt { connect, report: report(caller, local, remote).await? }, None)),
    };
    let decided = |report: &ProbeReport| report.state.is_none_or(|state| state != FlowState::Negotiating);
    let seen = watch(caller, local, remote, KEY_TIMEOUT, decided).await?;
    let flow = caller.call_async(move |engine, _, _| engine.flow(local, remote)).await?;
    drop(stream);
    Ok((Attempt { connect: ConnectOutcome::Open, report: seen }, flow))
}

/// A connection that is opened and closed again.
async fn finish(caller: &Caller, remote: SocketAddr, socket: BoundSocket, mode: ProbeMode) -> anyhow::Result<Attempt> {
    let local = socket.local;
    let (opened, rtt) = open(caller, remote, socket, mode).await?;
    let stream = match opened {
        Ok(stream) => stream,
        Err(connect) => return Ok(Attempt { connect, report: report(caller, local, remote).await? }),
    };
    watch(caller, local, remote, MIN_RST_WAIT.max(rtt * 4), |report| report.reset).await?;
    // If the peer has reset it, there is nothing left to shut down.
    let _ = rustix::net::shutdown(&stream, rustix::net::Shutdown::Write);
    let seen = watch(caller, local, remote, FIN_TIMEOUT, |report| report.fin_acked || report.reset).await?;
    // The kernel must not keep retransmitting a FIN that nobody accepts.
    let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
    drop(stream);
    Ok(Attempt { connect: ConnectOutcome::Open, report: seen })
}
