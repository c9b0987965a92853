//! The packet loop: one thread that owns the engine and both devices, so that a packet's path needs no locks. The
//! control plane talks to it by sending closures.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use serde::Serialize;
use tokio::sync::{oneshot, watch};

use super::busy_poll::BusyPoll;
use super::device::{Buffer, Device, DeviceCounters, DeviceError, Read};
use super::disruption::{self, DisruptionMonitor};
use super::env::{HostEnv, now};
use super::gro::GroReader;
use super::keylog::KeyLog;
use super::{memory, sys};
use crate::engine::{Engine, Env, Side};
use crate::time::Instant;

/// Packets read from each device before timers and commands get their turn.
const BATCH: usize = 64;

/// Freed memory is returned to the kernel after this time without packets.
const IDLE_BEFORE_TRIM: Duration = Duration::from_secs(1);

/// Why a worker ended without being asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// A device delivers no more packets.
    #[error("the device of the {} side is lost: {error}", match side { Side::Plain => "plain", Side::Wire => "wire" })]
    Device {
        /// Which one.
        side: Side,
        /// What happened to it.
        error: DeviceError,
    },
    /// The kernel refused to poll.
    #[error("cannot wait for packets: {0}")]
    Poll(Errno),
    /// The packet loop panicked.
    #[error("the packet loop panicked (see the log)")]
    Panicked,
}

/// The worker has ended; [`WorkerHandle::ended`] says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the packet loop has stopped")]
pub struct Stopped;

/// The counters of the two devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct IoCounters {
    /// The plain side's.
    pub plain: DeviceCounters,
    /// The wire side's.
    pub wire: DeviceCounters,
}

type Command = Box<dyn FnOnce(&mut Worker) + Send>;
type End = Option<Result<(), WorkerError>>;

/// Sends commands to a worker, from any task.
#[derive(Debug, Clone)]
pub struct Caller {
    commands: mpsc::Sender<Command>,
    /// An eventfd that wakes the worker.
    wake: Arc<OwnedFd>,
}

/// The control plane's end of a worker. Dropping it stops the worker and waits for it.
#[derive(Debug)]
pub struct WorkerHandle {
    caller: Caller,
    ended: watch::Receiver<End>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a worker with these devices, which busy-polls as `busy` says. `keys` is the key log, if keys are exported
/// ([`crate::engine::Config::export_keys`]).
///
/// # Errors
/// If the system has no thread or descriptor left.
pub fn spawn(
    engine: Engine,
    plain: Device,
    wire: Device,
    keys: Option<KeyLog>,
    busy: BusyPoll,
) -> std::io::Result<WorkerHandle> {
    sys::disable_heap_trim();
    let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
    let (commands, inbox) = mpsc::channel();
    let (end, ended) = watch::channel(None);
    let mut worker = Worker {
        engine,
        env: HostEnv::new(plain, wire, keys),
        monitor: DisruptionMonitor::new(),
        plain: Buffer::default(),
        wire: GroReader::default(),
        inbox,
        wake: wake.try_clone()?,
        busy,
        last_packet: None,
        stop: false,
    };
    let thread = std::thread::Builder::new().name("enotun-packets".into()).spawn(move || {
        // If `run` panics, `end` is dropped without a value: [`WorkerError::Panicked`].
        let result = worker.run();
        // Close the devices first, so that they are closed when the end is announced.
        drop(worker);
        end.send_replace(Some(result));
    })?;
    let caller = Caller { commands, wake: Arc::new(wake) };
    Ok(WorkerHandle { caller, ended, thread: Some(thread) })
}

impl Caller {
    /// Runs `f` on the worker between two batches of packets and waits for what it returns.
    ///
    /// # Errors
    /// If the worker has ended.
    pub async fn call_async<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Engine, Instant, &mut dyn Env) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (reply, result) = oneshot::channel();
        self.send(move |worker| {
            // The caller may be gone; then the result is discarded.
            let _ = reply.send(f(&mut worker.engine, now(), &mut worker.env));
        })?;
        result.await.map_err(|_| Stopped)
    }

    /// Sends a command and wakes the worker.
    fn send(&self, command: impl FnOnce(&mut Worker) + Send + 'static) -> Result<(), Stopped> {
        self.commands.send(Box::new(command)).map_err(|_| Stopped)?;
        // This can only fail with the counter at its maximum, and then the worker is awake.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        Ok(())
    }
}

impl WorkerHandle {
    /// Runs `f` on the worker between two batches of packets and waits for what it returns. Not for asynchronous code.
    ///
    /// # Errors
    /// If the worker has ended.
    pub fn call<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Engine, Instant, &mut dyn Env) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (reply, result) = mpsc::sync_channel(1);
        self.send(move |worker| {
            // The caller may be gone; then the result is discarded.
            let _ = reply.send(f(&mut worker.engine, now(), &mut worker.env));
        })?;
        result.recv().map_err(|_| Stopped)
    }

    /// [`Self::call`] for asynchronous code.
    ///
    /// # Errors
    /// If the worker has ended.
    pub async fn call_async<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Engine, Instant, &mut dyn Env) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        self.caller.call_async(f).await
    }

    /// Calls the worker from other tasks. It does not keep the worker from ending.
    #[must_use]
    pub fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// The counters of the devices since the start.
    ///
    /// # Errors
    /// If the worker has ended.
    pub async fn io_counters(&self) -> Result<IoCounters, Stopped> {
        let (reply, result) = oneshot::channel();
        self.send(move |worker| {
            // The caller may be gone; then the result is discarded.
            let _ = reply.send(IoCounters {
                plain: worker.env.device(Side::Plain).counters(),
                wire: worker.env.device(Side::Wire).counters(),
            });
        })?;
        result.await.map_err(|_| Stopped)
    }

    /// Asks the worker to stop, after everything sent to it before. [`Self::ended`] tells when it has.
    pub fn stop(&self) {
        // An error means that it has ended already.
        let _ = self.send(|worker| worker.stop = true);
    }

    /// Waits until the worker has ended and its devices are closed.
    ///
    /// # Errors
    /// If it was not asked to.
    pub async fn ended(&self) -> Result<(), WorkerError> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(end) => (*end).unwrap_or(Ok(())),
            Err(_) => Err(WorkerError::Panicked),
        }
    }

    fn send(&self, command: impl FnOnce(&mut Worker) + Send + 'static) -> Result<(), Stopped> {
        self.caller.send(command)
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A panic was already reported by its own message and by `ended`.
            let _ = thread.join();
        }
    }
}

/// The thread's state.
struct Worker {
    engine: Engine,
    env: HostEnv,
    monitor: DisruptionMonitor,
    /// Buffer for packets of the plain side.
    plain: Buffer,
    wire: GroReader,
    inbox: mpsc::Receiver<Command>,
    wake: OwnedFd,
    busy: BusyPoll,
    /// When the last packets came, if the heap was not trimmed since.
    last_packet: Option<Instant>,
    stop: bool,
}

/// The result of polling.
struct Ready {
    plain: PollFlags,
    wire: PollFlags,
    commands: bool,
    monitor: bool,
}

impl Ready {
    fn is_something(&self) -> bool {
        !self.plain.is_empty() || !self.wire.is_empty() || self.commands || self.monitor
    }
}

impl Worker {
    fn run(&mut self) -> Result<(), WorkerError> {
        while !self.stop {
            let ready = self.wait()?;
            // Before any packet is sealed with keys that may be another machine's as well.
            if let Some(sign) = self.monitor.poll(ready.monitor) {
                disruption::log_disruption(&self.engine.handle_disruption(now(), sign, &mut self.env));
            }
            // Read once per batch: a batch is shorter than the timers' resolution.
            let now = now();
            if ready.commands {
                self.run_commands();
            }
            self.run_batch(now, ready.plain, ready.wire)?;
            if !(ready.plain.is_empty() && ready.wire.is_empty()) {
                self.last_packet = Some(now);
            } else if self.last_packet.is_some_and(|last| now.since(last) >= IDLE_BEFORE_TRIM) {
                self.last_packet = None;
                memory::trim_heap();
            }
            if self.engine.poll_timeout().is_some_and(|due| due <= now) {
                self.engine.handle_timeout(now, &mut self.env);
            }
            for side in [Side::Plain, Side::Wire] {
                if self.env.device(side).is_gone() {
                    return Err(WorkerError::Device { side, error: DeviceError::Gone });
                }
            }
        }
        Ok(())
    }

    /// Waits for packets, a command or the engine's next timer: spinning for a moment if packets come quickly, then
    /// asleep.
    fn wait(&mut self) -> Result<Ready, WorkerError> {
        let mut due = self
            .engine
            .poll_timeout()
            .map_or(disruption::POLL_INTERVAL, |due| due.since(now()))
            .min(disruption::POLL_INTERVAL);
        if let Some(last) = self.last_packet {
            due = due.min((last + IDLE_BEFORE_TRIM).since(now()));
        }
        let begin = std::time::Instant::now();
        let awake = self.busy.spin_time().min(due);
        let mut ready = self.poll(if awake.is_zero() { due } else { Duration::ZERO })?;
        while !ready.is_something() && !awake.is_zero() {
            rustix::thread::sched_yield();
            let waited = begin.elapsed();
            if waited >= awake {
                ready = self.poll(due.saturating_sub(waited))?;
                break;
            }
            ready = self.poll(Duration::ZERO)?;
        }
        self.busy.record(begin.elapsed());
        Ok(ready)
    }

    /// What is ready now, or becomes ready before the `timeout`.
    fn poll(&self, timeout: Duration) -> Result<Ready, WorkerError> {
        let timeout = timespec(timeout);
        let mut fds = [
            PollFd::new(self.env.device(Side::Plain), PollFlags::IN),
            PollFd::new(self.env.device(Side::Wire), PollFlags::IN),
            PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.monitor.fd().unwrap_or(self.wake.as_fd()), PollFlags::IN),
        ];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {
                let [plain, wire, wake, monitor] = fds.each_ref().map(PollFd::revents);
                Ok(Ready { plain, wire, commands: !wake.is_empty(), monitor: !monitor.is_empty() })
            }
            Err(Errno::INTR) => {
                let none = PollFlags::empty();
                Ok(Ready { plain: none, wire: none, commands: false, monitor: true })
            }
            Err(errno) => Err(WorkerError::Poll(errno)),
        }
    }

    fn run_commands(&mut self) {
        // Reset before the inbox is drained, so that a command sent meanwhile wakes us again.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        while let Ok(command) = self.inbox.try_recv() {
            command(self);
        }
    }

    /// Handles packets of both sides alternately until both are empty or have had their share.
    fn run_batch(&mut self, now: Instant, plain: PollFlags, wire: PollFlags) -> Result<(), WorkerError> {
        let mut left = [(Side::Plain, plain, BATCH), (Side::Wire, wire, BATCH)].map(|(side, events, share)| {
            let share = if events.is_empty() { 0 } else { share };
            (side, events, share)
        });
        while left.iter().any(|&(_, _, share)| share > 0) {
            for (side, events, share) in &mut left {
                if *share == 0 {
                    continue;
                }
                *share -= 1;
                let side = *side;
                let device = self.env.device_mut(side);
                let read = match side {
                    Side::Plain => device.read(&mut self.plain),
                    Side::Wire => self.wire.read(device),
                };
                match read {
                    Ok(Read::Packet(offload, bytes)) => {
                        self.engine.handle_packet(now, side, offload, bytes, &mut self.env);
                    }
                    Ok(Read::Nothing) => {}
                    // An error state with nothing to read: the device is being deleted.
                    Ok(Read::Empty) if !events.contains(PollFlags::IN) => {
                        return Err(WorkerError::Device { side, error: DeviceError::Gone });
                    }
                    Ok(Read::Empty) => *share = 0,
                    Err(error) => return Err(WorkerError::Device { side, error }),
                }
            }
        }
        if let Some((offload, bytes)) = self.wire.take_pending() {
            self.engine.handle_packet(now, Side::Wire, offload, bytes, &mut self.env);
        }
        Ok(())
    }
}

/// For poll, which takes nanoseconds.
fn timespec(wait: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX), tv_nsec: wait.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Config;
    use crate::io::device::Format;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    /// A worker, and the kernel's ends of its plain and wire devices.
    fn worker() -> (WorkerHandle, OwnedFd, OwnedFd) {
        let pair = |flags| socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let (plain, plain_kernel) = pair(SocketFlags::NONBLOCK);
        let (wire, wire_kernel) = pair(SocketFlags::NONBLOCK);
        for kernel in [&plain_kernel, &wire_kernel] {
            rustix::fs::fcntl_setfl(kernel, rustix::fs::OFlags::empty()).unwrap();
        }
        let devices = [plain, wire].map(|fd| Device::new(fd, Format::Vnet));
        let [plain, wire] = devices;
        (
            spawn(Engine::new(Config::default(), crate::crypto::provider()), plain, wire, None, BusyPoll::default())
                .unwrap(),
            plain_kernel,
            wire_kernel,
        )
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// UDP, of no interest to the engine, with an empty virtio header.
    fn packet(n: u8) -> Vec<u8> {
        let mut bytes = vec![0; super::super::vnet::LEN];
        etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 2).write(&mut bytes, &[n; 9]).unwrap();
        bytes
    }

    #[test]
    fn packets_come_out_on_the_other_side_in_order() {
        let (worker, plain, wire) = worker();
        let mut got = [0; 2000];
        for n in 0..200 {
            for (from, to) in [(&plain, &wire), (&wire, &plain)] {
                rustix::io::write(from, &packet(n)).unwrap();
                let len = rustix::io::read(to, &mut got[..]).unwrap();
                assert_eq!(got[..len], packet(n));
            }
        }
        let counters = runtime().block_on(worker.io_counters()).unwrap();
        assert_eq!((counters.plain.read_packets, counters.plain.written_packets), (200, 200));
        assert_eq!(counters.wire.read_bytes, 200 * 37);
    }

    #[test]
    fn calls_are_answered_and_after_the_end_refused() {
        let (worker, _plain, _wire) = worker();
        let time = worker.call(|_, now, _| now).unwrap();
        let runtime = runtime();
        assert!(runtime.block_on(worker.call_async(|_, now, _| now)).unwrap() >= time);
        let packet = packet(7);
        worker.call(move |_, _, env| env.forward(Side::Wire, crate::wire::Offload::NONE, &packet[10..])).unwrap();
        worker.stop();
        assert_eq!(runtime.block_on(worker.ended()), Ok(()));
        assert_eq!(worker.call(|_, _, _| ()), Err(Stopped));
        assert_eq!(runtime.block_on(worker.io_counters()), Err(Stopped));
    }

    #[test]
    fn a_lost_device_ends_the_worker_with_the_reason() {
        let (worker, plain, wire) = worker();
        drop(wire);
        let end = runtime().block_on(worker.ended());
        assert!(matches!(end, Err(WorkerError::Device { side: Side::Wire, .. })), "{end:?}");
        drop(plain);
    }

    #[test]
    fn a_panic_is_reported_and_not_waited_for_in_vain() {
        let (worker, _plain, _wire) = worker();
        assert_eq!(worker.call(|_, _, _| panic!("on purpose")), Err::<(), _>(Stopped));
        assert_eq!(runtime().block_on(worker.ended()), Err(WorkerError::Panicked));
    }
}
