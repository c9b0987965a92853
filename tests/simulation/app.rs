//! What the two ends of a connection do.

use std::time::Duration;

use enotun::time::Instant;
use smoltcp::socket::tcp;

use crate::harness::rng::{Rng, Stream};

/// When an end closes its direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// As soon as all is written.
    Written,
    /// After the peer's end of file.
    PeerEof,
}

/// One end's part.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Bytes to send.
    pub send: u64,
    /// Bytes per write: 1 to this many.
    pub write_max: u64,
    /// Every write is of that very size.
    pub write_fixed: bool,
    /// Pause after a write, at most.
    pub write_pause: Duration,
    /// Bytes per read, at most.
    pub read_max: u64,
    /// Pause after a read, at most.
    pub read_pause: Duration,
    /// No more is sent than was received, and this many bytes on top: request and response, echo.
    pub paced_by_peer: Option<u64>,
    /// One long pause after half of the data.
    pub idle: Duration,
    /// Reads nothing for so long.
    pub deaf: Duration,
    /// The kernel gives up when its peer says nothing for so long.
    pub timeout: Option<Duration>,
    pub close: Close,
    /// Aborts (RST) after having sent and received at least so many bytes.
    pub abort_after: Option<(u64, u64)>,
    pub recv_buffer: usize,
    pub send_buffer: usize,
    pub nagle: bool,
    pub keep_alive: Option<Duration>,
    pub timestamps: bool,
    pub reno: bool,
    pub ack_delay: Option<Duration>,
    /// Bytes of the stream that are urgent, rising.
    pub urgent: Vec<u64>,
}

/// How the incoming direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Eof,
    Reset,
}

/// One end of a connection.
pub struct App {
    pub plan: Plan,
    pub stream: Stream,
    pub peer: Stream,
    rng: Rng,
    pub sent: u64,
    pub received: u64,
    /// When that was last more than before.
    pub last_sent: Instant,
    pub last_received: Instant,
    pub established: bool,
    /// Whether and at what count it closed its direction.
    pub closed: bool,
    pub aborted: bool,
    pub outcome: Option<Outcome>,
    /// The first byte that was not the peer's.
    pub wrong: Option<String>,
    next_write: Instant,
    next_read: Instant,
    write_left: u64,
    idled: bool,
}

impl App {
    pub fn new(plan: Plan, stream: Stream, peer: Stream, rng: Rng) -> Self {
        Self {
            plan,
            stream,
            peer,
            rng,
            sent: 0,
            received: 0,
            last_sent: Instant::ZERO,
            last_received: Instant::ZERO,
            established: false,
            closed: false,
            aborted: false,
            outcome: None,
            wrong: None,
            next_write: Instant::ZERO,
            next_read: Instant::ZERO,
            write_left: 0,
            idled: false,
        }
    }

    pub fn socket(&self) -> tcp::Socket<'static> {
        let buffer = |n: usize| tcp::SocketBuffer::new(vec![0; n]);
        let mut socket = tcp::Socket::new(buffer(self.plan.recv_buffer), buffer(self.plan.send_buffer));
        let span = |d: Duration| smoltcp::time::Duration::from_micros(d.as_micros() as u64);
        socket.set_nagle_enabled(self.plan.nagle);
        socket.set_keep_alive(self.plan.keep_alive.map(span));
        socket.set_timeout(self.plan.timeout.map(span));
        socket.set_ack_delay(self.plan.ack_delay.map(span));
        if self.plan.timestamps {
            socket.set_tsval_generator(Some(timestamp_now));
        }
        if self.plan.reno {
            socket.set_congestion_control(tcp::CongestionControl::Reno);
        }
        socket
    }

    /// Whether this end has nothing more to do.
    pub fn done(&self, socket: &tcp::Socket<'_>) -> bool {
        if self.aborted || self.outcome == Some(Outcome::Reset) {
            return true;
        }
        self.outcome.is_some() && matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait)
    }

    /// Does what can be done now; gives whether anything was.
    pub fn step(&mut self, now: Instant, socket: &mut tcp::Socket<'_>) -> bool {
        let mut moved = false;
        if self.aborted {
            return false;
        }
        if !self.established {
            if socket.may_send() {
                self.established = true;
                self.next_read = now + self.plan.deaf;
            } else if matches!(socket.state(), tcp::State::SynSent | tcp::State::SynReceived | tcp::State::Listen) {
                return false;
            }
        }
        moved |= self.read(now, socket);
        if self.outcome != Some(Outcome::Reset) {
            moved |= self.write(now, socket);
        }
        if let Some((sent, received)) = self.plan.abort_after
            && self.sent >= sent
            && self.received >= received
            && !self.closed
            && self.established
        {
            socket.abort();
            self.aborted = true;
            moved = true;
        }
        moved
    }

    fn read(&mut self, now: Instant, socket: &mut tcp::Socket<'_>) -> bool {
        let mut moved = false;
        // smoltcp forgets unread data when TIME-WAIT ends.
        let hurry = matches!(socket.state(), tcp::State::TimeWait);
        while self.outcome.is_none() && (now >= self.next_read || hurry) {
            let mut buffer = [0; 4096];
            let most = (self.plan.read_max as usize).min(buffer.len());
            match socket.recv_slice(&mut buffer[..most]) {
                Ok(0) => break,
                Ok(n) => {
                    moved = true;
                    let expected = self.peer.bytes(self.received, n);
                    if let Some(at) = (0..n).find(|&i| expected[i] != buffer[i])
                        && self.wrong.is_none()
                    {
                        self.wrong = Some(format!(
                            "byte {} is {:#04x}, not {:#04x}; what follows: {}",
                            self.received + at as u64,
                            buffer[at],
                            expected[at],
                            hex::encode(&buffer[at..n.min(at + 32)])
                        ));
                    }
                    self.received += n as u64;
                    self.last_received = now;
                    if !self.plan.read_pause.is_zero() {
                        self.next_read = now + self.rng.micros(0, self.plan.read_pause.as_micros() as u64);
                    }
                }
                Err(tcp::RecvError::Finished) => {
                    self.outcome = Some(Outcome::Eof);
                    moved = true;
                }
                Err(tcp::RecvError::InvalidState) => {
                    self.outcome = Some(Outcome::Reset);
                    moved = true;
                }
            }
        }
        moved
    }

    /// How much may be written in all, for now.
    fn allowed(&self) -> u64 {
        match self.plan.paced_by_peer {
            Some(ahead) if self.outcome.is_none() => self.plan.send.min(self.received + ahead),
            _ => self.plan.send,
        }
    }

    fn write(&mut self, now: Instant, socket: &mut tcp::Socket<'_>) -> bool {
        let mut moved = false;
        while socket.may_send() && !self.closed && now >= self.next_write && self.sent < self.allowed() {
            if !self.idled && !self.plan.idle.is_zero() && self.sent >= self.plan.send / 2 {
                self.idled = true;
                self.next_write = now + self.plan.idle;
                break;
            }
            if self.write_left == 0 {
                self.write_left =
                    if self.plan.write_fixed { self.plan.write_max } else { self.rng.range(1, self.plan.write_max) };
            }
            let n = self.write_left.min(self.allowed() - self.sent).min(65_536);
            let Ok(written @ 1..) = socket.send_slice(&self.stream.bytes(self.sent, n as usize)) else { break };
            moved = true;
            self.sent += written as u64;
            self.last_sent = now;
            self.write_left = self.write_left.saturating_sub(written as u64);
            if self.write_left == 0 && !self.plan.write_pause.is_zero() {
                self.next_write = now + self.rng.micros(0, self.plan.write_pause.as_micros() as u64);
            }
        }
        let may_close = self.plan.close == Close::Written || self.outcome.is_some();
        if self.sent >= self.plan.send
            && may_close
            && !self.closed
            && self.established
            && self.plan.abort_after.is_none()
        {
            socket.close();
            self.closed = true;
            moved = true;
        }
        moved
    }

    /// When it wants to be called, besides whenever something arrived.
    pub fn due(&self, now: Instant, socket: &tcp::Socket<'_>) -> Option<Instant> {
        let mut due = None;
        if !self.established || self.aborted {
            return None;
        }
        if self.outcome.is_none() && (socket.can_recv() || self.next_read > now) {
            due = Some(self.next_read);
        }
        if socket.can_send() && !self.closed && self.sent < self.allowed() && self.next_write > now {
            due = Some(due.map_or(self.next_write, |d: Instant| d.min(self.next_write)));
        }
        due
    }
}

std::thread_local! {
    static CLOCK: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// smoltcp asks for timestamps through a plain function.
fn timestamp_now() -> u32 {
    CLOCK.get()
}

/// Sets what [`timestamp_now`] says: milliseconds, wrapping `before_wrap` after the start.
pub fn set_clock(now: Instant, before_wrap: u32) {
    CLOCK.set(((now.as_micros() / 1000) as u32).wrapping_sub(before_wrap));
}
