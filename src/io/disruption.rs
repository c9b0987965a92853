//! Detects signs that this machine was cloned, rolled back or stopped, from the kernel and the clocks. The packet
//! loop polls before each batch of packets, so that nothing is sealed between a sign and the reaction to it.
//! docs/clones.md says what each sign means.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::{Errno, pread, read};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::env::nanos;
use crate::engine::{Disrupted, Disruption};

/// The loop polls at least this often, so that a process that was stopped notices.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// A process that did not poll for this long was stopped.
const MIN_STOP: Duration = Duration::from_secs(60);
/// Shorter suspends do not count.
const MIN_SUSPEND: Duration = Duration::from_secs(1);
/// A smaller step of the wall clock is a correction: time services step by fractions of a second, leap seconds by
/// one. Slewing does not count at all, since it affects all clocks alike.
const MIN_CLOCK_STEP: Duration = Duration::from_secs(2);
/// Clocks that took longer than this to read are read again.
const MAX_READ_NANOS: u64 = 1_000_000;

/// The VM clock device, in which the hypervisor shows a page that can be read cheaply.
const VMCLOCK: &str = "/dev/vmclock0";
/// What the kernel logs when the hypervisor reports a new VM generation, since Linux 5.18. It sends an event since
/// 6.10.
const LOG_MESSAGE: &[u8] = b"random: crng reseeded due to virtual machine fork";
/// The field that identifies the event.
const UEVENT_FIELD: &[u8] = b"NEW_VMGENID=1";

/// The sources of signs.
#[derive(Debug)]
pub(super) struct DisruptionMonitor {
    /// Readable if one of the three below is.
    epoll: Option<OwnedFd>,
    uevents: Option<OwnedFd>,
    log: Option<File>,
    clock_set: Option<OwnedFd>,
    vmclock: Option<File>,
    page: Option<VmClock>,
    clocks: Option<Clocks>,
    /// New generations reported by each source. They all report the same ones.
    generations: [u64; 3],
    /// New generations acted on.
    acted_on: u64,
}

impl DisruptionMonitor {
    /// Starts watching. Sources that the system does not have are left out.
    pub(super) fn new() -> Self {
        let uevents = uevents().ok();
        let log = File::open("/dev/kmsg").and_then(|mut log| log.seek(SeekFrom::End(0)).map(|_| log)).ok();
        let log = log.filter(|log| rustix::fs::fcntl_setfl(log, rustix::fs::OFlags::NONBLOCK).is_ok());
        let clock_set = clock_set().ok();
        let fds =
            [uevents.as_ref().map(AsFd::as_fd), log.as_ref().map(AsFd::as_fd), clock_set.as_ref().map(AsFd::as_fd)];
        let epoll = epoll_of(fds.into_iter().flatten()).ok();
        let vmclock = File::open(VMCLOCK).ok();
        let page = vmclock.as_ref().and_then(VmClock::read);
        Self { epoll, uevents, log, clock_set, vmclock, page, clocks: Clocks::read(), generations: [0; 3], acted_on: 0 }
    }

    /// Becomes readable when there is something to poll for.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.epoll.as_ref().map(AsFd::as_fd)
    }

    /// The sign since the last call, the worst if there were several. `ready`: [`Self::fd`] is readable.
    pub(super) fn poll(&mut self, ready: bool) -> Option<Disruption> {
        let mut moved = false;
        if ready {
            self.read_uevents();
            self.read_log();
            self.read_clock_set();
        }
        if let Some(page) = self.vmclock.as_ref().and_then(VmClock::read) {
            match self.page.replace(page).and_then(|before| before.changed(&page)) {
                Some(Disruption::VmGeneration) => self.generations[2] += 1,
                other => moved = other.is_some(),
            }
        }
        let by_clocks = Clocks::read().and_then(|now| self.clocks.replace(now).and_then(|before| before.changed(&now)));
        let generations = self.generations.into_iter().fold(0, u64::max);
        if generations > self.acted_on {
            self.acted_on = generations;
            return Some(Disruption::VmGeneration);
        }
        by_clocks.or(moved.then_some(Disruption::Moved))
    }

    /// A source that fails for good is closed: it would be readable forever.
    fn read_uevents(&mut self) {
        let mut buffer = [0; 8192];
        while let Some(socket) = &self.uevents {
            match recvfrom(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                // Only the kernel is trusted, which sends from port 0.
                Ok((_, len, from)) => {
                    let kernel = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
                    let told = kernel.is_some_and(|from| from.pid() == 0)
                        && buffer.get(..len).is_some_and(is_generation_uevent);
                    self.generations[0] += u64::from(told);
                }
                // Events were lost; the log reports the same.
                Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.uevents = None,
            }
        }
    }

    fn read_log(&mut self) {
        let mut record = [0; 8192];
        while let Some(log) = &self.log {
            match read(log, &mut record[..]) {
                Ok(len) => self.generations[1] += u64::from(record.get(..len).is_some_and(is_generation_record)),
                // Records were overwritten before they were read; reading continues after them.
                Err(Errno::PIPE | Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.log = None,
            }
        }
    }

    fn read_clock_set(&mut self) {
        // A clock change shows as an error here; the clocks themselves tell by how much.
        let set = self.clock_set.as_ref().map(|timer| read(timer, &mut [0; 8]));
        if set.is_some_and(|set| !matches!(set, Err(Errno::CANCELED | Errno::AGAIN | Errno::INTR))) {
            self.clock_set = None;
        }
    }
}

/// Logs what happened and what was done, in one line.
pub fn log_disruption(done: &Disrupted) {
    if done.sign.is_certain() {
        tracing::warn!("{done}");
    } else {
        tracing::info!("{done}");
    }
}

/// The kernel's uevents, as far as they reach this network namespace.
fn uevents() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
    // Group 1 is the kernel's, 2 udev's.
    bind(&socket, &SocketAddrNetlink::new(0, 1))?;
    Ok(socket)
}

/// A timer that never expires, but becomes readable when the wall clock is set, and after a suspend.
fn clock_set() -> rustix::io::Result<OwnedFd> {
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    let never = Timespec { tv_sec: i64::MAX / 1_000_000_000 - 1, tv_nsec: 0 };
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    timerfd_settime(&timer, flags, &Itimerspec { it_interval: zero, it_value: never })?;
    Ok(timer)
}

/// One descriptor that stands for several.
fn epoll_of<'a>(fds: impl Iterator<Item = BorrowedFd<'a>>) -> rustix::io::Result<OwnedFd> {
    let all = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for fd in fds {
        epoll::add(&all, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    }
    Ok(all)
}

/// Whether an event (`change@/devices/...`, then `KEY=value`, each terminated by a zero byte) reports a new VM
/// generation.
fn is_generation_uevent(event: &[u8]) -> bool {
    event.starts_with(b"change@") && event.split(|byte| *byte == 0).any(|field| field == UEVENT_FIELD)
}

/// Whether a record of the kernel log (`level,number,time,flags;text`) reports a new VM generation and is the
/// kernel's own: records from user space have a facility above 0, in the bits of the level above the third.
fn is_generation_record(record: &[u8]) -> bool {
    let mut parts = record.splitn(2, |byte| *byte == b';');
    let (Some(head), Some(text)) = (parts.next(), parts.next()) else { return false };
    let level = head.split(|byte| *byte == b',').next().unwrap_or(&[]);
    let by_kernel = matches!(level, [b'0'..=b'7']);
    by_kernel && text.split(|byte| *byte == b'\n').next() == Some(LOG_MESSAGE)
}

/// The fields of the VM clock page that matter here (<linux/vmclock-abi.h>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct VmClock {
    /// Changes when the processor's counter was disrupted: moved to other hardware, or restored.
    marker: u64,
    /// Changes when the machine was restored, but not when it was only moved; where the hypervisor has it.
    generation: Option<u64>,
}

impl VmClock {
    const LEN: usize = 112;
    const MAGIC: u32 = 0x4b4c_4356;
    const HAS_GENERATION: u64 = 1 << 8;

    fn read(file: &File) -> Option<Self> {
        let mut bytes = [0; Self::LEN];
        for _ in 0..3 {
            let len = pread(file, &mut bytes[..], 0).ok()?;
            if let Some(page) = Self::parse(bytes.get(..len)?) {
                return Some(page);
            }
        }
        // It is permanently being changed, or something else: it is read again with the next batch.
        None
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let short = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        // An odd count means that an update is in progress.
        if short(0)? != Self::MAGIC || short(12)? % 2 == 1 {
            return None;
        }
        let has_generation = long(24)? & Self::HAS_GENERATION != 0;
        Some(Self { marker: long(16)?, generation: if has_generation { Some(long(104)?) } else { None } })
    }

    fn changed(&self, now: &Self) -> Option<Disruption> {
        match (self.generation, now.generation) {
            // It distinguishes what the marker does not: moving duplicates nothing.
            (Some(before), Some(now)) => (before != now).then_some(Disruption::VmGeneration),
            _ => (self.marker != now.marker).then_some(Disruption::Moved),
        }
    }
}

/// Three clocks, read at the same time, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clocks {
    /// Continues while the machine sleeps.
    boot: u64,
    /// Does not.
    monotonic: u64,
    /// Can be set.
    wall: u64,
}

impl Clocks {
    /// `None` if reading was interrupted every time.
    fn read() -> Option<Self> {
        for _ in 0..4 {
            let monotonic = nanos(ClockId::Monotonic);
            let (boot, wall) = (nanos(ClockId::Boottime), nanos(ClockId::Realtime));
            if nanos(ClockId::Monotonic).wrapping_sub(monotonic) < MAX_READ_NANOS {
                return Some(Self { boot, monotonic, wall });
            }
        }
        None
    }

    /// What happened between two readings.
    fn changed(&self, now: &Self) -> Option<Disruption> {
        let passed = now.boot.wrapping_sub(self.boot);
        let ran = now.monotonic.wrapping_sub(self.monotonic);
        let by_wall = now.wall.wrapping_sub(self.wall);
        if Duration::from_nanos(passed.saturating_sub(ran)) >= MIN_SUSPEND {
            Some(Disruption::Suspend)
        } else if Duration::from_nanos(by_wall.wrapping_sub(passed).cast_signed().unsigned_abs()) >= MIN_CLOCK_STEP {
            Some(Disruption::ClockStep)
        } else {
            (Duration::from_nanos(passed) >= MIN_STOP).then_some(Disruption::Stop)
        }
    }
}

#[cfg(test)]
mod tests;
