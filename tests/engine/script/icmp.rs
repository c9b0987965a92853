//! What routers say of segments that are in flight.

use super::*;

/// The Internet checksum (RFC 1071).
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An ICMP error of this type and code about `seg`, quoting 64 bytes of it; `mtu` is in its last 16 bits.
pub fn error(kind: u8, code: u8, mtu: u16, seg: &Seg) -> Vec<u8> {
    let mut quote = seg.build();
    quote.truncate(20 + 20 + 24);
    let mut icmp = vec![kind, code, 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(quote);
    let right = sum(&icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&right);
    let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 9];
    let std::net::IpAddr::V4(to) = seg.src.ip() else { panic!("IPv4") };
    bytes.extend(to.octets());
    bytes[2..4].copy_from_slice(&(20 + icmp.len() as u16).to_be_bytes());
    let right = sum(&bytes).to_be_bytes();
    bytes[10..12].copy_from_slice(&right);
    [bytes, icmp].concat()
}

fn mtu_of(error: &[u8]) -> u16 {
    u16::from_be_bytes([error[26], error[27]])
}

/// The longest packet that comes of a full segment of the kernel's.
fn longest(pair: &mut Pair) -> usize {
    let sent = pair.a_writes(&[7; 1400]).wire;
    // All of it is acknowledged: the next one is not held back.
    let longest = sent.iter().map(|seg| seg.build().len()).max().expect("a segment");
    for seg in sent {
        pair.b.wire(&seg);
    }
    let mut ack = pair.from_b();
    ack.ack = pair.a_next;
    for seg in pair.b.kernel(&ack).wire {
        pair.a.wire(&seg);
    }
    longest
}

#[test]
fn a_size_that_a_router_tells_is_kept_and_forgotten_after_ten_minutes() {
    let mut pair = Pair::connected();
    let sent = pair.a_writes(&[7; 1400]).wire.remove(0);
    assert!(sent.build().len() > 1400);
    let told = pair.a.icmp_to_kernel(&error(3, 4, 1000, &sent)).expect("translated");
    assert_eq!(mtu_of(&told), 980, "with room for what a frame adds");
    assert!(longest(&mut pair) <= 1000);
    pair.a.wait(Duration::from_secs(599));
    assert!(longest(&mut pair) <= 1000);
    pair.a.wait(Duration::from_secs(1));
    assert!(longest(&mut pair) > 1400, "it is tried again");
}

#[test]
fn a_size_that_no_path_has_is_not_believed() {
    for (mtu, told) in [(0, Some(552)), (1, None), (67, None), (68, Some(552)), (500, Some(552)), (560, Some(552))] {
        let mut pair = Pair::connected();
        let sent = pair.a_writes(&[7; 1400]).wire.remove(0);
        let seen = pair.a.icmp_to_kernel(&error(3, 4, mtu, &sent));
        assert_eq!(seen.as_deref().map(mtu_of), told, "{mtu}");
        let longest = longest(&mut pair);
        match told {
            None => assert!(longest > 1400 && pair.a.engine.counters().icmp_dropped == 1, "{mtu}: {longest}"),
            Some(_) => assert!(longest <= 560 && longest > 500, "{mtu}: {longest}"),
        }
    }
}

#[test]
fn an_error_about_what_is_not_in_flight_is_dropped() {
    let mut pair = Pair::connected();
    let sent = pair.a_writes(b"data").wire.remove(0);
    let end = sent.seq.wrapping_add(sent.payload.len() as u32);
    for seq in [sent.seq.wrapping_sub(1), end, end.wrapping_add(1), sent.seq ^ 1 << 31] {
        let forged = Seg { seq, ..sent.clone() };
        assert_eq!(pair.a.icmp_to_kernel(&error(3, 4, 600, &forged)), None, "{seq}");
    }
    assert_eq!(pair.a.engine.counters().icmp_dropped, 4);
    assert!(pair.a.icmp_to_kernel(&error(3, 4, 600, &Seg { seq: end.wrapping_sub(1), ..sent })).is_some());
    // Likewise of what the kernel was given.
    let mut given = pair.from_b();
    for seq in [pair.b_next.wrapping_sub(2), pair.b_next.wrapping_add(1)] {
        given.seq = seq;
        assert_eq!(pair.a.icmp_on_wire(&error(3, 13, 0, &given)), None, "{seq}");
    }
    given.seq = pair.b_next;
    assert!(pair.a.icmp_on_wire(&error(3, 13, 0, &given)).is_some());
}

#[test]
fn a_damaged_error_is_dropped_and_not_repaired() {
    let mut pair = Pair::connected();
    let sent = pair.a_writes(&[7; 1400]).wire.remove(0);
    let mut damaged = error(3, 4, 1000, &sent);
    damaged[27] ^= 1;
    assert_eq!(pair.a.icmp_to_kernel(&damaged), None);
    assert_eq!(pair.a.engine.counters().bad_checksum, 1);
    assert!(longest(&mut pair) > 1400);
    // What is not acted on is the receiver's to judge.
    let mut plain = Host::with_policy(Config::default(), Policy::Off);
    assert_eq!(plain.icmp_to_kernel(&damaged).as_deref(), Some(&damaged[..]));
}
