//! Packets as devices give them, virtio header first: parsing, checksums, cutting super-packets, ICMP errors. What the
//! parsers say lies inside of the packet, the pieces of a super-packet are the whole, and put together they are it again.
#![no_main]

use enotun::io::vnet;
use enotun::wire::gro::Aggregate;
use enotun::wire::icmp::IcmpError;
use enotun::wire::split::{complete_checksum, segments_of_bytes};
use enotun::wire::{Checksum, Offload, Packet, options};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((header, bytes)) = input.split_first_chunk::<{ vnet::LEN }>() else { return };
    if let Some(error) = IcmpError::parse(bytes) {
        assert!(bytes.len() >= 20 + 8 + 20 + 8, "no room for what it quotes: {error:?}");
    }
    let offload = vnet::decode(header, bytes.len());
    if let Ok(offload) = offload {
        // Fields that say nothing are not kept, everything else is.
        assert_eq!(vnet::decode(&vnet::encode(offload), bytes.len()), Ok(offload));
        if let Checksum::Partial { start, offset } = offload.checksum {
            let mut completed = bytes.to_vec();
            complete_checksum(&mut completed, start, offset).expect("decode has seen to it");
        }
    }
    let packet = Packet::<()>::parse(bytes);
    if let Ok(packet) = &packet {
        assert!(packet.tcp.len() >= 20 && packet.tcp.end == packet.payload.start, "{packet:?}");
        assert!(packet.payload.end <= bytes.len(), "{packet:?}");
        let area = packet.options(bytes);
        assert_eq!(area.len(), packet.tcp.len() - 20);
        assert!(options::walk(area).map(|(_, option)| option.len()).sum::<usize>() <= area.len());
        let _ = packet.checksum_is_right(bytes);
    }
    let Ok(offload) = offload else { return };
    let Ok(segments) = segments_of_bytes(bytes, offload) else { return };
    let (Ok(packet), Some(gso)) = (packet, offload.gso) else {
        assert_eq!(segments.len(), 1, "only super-packets are cut");
        return;
    };
    let mut whole = Vec::new();
    for segment in &segments {
        let part = Packet::<()>::parse(segment).expect("a segment of a packet that parses");
        assert!(part.payload_len() <= usize::from(gso.size));
        assert_eq!(part.seq.0, packet.seq.0.wrapping_add(whole.len() as u32));
        assert!(part.checksum_is_right(segment), "{part:?}");
        whole.extend_from_slice(&segment[part.payload]);
    }
    assert_eq!(Some(&whole[..]), bytes.get(packet.payload));

    // What is put together again is cut into the same segments again.
    let Some((first, rest)) = segments.split_first() else { return };
    let Some(mut run) = Aggregate::begin(first, Offload::NONE) else { return };
    let mut memory = first.clone();
    memory.resize(65_600, 0);
    let added = rest.iter().take_while(|more| run.is_open() && run.add(&mut memory, more, Offload::NONE)).count();
    match run.finish(&mut memory) {
        Some((len, offload)) => {
            assert_eq!(segments_of_bytes(&memory[..len], offload).as_deref(), Ok(&segments[..=added]));
        }
        None => assert_eq!(added, 0),
    }
});
