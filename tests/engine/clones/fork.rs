//! The memory of a process with an engine and the daemon's own random source, duplicated by fork just after it has cached a
//! session (TC-14): the copies, both alive at once, go on against one peer. What the copies can differ by is what a fork leaves
//! different: the kernel's random numbers, the clocks, the process ID. Their connections have the same addresses, ports and
//! sequence numbers.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::harness::env::Source;
use crate::harness::machine::{Connection, Machine, Make, Node, Numbers, Packets, Session};
use crate::harness::packet::Seg;
use enotun::engine::{Env as _, RandomFor, Side};
use enotun::io::env::HostEnv;
use enotun::io::{Device, Format};
use enotun::wire::Offload;
use serde::{Deserialize, Serialize};

/// The daemon's random source.
struct Daemon(HostEnv);

impl Source for Daemon {
    fn fill(&mut self, wanted: &RandomFor<'_>, out: &mut [u8]) {
        self.0.random(wanted, out);
    }
}

type Original = Machine<Daemon>;

/// A machine with the daemon's random source. Its devices are not used.
fn machine() -> Original {
    let device = || Device::new(UnixStream::pair().unwrap().0.into(), Format::Packets);
    let make = Make { seed: 0, mixing: true, resume: true, nonce_len: 8 };
    Machine::with_source(make, Daemon(HostEnv::new(device(), device(), None)))
}

#[derive(Serialize, Deserialize)]
enum Request {
    Take(bool, Vec<u8>),
    Session(SocketAddr, SocketAddr),
}

#[derive(Serialize, Deserialize)]
enum Reply {
    Sent(Vec<(bool, Vec<u8>)>),
    Session(Session),
}

fn side(wire: bool) -> Side {
    if wire { Side::Wire } else { Side::Plain }
}

/// The way to a machine in a forked process, which ends when this is dropped.
struct Forked {
    child: libc::pid_t,
    stream: UnixStream,
}

impl Forked {
    /// Duplicates this process. The copy of `machine` in the other one is what this leads to.
    fn new(machine: &mut Original) -> Self {
        let (stream, theirs) = UnixStream::pair().unwrap();
        // SAFETY: the child has only this thread. It uses its own memory and its end of the socket, prints nothing, takes no
        // lock that another thread may have held (the allocator's are the C library's to look after), and ends with _exit.
        match unsafe { libc::fork() } {
            -1 => panic!("fork: {}", std::io::Error::last_os_error()),
            0 => {
                drop(stream);
                let served = catch_unwind(AssertUnwindSafe(|| serve(machine, theirs)));
                // SAFETY: _exit takes a number and does not return; nothing of the parent's is cleaned up here.
                unsafe { libc::_exit(i32::from(served.is_err())) }
            }
            child => Self { child, stream },
        }
    }

    fn ask(&self, request: &Request) -> Reply {
        let mut line = serde_json::to_vec(request).unwrap();
        line.push(b'\n');
        (&self.stream).write_all(&line).unwrap();
        let mut reply = String::new();
        BufReader::new(&self.stream).read_line(&mut reply).unwrap();
        serde_json::from_str(&reply).expect("the forked process has ended")
    }
}

/// Does what is asked for until the other end is closed.
fn serve(machine: &mut Original, stream: UnixStream) {
    let mut requests = BufReader::new(&stream);
    let mut line = String::new();
    while requests.read_line(&mut line).unwrap() > 0 {
        let reply = match serde_json::from_str(&line).unwrap() {
            Request::Take(wire, bytes) => {
                let sent = machine.take(side(wire), bytes, Offload::NONE);
                // There is no device to complete checksums.
                Reply::Sent(sent.into_iter().map(|(side, bytes, _)| (side == Side::Wire, whole(bytes))).collect())
            }
            Request::Session(local, remote) => Reply::Session(machine.session(local, remote)),
        };
        let mut text = serde_json::to_vec(&reply).unwrap();
        text.push(b'\n');
        (&stream).write_all(&text).unwrap();
        line.clear();
    }
}

/// A packet with its checksums complete.
fn whole(bytes: Vec<u8>) -> Vec<u8> {
    Seg::parse(&bytes).map_or(bytes, |segment| segment.build())
}

impl Node for Forked {
    fn take(&mut self, from: Side, bytes: Vec<u8>, _: Offload) -> Packets {
        match self.ask(&Request::Take(from == Side::Wire, whole(bytes))) {
            Reply::Sent(sent) => sent.into_iter().map(|(wire, bytes)| (side(wire), bytes, Offload::NONE)).collect(),
            Reply::Session(_) => panic!("another answer"),
        }
    }

    fn session(&self, local: SocketAddr, remote: SocketAddr) -> Session {
        match self.ask(&Request::Session(local, remote)) {
            Reply::Session(session) => session,
            Reply::Sent(_) => panic!("another answer"),
        }
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        // Its end of file ends the child.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        let mut status = 0;
        // SAFETY: waitpid writes one int, which outlives the call; the child is ours and is waited for once.
        unsafe { libc::waitpid(self.child, &raw mut status, 0) };
        if !std::thread::panicking() {
            assert_eq!(status, 0, "the forked process failed");
        }
    }
}

/// What no two connections may share.
#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    keys: HashSet<String>,
    resumed: usize,
}

impl Seen {
    fn note(&mut self, session: &Session) {
        assert!(self.ids.insert(session.id.clone()), "a session ID occurs twice: {session:?}");
        assert!(self.keys.insert(session.key.clone()), "keys occur twice: {session:?}");
        self.resumed += usize::from(session.resumed);
    }
}

const DATA: [&[u8]; 2] = [b"question", b"answer"];

/// A host and its peer with a session in both caches.
fn cached(seen: &mut Seen) -> [Original; 2] {
    let [mut one, mut other] = [machine(), machine()];
    seen.note(&Connection::whole(&mut one, &mut other, Numbers::new(1, false, 0), DATA));
    [one, other]
}

#[test]
fn tc_14_forked_copies_share_no_key_against_one_peer() {
    for swapped in [false, true] {
        let mut seen = Seen::default();
        let [mut copied, mut peer] = cached(&mut seen);
        let mut copies = [Forked::new(&mut copied), Forked::new(&mut copied)];
        for round in 0..6 {
            for copy in &mut copies {
                // The peer's kernel, which is one, does not repeat its sequence numbers; the copies' do.
                let mut numbers = Numbers::new(1, swapped, 10 + round / 2);
                let peers = if swapped { &mut numbers.client_isn } else { &mut numbers.server_isn };
                *peers = peers.wrapping_add(seen.ids.len() as u32);
                let session = if swapped {
                    Connection::whole(&mut peer, copy, numbers, DATA)
                } else {
                    Connection::whole(copy, &mut peer, numbers, DATA)
                };
                seen.note(&session);
            }
        }
        assert!(seen.resumed > 0 && seen.ids.len() == 13, "{swapped}: {}", seen.resumed);
    }
}

/// The worst case: the peer is rolled back as well, so that nobody refuses a secret that was used. Every copy resumes the same
/// session, on a connection that is the same to the last bit of its SYNs.
#[test]
fn tc_14_forked_copies_share_no_key_if_the_peer_is_copied_as_well() {
    let mut seen = Seen::default();
    let [mut one, mut other] = cached(&mut seen);
    for swapped in [false, true] {
        for _ in 0..20 {
            let (mut one, mut other) = (Forked::new(&mut one), Forked::new(&mut other));
            let numbers = Numbers::new(1, swapped, 1);
            seen.note(&if swapped {
                Connection::whole(&mut other, &mut one, numbers, DATA)
            } else {
                Connection::whole(&mut one, &mut other, numbers, DATA)
            });
        }
    }
    assert_eq!(seen.resumed, 40, "all of them resume");
}
