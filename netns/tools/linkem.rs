//! A link between two TUN devices, for the tests: delay, jitter, reordering, loss, duplication, rate, queue.
//!
//!     linkem ONE TWO [--delay MS] [--jitter MS] [--reorder PERCENT] [--loss PERCENT] [--duplicate PERCENT]
//!                    [--rate MBIT] [--queue PACKETS] [--seed N] [--middlebox echo|resegment]
//!
//! What the kernel routes into ONE comes out of TWO, and the other way round; netns/topologies/emulated.sh
//! has the routes. The devices have no offloads, so the kernel cuts super-packets and completes checksums:
//! each packet of at most an MTU has its own fate. `--jitter` delays each packet by up to that much more but keeps the
//! order; `--reorder` lets that share of packets overtake all that wait. Random numbers come from the seed. `--middlebox` changes packets, see middlebox.rs.

mod middlebox;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// What the link does to packets.
struct Link {
    delay: Duration,
    jitter: Duration,
    /// Shares of packets, 0 to 1.
    reorder: f64,
    loss: f64,
    duplicate: f64,
    /// Bits per second; 0: as fast as it goes.
    rate: f64,
    /// Packets that may wait in one direction.
    queue: usize,
    seed: u64,
    middlebox: Option<middlebox::Kind>,
}

impl Link {
    fn parse(words: &[String]) -> Result<Self, String> {
        let mut link = Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: 0.0,
            loss: 0.0,
            duplicate: 0.0,
            rate: 0.0,
            queue: 10_000,
            seed: 1,
            middlebox: None,
        };
        for pair in words.chunks(2) {
            let [option, value] = pair else { return Err(format!("{} needs a value", pair.concat())) };
            if option == "--middlebox" {
                let kind = middlebox::Kind::parse(value).ok_or_else(|| format!("no middlebox {value}"))?;
                link.middlebox = Some(kind);
                continue;
            }
            let number: f64 = value.parse().map_err(|_| format!("{option}: {value} is no number"))?;
            if !(0.0..1e9).contains(&number) {
                return Err(format!("{option}: {value} is out of range"));
            }
            match option.as_str() {
                "--delay" => link.delay = Duration::from_secs_f64(number / 1e3),
                "--jitter" => link.jitter = Duration::from_secs_f64(number / 1e3),
                "--reorder" => link.reorder = number / 100.0,
                "--loss" => link.loss = number / 100.0,
                "--duplicate" => link.duplicate = number / 100.0,
                "--rate" => link.rate = number * 1e6,
                "--queue" => link.queue = number as usize,
                "--seed" => link.seed = number as u64,
                _ => return Err(format!("unknown option {option}")),
            }
        }
        Ok(link)
    }
}

/// xorshift64*: small, and good enough to decide which packet is lost.
struct Random(u64);

impl Random {
    /// From 0 up to, not including, 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// One way through the link.
struct Way {
    /// By time of leaving, then by order of coming.
    waiting: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    number: u64,
    /// No packet that keeps its place leaves before this.
    last: Instant,
    /// The transmitter is busy until then.
    busy: Instant,
}

impl Way {
    fn new(now: Instant) -> Self {
        Self { waiting: BinaryHeap::new(), number: 0, last: now, busy: now }
    }

    fn push(&mut self, packet: &[u8], now: Instant, link: &Link, random: &mut Random) {
        if random.next() < link.loss || self.waiting.len() >= link.queue {
            return;
        }
        let mut start = now.max(self.busy);
        if link.rate > 0.0 {
            start += Duration::from_secs_f64(packet.len() as f64 * 8.0 / link.rate);
            self.busy = start;
        }
        let due = if random.next() < link.reorder {
            start
        } else {
            self.last = self.last.max(start + link.delay + link.jitter.mul_f64(random.next()));
            self.last
        };
        for _ in 0..=u8::from(random.next() < link.duplicate) {
            self.number += 1;
            self.waiting.push(Reverse((due, self.number, packet.to_vec())));
        }
    }

    /// Sends what is due.
    fn flush(&mut self, now: Instant, out: &mut File) {
        while self.waiting.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            if let Some(Reverse((.., packet))) = self.waiting.pop() {
                // What the kernel does not take (the device has just come up, no memory) is lost, as on any link.
                drop(out.write(&packet));
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse((due, ..))| *due)
    }
}

/// `struct ifreq` as TUNSETIFF reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    padding: [u8; 22],
}

fn open_tun(name: &str) -> io::Result<File> {
    const SET_INTERFACE: Opcode = opcode::write::<i32>(b'T', 202);
    const IFF_TUN_NO_PI: u16 = 0x1001;
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let tun = OpenOptions::new().read(true).write(true).custom_flags(nonblock).open("/dev/net/tun")?;
    let mut request = InterfaceRequest { name: [0; 16], flags: IFF_TUN_NO_PI, padding: [0; 22] };
    let room = request.name.get_mut(..name.len()).filter(|_| name.len() < 16);
    room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, 40 bytes, which `request` is.
    unsafe { ioctl(&tun, Updater::<SET_INTERFACE, InterfaceRequest>::new(&mut request)) }?;
    Ok(tun)
}

fn run(one: &str, two: &str, link: &Link) -> io::Result<()> {
    let mut devices = [open_tun(one)?, open_tun(two)?];
    let mut random = Random(link.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut ways = [Way::new(Instant::now()), Way::new(Instant::now())];
    let mut middlebox = link.middlebox.map(middlebox::Middlebox::new);
    let mut buffer = vec![0; 65_536];
    println!("ready");
    loop {
        let next = ways.iter().filter_map(Way::next).min();
        let timeout = next.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
        {
            let [a, b] = &devices;
            let mut fds = [
                PollFd::from_borrowed_fd(a.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(b.as_fd(), PollFlags::IN),
            ];
            poll(&mut fds, timeout.as_ref())?;
        }
        for (from, way) in ways.iter_mut().enumerate() {
            // Both ways get their turn, and waiting packets theirs.
            for _ in 0..64 {
                match devices[from].read(&mut buffer) {
                    Ok(len) => match &mut middlebox {
                        None => way.push(&buffer[..len], Instant::now(), link, &mut random),
                        Some(middlebox) => {
                            for packet in middlebox.pass(&buffer[..len]) {
                                way.push(&packet, Instant::now(), link, &mut random);
                            }
                        }
                    },
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            way.flush(Instant::now(), &mut devices[1 - from]);
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [one, two, options @ ..] = words.as_slice() else {
        eprintln!(
            "usage: linkem ONE TWO [--delay MS] [--jitter MS] [--reorder %] [--loss %] [--duplicate %] [--rate MBIT] [--queue N] [--seed N] [--middlebox echo|resegment]"
        );
        return ExitCode::from(2);
    };
    let link = match Link::parse(options) {
        Ok(link) => link,
        Err(error) => {
            eprintln!("linkem: {error}");
            return ExitCode::from(2);
        }
    };
    match run(one, two, &link) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("linkem: {error}");
            ExitCode::FAILURE
        }
    }
}
