//! Packets of the wire side, with consecutive segments coalesced ([`crate::wire::gro`]) as far as they have arrived
//! already: nothing is waited for.

use super::device::{Buffer, Device, DeviceError, Read};
use crate::wire::Offload;
use crate::wire::gro::Aggregate;

/// Reads from a device, one packet ahead where that shows what can be coalesced.
#[derive(Debug, Default)]
pub(super) struct GroReader {
    front: Buffer,
    back: Buffer,
    /// A packet in `back` that was read ahead and not returned yet.
    pending: Option<(Offload, usize)>,
}

impl GroReader {
    /// Reads one packet, or several coalesced into one.
    ///
    /// # Errors
    /// If there will never be another one.
    pub(super) fn read(&mut self, device: &mut Device) -> Result<Read<'_>, DeviceError> {
        let (mut offload, mut len) = match self.pending.take() {
            Some(pending) => {
                std::mem::swap(&mut self.front, &mut self.back);
                pending
            }
            None => match device.read(&mut self.front)? {
                Read::Packet(offload, bytes) => (offload, bytes.len()),
                Read::Nothing => return Ok(Read::Nothing),
                Read::Empty => return Ok(Read::Empty),
            },
        };
        let memory = self.front.memory();
        if let Some(mut aggregate) = memory.get(..len).and_then(|bytes| Aggregate::begin(bytes, offload)) {
            // Any other result of reading comes again with the next read.
            while aggregate.is_open()
                && let Ok(Read::Packet(offload, more)) = device.read(&mut self.back)
            {
                if !aggregate.add(memory, more, offload) {
                    self.pending = Some((offload, more.len()));
                    break;
                }
            }
            if let Some(whole) = aggregate.finish(memory) {
                (len, offload) = whole;
            }
        }
        Ok(memory.get_mut(..len).map_or(Read::Nothing, |bytes| Read::Packet(offload, bytes)))
    }

    /// Returns the packet that was read ahead, so that nothing is left behind when the caller turns to something
    /// else.
    pub(super) fn take_pending(&mut self) -> Option<(Offload, &mut [u8])> {
        let (offload, len) = self.pending.take()?;
        Some((offload, self.back.memory().get_mut(..len)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::device::Format;
    use crate::io::vnet;
    use etherparse::PacketBuilder;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn segment(port: u16, seq: u32) -> Vec<u8> {
        let mut bytes = vec![0; vnet::LEN];
        let builder = PacketBuilder::ipv6([1; 16], [2; 16], 64).tcp(port, 80, seq, 500).ack(77);
        builder.write(&mut bytes, &[7; 1000]).unwrap();
        bytes
    }

    #[test]
    fn what_is_here_is_put_together_and_nothing_is_left_behind() {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (ours, kernels) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None).unwrap();
        let mut device = Device::new(ours, Format::Vnet);
        let mut reader = GroReader::default();
        let mut next = |device: &mut Device| match reader.read(device).unwrap() {
            Read::Packet(offload, bytes) => Some((offload.gso.map(|gso| gso.size), bytes.len())),
            Read::Nothing => Some((None, 0)),
            Read::Empty => None,
        };
        let single = 60 + 1000;
        for (port, seq) in [(1, 0), (1, 1000), (1, 2000), (2, 0), (2, 1000), (1, 3000)] {
            rustix::io::write(&kernels, &segment(port, seq)).unwrap();
        }
        rustix::io::write(&kernels, &[0; 9]).unwrap();
        rustix::io::write(&kernels, &segment(1, 4000)).unwrap();
        assert_eq!(next(&mut device), Some((Some(1000), single + 2000)));
        assert_eq!(
            next(&mut device),
            Some((Some(1000), single + 1000)),
            "the one that was read pending begins the next"
        );
        assert_eq!(next(&mut device), Some((None, single)), "what is no packet ends it");
        assert_eq!(next(&mut device), Some((None, single)));
        assert_eq!(next(&mut device), None);
        assert_eq!(device.counters().read_packets, 7);

        for (port, seq) in [(1, 0), (2, 0)] {
            rustix::io::write(&kernels, &segment(port, seq)).unwrap();
        }
        assert!(matches!(reader.read(&mut device), Ok(Read::Packet(..))));
        assert_eq!(reader.take_pending().map(|(offload, bytes)| (offload, bytes.len())), Some((Offload::NONE, single)));
        assert!(reader.take_pending().is_none());
        assert!(matches!(reader.read(&mut device), Ok(Read::Empty)));
    }
}
