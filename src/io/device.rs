//! One queue of a TUN device: packets in and out, with the kernel's metadata. Non-blocking; what the kernel refuses
//! is counted and dropped, as by a NIC.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, read, writev};
use serde::Serialize;

use super::vnet;
use crate::wire::Offload;
use crate::wire::split::{NotSplit, split, split_bytes};

/// Maximum number of slices per write (the kernel's UIO_MAXIOV).
const MAX_SLICES: usize = 1024;
/// Up to this many slices fit a small array on the stack.
const STACK_SLICES: usize = 72;

/// Offset of the packet in a [`Buffer`]. The virtio header goes right before it.
const PACKET_AT: usize = 16;

/// Memory for the largest possible packet, so that reading never truncates.
#[derive(Debug)]
pub struct Buffer(Box<[u8]>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; PACKET_AT + 65_600].into_boxed_slice())
    }
}

impl Buffer {
    /// The memory for packets.
    pub(super) fn memory(&mut self) -> &mut [u8] {
        self.0.split_at_mut(PACKET_AT).1
    }
}

/// The format of packets on the descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// With a virtio header of 10 bytes, super-packets and partial checksums included (`IFF_VNET_HDR`).
    Vnet,
    /// Single packets with complete checksums, nothing else.
    Packets,
}

/// What was transferred, and what was lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DeviceCounters {
    /// Packets (super-packets count once) read.
    pub read_packets: u64,
    /// Bytes read, without virtio headers.
    pub read_bytes: u64,
    /// Reads that the kernel refused, and packets whose virtio header did not fit them.
    pub read_errors: u64,
    /// Packets written.
    pub written_packets: u64,
    /// Bytes written, without virtio headers.
    pub written_bytes: u64,
    /// Packets dropped because the kernel had no memory or no room for them.
    pub refused_full: u64,
    /// Packets dropped because the device is down.
    pub refused_down: u64,
    /// Packets dropped because the kernel considered them invalid, or for another reason.
    pub refused_other: u64,
    /// Packets dropped because they cannot be split for a device without offloads.
    pub not_split: u64,
}

/// One queue of a TUN device.
#[derive(Debug)]
pub struct Device {
    queue: OwnedFd,
    format: Format,
    counters: DeviceCounters,
    gone: bool,
}

/// The result of a read.
#[derive(Debug)]
pub enum Read<'b> {
    /// A packet.
    Packet(Offload, &'b mut [u8]),
    /// Nothing usable; there may be more.
    Nothing,
    /// The queue is empty.
    Empty,
}

/// The device will deliver no more packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// It was deleted.
    #[error("the device was deleted")]
    Gone,
    /// Reading fails permanently.
    #[error("read failed: {0}")]
    Failed(Errno),
}

impl Device {
    /// The device behind `queue`, a non-blocking descriptor of a TUN device with the given `format`.
    #[must_use]
    pub fn new(queue: OwnedFd, format: Format) -> Self {
        Self { queue, format, counters: DeviceCounters::default(), gone: false }
    }

    /// The counters since it was opened.
    #[must_use]
    pub fn counters(&self) -> DeviceCounters {
        self.counters
    }

    /// Whether a write has found that the device was deleted.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Reads one packet.
    ///
    /// # Errors
    /// If there will never be another one.
    pub fn read<'b>(&mut self, buffer: &'b mut Buffer) -> Result<Read<'b>, DeviceError> {
        let before = match self.format {
            Format::Vnet => vnet::LEN,
            Format::Packets => 0,
        };
        let memory = &mut *buffer.0;
        let len = match read(&self.queue, &mut memory[PACKET_AT - before..]) {
            // Never from a TUN device, but from a socket that stands in for one and whose other end is closed.
            Ok(0) => return Err(DeviceError::Gone),
            Ok(len) => len,
            Err(Errno::AGAIN) => return Ok(Read::Empty),
            Err(Errno::BADFD) => return Err(DeviceError::Gone),
            // EINVAL: a packet for which the kernel has no virtio header; it is dropped, and the next one may be
            // fine.
            Err(Errno::INTR | Errno::INVAL | Errno::NOMEM | Errno::NOBUFS) => return Ok(self.unreadable()),
            Err(errno) => return Err(DeviceError::Failed(errno)),
        };
        let packet_len = len.saturating_sub(before);
        let (head, tail) = memory.split_at_mut(PACKET_AT);
        let Some(packet) = tail.get_mut(..packet_len).filter(|p| !p.is_empty()) else { return Ok(self.unreadable()) };
        let offload = match (self.format, head.last_chunk::<{ vnet::LEN }>()) {
            (Format::Packets, _) => Offload::NONE,
            (Format::Vnet, Some(header)) => match vnet::decode(header, packet_len) {
                Ok(offload) => offload,
                Err(vnet::InvalidHeader) => return Ok(self.unreadable()),
            },
            (Format::Vnet, None) => return Ok(self.unreadable()),
        };
        self.counters.read_packets += 1;
        self.counters.read_bytes += packet_len as u64;
        Ok(Read::Packet(offload, packet))
    }

    fn unreadable(&mut self) -> Read<'static> {
        self.counters.read_errors += 1;
        Read::Nothing
    }

    /// Writes a packet with a scattered payload, without copying it.
    pub fn write(&mut self, header: &[u8], payload: &[&[u8]], offload: Offload) {
        match self.format {
            Format::Vnet => self.gather(&vnet::encode(offload), header, payload),
            Format::Packets => {
                let done = split(header, payload, offload, |header, payload| self.gather(&[], header, payload));
                self.count_split(done);
            }
        }
    }

    /// Writes a packet that is in contiguous memory.
    pub fn write_whole(&mut self, offload: Offload, bytes: &[u8]) {
        match self.format {
            Format::Vnet => self.gather(&vnet::encode(offload), bytes, &[]),
            Format::Packets => {
                let done = split_bytes(bytes, offload, |header, payload| self.gather(&[], header, payload));
                self.count_split(done);
            }
        }
    }

    fn count_split(&mut self, done: Result<usize, NotSplit>) {
        if done.is_err() {
            self.counters.not_split += 1;
        }
    }

    /// One gathering write.
    fn gather(&mut self, vnet: &[u8], header: &[u8], payload: &[&[u8]]) {
        if payload.len() + 2 <= STACK_SLICES {
            self.gather_at_most::<STACK_SLICES>(vnet, header, payload);
        } else if payload.len() + 2 <= MAX_SLICES {
            self.gather_at_most::<MAX_SLICES>(vnet, header, payload);
        } else {
            // More than one write can take: a packet of 64 KiB in slices of less than 64 bytes, which is not worth
            // optimising.
            let (some, rest) = payload.split_at(MAX_SLICES - 3);
            let rest = rest.concat();
            let pieces = [some, &[&rest]].concat();
            self.gather_at_most::<MAX_SLICES>(vnet, header, &pieces);
        }
    }

    fn gather_at_most<const N: usize>(&mut self, vnet: &[u8], header: &[u8], payload: &[&[u8]]) {
        let mut slices = [IoSlice::new(&[]); N];
        let mut used = 0;
        let mut len = 0;
        for (slot, piece) in slices.iter_mut().zip([&vnet, &header].into_iter().chain(payload)) {
            *slot = IoSlice::new(piece);
            len += piece.len();
            used += 1;
        }
        let written = loop {
            match writev(&self.queue, slices.get(..used).unwrap_or(&[])) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        let counters = &mut self.counters;
        match written {
            Ok(_) => {
                counters.written_packets += 1;
                counters.written_bytes += (len - vnet.len()) as u64;
            }
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => counters.refused_full += 1,
            Err(Errno::IO) => counters.refused_down += 1,
            Err(errno) => {
                self.gone |= errno == Errno::BADFD;
                counters.refused_other += 1;
            }
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Checksum, Gso};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    /// A device and the other end of it, in the kernel's place. Datagrams preserve packet boundaries as a TUN device
    /// does.
    fn device(format: Format) -> (Device, OwnedFd) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (ours, kernels) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None).unwrap();
        (Device::new(ours, format), kernels)
    }

    fn take(kernels: &OwnedFd) -> Vec<u8> {
        let mut buffer = vec![0; 70_000];
        let len = read(kernels, &mut buffer[..]).unwrap();
        buffer.truncate(len);
        buffer
    }

    #[test]
    fn a_super_packet_is_read_with_what_the_kernel_says_of_it() {
        let (mut device, kernels) = device(Format::Vnet);
        let mut buffer = Buffer::default();
        assert!(matches!(device.read(&mut buffer), Ok(Read::Empty)));
        let packet: Vec<u8> = (0..65_535).map(|i| i as u8).collect();
        let offload = Offload::partial(20, 52, false, Some(1448));
        rustix::io::write(&kernels, &[&vnet::encode(offload)[..], &packet].concat()).unwrap();
        match device.read(&mut buffer) {
            Ok(Read::Packet(got, bytes)) => assert!(got == offload && bytes == packet),
            other => panic!("{other:?}"),
        }
        assert_eq!((device.counters().read_packets, device.counters().read_bytes), (1, 65_535));
    }

    #[test]
    fn what_cannot_be_a_packet_is_counted_and_passed_over() {
        let (mut device, kernels) = device(Format::Vnet);
        let mut buffer = Buffer::default();
        let mut misfit = vnet::encode(Offload::partial(20, 52, false, None)).to_vec();
        misfit.extend_from_slice(&[0x45; 37]);
        let tries: [&[u8]; 3] = [&[0; 9], &[0; 10], &misfit];
        for bytes in tries {
            rustix::io::write(&kernels, bytes).unwrap();
            assert!(matches!(device.read(&mut buffer), Ok(Read::Nothing)), "{} bytes", bytes.len());
        }
        assert_eq!(device.counters().read_errors, 3);
        assert_eq!(device.counters().read_packets, 0);
    }

    #[test]
    fn pieces_of_any_number_arrive_as_one_packet() {
        let (mut device, kernels) = device(Format::Vnet);
        let offload = Offload { checksum: Checksum::Verified, gso: Some(Gso { kind: 4, size: 9, header_len: 60 }) };
        let payload: Vec<u8> = (0..6000).map(|i| (i / 7) as u8).collect();
        for pieces in [0, 1, STACK_SLICES - 2, STACK_SLICES - 1, MAX_SLICES - 2, MAX_SLICES - 1, MAX_SLICES, 3000] {
            let slices: Vec<&[u8]> = payload.chunks(6000usize.div_ceil(pieces.max(1))).take(pieces).collect();
            device.write(b"header", &slices, offload);
            let expected = [&vnet::encode(offload)[..], b"header", &slices.concat()].concat();
            assert!(take(&kernels) == expected, "{pieces} pieces");
        }
        assert_eq!(device.counters().written_packets, 8);
        assert_eq!(device.counters().refused_other, 0);
    }

    #[test]
    fn without_virtio_headers_single_packets_go_out() {
        let (mut device, kernels) = device(Format::Packets);
        device.write_whole(Offload::NONE, b"packet");
        assert_eq!(take(&kernels), b"packet");
        let mut bytes = [0; 40];
        bytes[39] = 0x77;
        device.write(&bytes[..38], &[&bytes[38..]], Offload::partial(20, 40, false, None));
        let got = take(&kernels);
        assert_eq!(got.len(), 40);
        assert_eq!(got[36..38], (!0x77_u16).to_be_bytes(), "the checksum was completed");
        device.write_whole(Offload::partial(20, 40, false, Some(1)), &bytes);
        assert_eq!(device.counters().not_split, 1);
        rustix::io::write(&kernels, b"xy").unwrap();
        let mut buffer = Buffer::default();
        assert!(matches!(device.read(&mut buffer), Ok(Read::Packet(Offload::NONE, bytes)) if bytes == b"xy"));
    }

    #[test]
    fn refused_writes_are_counted() {
        let (mut device, kernels) = device(Format::Vnet);
        for _ in 0..100_000 {
            device.write_whole(Offload::NONE, &[0x45; 1000]);
            if device.counters().refused_full > 0 {
                break;
            }
        }
        assert_eq!(device.counters().refused_full, 1);
        drop(kernels);
        device.write_whole(Offload::NONE, &[0x45; 1000]);
        assert_eq!(device.counters().refused_other, 1);
        assert!(!device.is_gone());
    }
}
