use super::*;
use etherparse::PacketBuilder;

const SEQ: u32 = u32::MAX - 2000;

/// A super-packet with the pseudo-header's sum in the checksum field: header and payload.
fn super_packet(v6: bool, len: usize, flags: u8) -> (Vec<u8>, Vec<u8>, usize) {
    let payload: Vec<u8> = (0..len).map(|i| (i * 31 + i / 256) as u8).collect();
    let mut bytes = Vec::new();
    let options = [1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9];
    if v6 {
        PacketBuilder::ipv6([0x20; 16], [0x21; 16], 64)
            .tcp(443, 5000, SEQ, 1000)
            .options_raw(&options)
            .unwrap()
            .write(&mut bytes, &payload)
            .unwrap();
    } else {
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(443, 5000, SEQ, 1000)
            .options_raw(&options)
            .unwrap()
            .write(&mut bytes, &payload)
            .unwrap();
        bytes[4..6].copy_from_slice(&0xffff_u16.to_be_bytes());
    }
    let tcp_at = if v6 { 40 } else { 20 };
    bytes[tcp_at + 13] = flags;
    let packet = Packet::<()>::parse(&bytes).unwrap();
    let pseudo = pseudo_header(packet.src.ip(), packet.dst.ip(), 6, bytes.len() - tcp_at);
    bytes[tcp_at + 16..tcp_at + 18].copy_from_slice(&pseudo.to_be_bytes());
    let header = bytes[..tcp_at + 32].to_vec();
    (header, payload, tcp_at)
}

fn offload(v6: bool, tcp_at: usize, size: u16) -> Offload {
    Offload::partial(tcp_at, tcp_at + 32, v6, Some(size))
}

fn all_right(segment: &[u8]) -> Packet<()> {
    let packet = Packet::<()>::parse(segment).unwrap();
    assert_eq!(packet.payload.end, segment.len(), "the IP length is that of the segment");
    assert!(packet.checksum_is_right(segment), "TCP checksum");
    if segment[0] >> 4 == 4 {
        assert_eq!(sum(0, &segment[..20]), 0xffff, "IPv4 header checksum");
    }
    packet
}

#[test]
fn segments_are_whole_and_in_order_in_both_ip_versions() {
    for v6 in [false, true] {
        for len in [1, 1447, 1448, 1449, 2896, 5001, 64_000] {
            let (header, payload, tcp_at) = super_packet(v6, len, 0x10);
            let bytes = [&header[..], &payload].concat();
            let segments = segments_of_bytes(&bytes, offload(v6, tcp_at, 1448)).unwrap();
            assert_eq!(segments.len(), len.div_ceil(1448), "v6 {v6}, {len} bytes");
            let mut got = Vec::new();
            for (i, segment) in segments.iter().enumerate() {
                let packet = all_right(segment);
                assert_eq!(packet.seq.0, SEQ.wrapping_add(got.len() as u32));
                assert_eq!(packet.options(segment), &header[tcp_at + 20..]);
                if !v6 {
                    assert_eq!(segment[4..6], 0xffff_u16.wrapping_add(i as u16).to_be_bytes());
                }
                got.extend_from_slice(&segment[packet.payload]);
            }
            assert_eq!(got, payload);
        }
    }
}

#[test]
fn cwr_is_on_the_first_only_and_fin_and_psh_on_the_last_only() {
    let (header, payload, tcp_at) = super_packet(false, 3000, !0x06);
    let bytes = [&header[..], &payload].concat();
    let flags: Vec<u16> =
        segments_of_bytes(&bytes, offload(false, tcp_at, 1000)).unwrap().iter().map(|s| all_right(s).flags.0).collect();
    assert_eq!(flags, [0xf0, 0x70, 0x79]);
}

#[test]
fn payload_in_pieces_of_any_length_gives_the_same_segments() {
    let (header, payload, tcp_at) = super_packet(true, 5000, 0x18);
    let bytes = [&header[..], &payload].concat();
    let offload = offload(true, tcp_at, 1400);
    let whole = segments_of_bytes(&bytes, offload).unwrap();
    for piece in [1, 2, 3, 7, 333, 1399, 1400, 1401, 4999] {
        let mut pieces: Vec<&[u8]> = payload.chunks(piece).collect();
        pieces.insert(1, &[]);
        pieces.push(&[]);
        let packet = Outgoing { header: &header, payload: &pieces, offload };
        assert_eq!(segments(&packet).unwrap(), whole, "pieces of {piece}");
    }
}

#[test]
fn a_single_segment_only_has_its_checksum_completed() {
    let (header, payload, tcp_at) = super_packet(false, 777, 0x19);
    let offload = Offload::partial(tcp_at, tcp_at + 32, false, None);
    let pieces: Vec<&[u8]> = payload.chunks(13).collect();
    let got = segments(&Outgoing { header: &header, payload: &pieces, offload }).unwrap();
    assert_eq!(got.len(), 1);
    all_right(&got[0]);
    assert_eq!(got[0][tcp_at + 18..], [&header[tcp_at + 18..], &payload].concat());
    let bytes = [&header[..], &payload].concat();
    assert_eq!(segments_of_bytes(&bytes, offload).unwrap(), got);
    let mut completed = bytes;
    complete_checksum(&mut completed, tcp_at as u16, 16).unwrap();
    assert_eq!(completed, got[0]);
}

#[test]
fn a_packet_with_a_complete_checksum_comes_out_as_it_is() {
    let bytes = [0x45, 1, 2, 3];
    assert_eq!(segments_of_bytes(&bytes, Offload::NONE).unwrap(), [bytes.to_vec()]);
}

#[test]
fn what_the_offload_cannot_mean_is_refused() {
    let (header, payload, tcp_at) = super_packet(false, 3000, 0x10);
    let bytes = [&header[..], &payload].concat();
    let good = offload(false, tcp_at, 1000);
    let gso = |kind, size| Offload { gso: Some(Gso { kind, size, header_len: 52 }), ..good };
    assert_eq!(segments_of_bytes(&bytes, gso(5, 1000)), Err(NotSplit::Kind(5)));
    assert_eq!(segments_of_bytes(&bytes, gso(4, 1000)), Err(NotSplit::Headers));
    assert_eq!(segments_of_bytes(&bytes, gso(1, 0)), Err(NotSplit::NoSize));
    assert_eq!(segments_of_bytes(&bytes, gso(0x81, 1000)).unwrap().len(), 3, "the ECN flag beside the kind");
    assert_eq!(
        segments_of_bytes(&bytes, Offload { checksum: Checksum::Unverified, ..good }),
        Err(NotSplit::Unverified)
    );
    for cut in 0..52 {
        assert_eq!(segments_of_bytes(&bytes[..cut], good), Err(NotSplit::Headers));
        let packet = Outgoing { header: &header[..cut], payload: &[&payload], offload: good };
        assert_eq!(segments(&packet), Err(NotSplit::Headers), "a header of {cut} bytes");
    }
    for (start, offset) in [(3052, 0), (3000, 51), (u16::MAX, u16::MAX)] {
        let partial = Offload { checksum: Checksum::Partial { start, offset }, gso: None };
        assert_eq!(segments_of_bytes(&bytes, partial), Err(NotSplit::ChecksumPlace));
    }
}
