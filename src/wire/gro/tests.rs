use super::*;
use crate::wire::split::split_bytes;
use etherparse::PacketBuilder;

/// Consecutive segments: address family, first sequence number, and payload lengths.
fn segments(v6: bool, seq: u32, lens: &[usize]) -> Vec<Vec<u8>> {
    let mut at = 0_usize;
    let mut all = Vec::new();
    for (n, len) in lens.iter().enumerate() {
        let data: Vec<u8> = (at..at + len).map(|i| (i % 251) as u8).collect();
        all.push(segment(v6, seq.wrapping_add(at as u32), n as u16, &data, false, |_| {}));
        at += len;
    }
    all
}

/// One segment, changed by `change` before its checksums are computed.
fn segment(v6: bool, seq: u32, id: u16, data: &[u8], psh: bool, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let start = if v6 {
        PacketBuilder::ipv6([1; 16], [2; 16], 64)
    } else {
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
    };
    let mut builder =
        start.tcp(1000, 80, seq, 500).ack(77).options_raw(&[1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8]).unwrap();
    if psh {
        builder = builder.psh();
    }
    let mut bytes = Vec::new();
    builder.write(&mut bytes, data).unwrap();
    if !v6 {
        bytes[4..6].copy_from_slice(&id.to_be_bytes());
        bytes[6] = 0x40;
    }
    change(&mut bytes);
    seal(&mut bytes);
    bytes
}

/// Computes the checksums.
fn seal(bytes: &mut [u8]) {
    let tcp = if bytes[0] >> 4 == 4 { 20 } else { 40 };
    if tcp == 20 {
        bytes[10..12].fill(0);
        let sum = !sum(0, &bytes[..20]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    bytes[tcp + 16..tcp + 18].fill(0);
    let packet = Packet::<C>::parse(bytes).unwrap();
    let pseudo = pseudo_header(packet.src.ip(), packet.dst.ip(), 6, bytes.len() - tcp);
    let sum = !sum(pseudo, &bytes[tcp..]);
    bytes[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
}

/// What segments read one after another become: packets, each with its offload.
fn merged(segments: &[Vec<u8>]) -> Vec<(Vec<u8>, Offload)> {
    let mut out = Vec::new();
    let mut rest = segments;
    while let Some((first, behind)) = rest.split_first() {
        let mut memory = first.clone();
        memory.resize(70_000, 0xaa);
        rest = behind;
        let Some(mut run) = Aggregate::begin(first, Offload::NONE) else {
            out.push((first.clone(), Offload::NONE));
            continue;
        };
        while let Some((next, behind)) = rest.split_first().filter(|_| run.is_open()) {
            if !run.add(&mut memory, next, Offload::NONE) {
                break;
            }
            rest = behind;
        }
        match run.finish(&mut memory) {
            Some((len, offload)) => out.push((memory[..len].to_vec(), offload)),
            None => out.push((first.clone(), Offload::NONE)),
        }
    }
    out
}

fn split_again(packets: &[(Vec<u8>, Offload)]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (bytes, offload) in packets {
        split_bytes(bytes, *offload, |header, payload| all.push([header, &payload.concat()].concat())).unwrap();
    }
    all
}

#[test]
fn what_is_merged_is_split_into_the_same_segments_again() {
    for v6 in [false, true] {
        for seq in [0, 1, 0x7fff_ff00, u32::MAX - 2000] {
            for lens in [&[1428, 1428][..], &[1428, 1428, 700], &[1000; 60], &[1428; 100], &[1428, 900, 1428, 1428]] {
                let segments = segments(v6, seq, lens);
                let merged = merged(&segments);
                assert!(merged.len() < segments.len());
                assert!(merged.iter().all(|(bytes, _)| bytes.len() <= MAX_PACKET));
                assert!(split_again(&merged) == segments, "v6 {v6}, {lens:?} from {seq}");
            }
        }
    }
}

#[test]
fn a_whole_super_packet_has_as_many_segments_as_fit() {
    assert_eq!(merged(&segments(false, 7, &[1428; 45])).len(), 1);
    assert_eq!(merged(&segments(false, 7, &[1428; 46])).len(), 2);
}

#[test]
fn a_pushed_segment_is_the_last_and_its_push_is_kept() {
    let data = [5; 1000];
    let mut all = segments(false, 100, &[1000; 2]);
    all.push(segment(false, 2100, 2, &data, true, |_| {}));
    all.push(segment(false, 3100, 3, &data, false, |_| {}));
    let merged = merged(&all);
    assert_eq!(merged.len(), 2);
    assert_eq!(Packet::<C>::parse(&merged[0].0).unwrap().flags, Flags::ACK.with(Flags::PSH));
    assert!(split_again(&merged) == all);
}

#[test]
fn what_differs_in_anything_that_counts_is_left_alone() {
    for v6 in [false, true] {
        let tcp = if v6 { 40 } else { 20 };
        let data = [5; 1000];
        let first = segment(v6, 100, 0, &data, false, |_| {});
        let alike = segment(v6, 1100, 1, &data, false, |_| {});
        assert_eq!(merged(&[first.clone(), alike]).len(), 1, "these two are merged");
        let mut places = vec![tcp + 1, tcp + 3, tcp + 7, tcp + 11, tcp + 13, tcp + 15, tcp + 19, tcp + 27];
        places.extend(if v6 { [1, 7, 20, 30] } else { [1, 8, 15, 19] });
        for place in places {
            let odd = segment(v6, 1100, 1, &data, false, |bytes| bytes[place] ^= 1);
            assert_eq!(merged(&[first.clone(), odd]).len(), 2, "v6 {v6}, byte {place}");
        }
        for seq in [0, 1099, 1101, 2100] {
            let elsewhere = segment(v6, seq, 1, &data, false, |_| {});
            assert_eq!(merged(&[first.clone(), elsewhere]).len(), 2, "v6 {v6}, at {seq}");
        }
        let longer = segment(v6, 1100, 1, &[5; 1001], false, |_| {});
        assert_eq!(merged(&[first.clone(), longer]).len(), 2);
        let empty = segment(v6, 1100, 1, &[], false, |_| {});
        assert_eq!(merged(&[first, empty]).len(), 2);
    }
}

#[test]
fn damage_is_not_hidden_by_a_checksum_that_is_made_anew() {
    let all = segments(false, 100, &[1000; 3]);
    for n in 0..3 {
        let mut damaged = all.clone();
        damaged[n][500] ^= 1;
        let merged = merged(&damaged);
        assert_eq!(merged.len(), if n == 1 { 3 } else { 2 }, "segment {n}");
        assert!(merged.iter().any(|(bytes, offload)| *offload == Offload::NONE && *bytes == damaged[n]));
    }
    // Without DF the identification is meaningful.
    let fragmentable: Vec<Vec<u8>> =
        (0..2).map(|n| segment(false, 100 + 1000 * n, 0, &[5; 1000], false, |bytes| bytes[6] = 0)).collect();
    assert_eq!(merged(&fragmentable).len(), 2);
}

#[test]
fn nothing_panics_whatever_is_read() {
    let all = segments(false, 100, &[1000; 2]);
    for cut in 0..all[1].len() {
        assert_eq!(merged(&[all[0].clone(), all[1][..cut].to_vec()]).len(), 2);
        assert_eq!(merged(&[all[0][..cut].to_vec(), all[1].clone()]).len(), 2);
    }
    let mut run = Aggregate::begin(&all[0], Offload::NONE).unwrap();
    let mut no_room = all[0].clone();
    assert!(!run.add(&mut no_room, &all[1], Offload::NONE));
}
