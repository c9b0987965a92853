//! The packet loop with an engine that passes everything through, between TUN devices in two network namespaces:
//! the real kernel's super-packets, partial checksums and errors.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use enotun::engine::{Config, Engine, Side};
use enotun::io::device::DeviceError;
use enotun::io::{Device, Format, WorkerError, WorkerHandle, spawn};
use rustix::ioctl::{IntegerSetter, Updater, ioctl, opcode};

use crate::netns::{Namespace, missing};

macro_rules! need_root {
    () => {
        if missing().is_some() {
            return;
        }
    };
}

/// `struct ifreq` with flags.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    padding: [u8; 22],
}

/// A TUN device in the namespace of this thread.
fn open_tun(name: &str, format: Format) -> OwnedFd {
    const SET_INTERFACE: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 202);
    const SET_OFFLOAD: rustix::ioctl::Opcode = opcode::write::<u32>(b'T', 208);
    const IFF_TUN_NO_PI: u16 = 0x1001;
    const IFF_VNET_HDR: u16 = 0x4000;
    const CSUM_TSO4_TSO6_ECN: usize = 0b1111;
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
    let tun = OpenOptions::new().read(true).write(true).custom_flags(nonblock).open("/dev/net/tun").unwrap();
    let mut request = InterfaceRequest { name: [0; 16], flags: IFF_TUN_NO_PI, padding: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    if format == Format::Vnet {
        request.flags |= IFF_VNET_HDR;
    }
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq` of 40 bytes, which `request` is.
    unsafe { ioctl(&tun, Updater::<SET_INTERFACE, InterfaceRequest>::new(&mut request)) }.unwrap();
    if format == Format::Vnet {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        unsafe { ioctl(&tun, IntegerSetter::<SET_OFFLOAD>::new_usize(CSUM_TSO4_TSO6_ECN)) }.unwrap();
    }
    tun.into()
}

/// Two hosts, 10.77.0.1 and 10.77.0.2 (fd77::1 and fd77::2), whose only link is the worker.
struct Link {
    worker: WorkerHandle,
    plain: Namespace,
    wire: Namespace,
}

impl Link {
    fn new(plain_format: Format, wire_format: Format) -> Self {
        let device = |role, format, n: u32| {
            let namespace = Namespace::new("io", role);
            let tun = namespace.run(|| open_tun(role, format));
            for arguments in [
                format!("addr add 10.77.0.{n}/24 dev {role}"),
                format!("addr add fd77::{n}/64 dev {role} nodad"),
                format!("link set {role} up mtu 1500 txqueuelen 10000"),
            ] {
                namespace.ip(&arguments);
            }
            (namespace, Device::new(tun, format))
        };
        let (plain, plain_device) = device("plain", plain_format, 1);
        let (wire, wire_device) = device("wire", wire_format, 2);
        let worker = spawn(
            Engine::new(Config::default(), enotun::crypto::provider()),
            plain_device,
            wire_device,
            None,
            enotun::io::BusyPoll::default(),
        )
        .unwrap();
        Self { worker, plain, wire }
    }
}

/// Bytes that are different everywhere, so that nothing can be lost, repeated or swapped unseen.
fn content(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

/// Sends `up` to `address` on the wire side's host and gets `down` back, both at once.
fn exchange(link: &Link, address: &str, up: &[u8], down: &[u8]) {
    let address: SocketAddr = address.parse().unwrap();
    let both = |stream: &TcpStream, send: &[u8], receive: &[u8]| {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (&mut &*stream).write_all(send).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut got = Vec::new();
            (&mut &*stream).read_to_end(&mut got).unwrap();
            assert!(got == receive, "{} bytes came of {}", got.len(), receive.len());
        });
    };
    let listener = link.wire.run(|| TcpListener::bind(address).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| both(&listener.accept().unwrap().0, down, up));
        link.plain.spawn(scope, || both(&TcpStream::connect(address).unwrap(), up, down));
    });
}

fn counters(worker: &WorkerHandle) -> enotun::io::IoCounters {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(worker.io_counters()).unwrap()
}

fn ended(worker: &WorkerHandle) -> Result<(), WorkerError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(worker.ended())
}

#[test]
fn tcp_passes_in_super_packets_both_ways() {
    need_root!();
    let link = Link::new(Format::Vnet, Format::Vnet);
    let up = content(20_000_000);
    exchange(&link, "10.77.0.2:7000", &up, &up[..10_000_001]);
    exchange(&link, "[fd77::2]:7000", &up[..9_999_999], &up);
    exchange(&link, "[fd77::2]:7001", b"?", b"");
    let counters = counters(&link.worker);
    for device in [counters.plain, counters.wire] {
        assert_eq!((device.read_errors, device.refused_other, device.not_split), (0, 0, 0), "{device:?}");
        assert!(device.read_bytes > 29_000_000, "{device:?}");
        // Acknowledgements included; single segments would give 1500 at most.
        assert!(device.read_bytes / device.read_packets > 3000, "super-packets: {device:?}");
    }
}

#[test]
fn devices_without_offloads_get_single_segments() {
    need_root!();
    let up = content(5_000_000);
    for (plain, wire) in
        [(Format::Vnet, Format::Packets), (Format::Packets, Format::Vnet), (Format::Packets, Format::Packets)]
    {
        let link = Link::new(plain, wire);
        exchange(&link, "10.77.0.2:7000", &up, &up[..3_000_001]);
        exchange(&link, "[fd77::2]:7000", &up[..2_999_999], &up);
        let counters = counters(&link.worker);
        let refused = [counters.plain, counters.wire].map(|c| c.read_errors + c.refused_other + c.not_split);
        assert_eq!(refused, [0, 0], "{counters:?}");
    }
}

#[test]
fn other_protocols_pass_whole() {
    need_root!();
    let link = Link::new(Format::Vnet, Format::Vnet);
    for (from, to) in [("10.77.0.1:9", "10.77.0.2:9"), ("[fd77::1]:9", "[fd77::2]:9")] {
        let receiver = link.wire.run(|| UdpSocket::bind(to).unwrap());
        let sender = link.plain.run(|| UdpSocket::bind(from).unwrap());
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The last is sent in fragments.
        for len in [0, 1, 1400, 20_000] {
            sender.send_to(&content(len), to).unwrap();
            let mut got = vec![0; 65_536];
            assert_eq!(receiver.recv_from(&mut got).unwrap(), (len, from.parse().unwrap()));
            assert!(got[..len] == content(len));
        }
    }
}

#[test]
fn a_deleted_device_ends_the_worker_with_the_reason() {
    need_root!();
    let link = Link::new(Format::Vnet, Format::Vnet);
    link.wire.ip("link del wire");
    assert_eq!(ended(&link.worker), Err(WorkerError::Device { side: Side::Wire, error: DeviceError::Gone }));
}

#[test]
fn a_device_that_is_down_loses_packets_and_not_the_worker() {
    need_root!();
    let link = Link::new(Format::Vnet, Format::Vnet);
    link.wire.ip("link set wire down");
    let sender = link.plain.run(|| UdpSocket::bind("10.77.0.1:9").unwrap());
    sender.send_to(b"lost", "10.77.0.2:9").unwrap();
    for _ in 0..1000 {
        if counters(&link.worker).wire.refused_down > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(counters(&link.worker).wire.refused_down > 0);
    link.wire.ip("link set wire up");
    exchange(&link, "10.77.0.2:7000", b"here", b"again");
    link.worker.stop();
    assert_eq!(ended(&link.worker), Ok(()));
}
