//! What the segments on the wire look like: their size, their timestamps, their identification.

use super::*;

fn sizes(sent: &[Seg]) -> Vec<usize> {
    sent.iter().map(|seg| seg.payload.len()).collect()
}

/// The kernel tries what the path takes with one packet that is larger than the others (RFC 4821, `tcp_mtu_probing`). Cut, every
/// size would seem to work.
#[test]
fn a_packet_of_the_kernels_that_is_no_super_packet_leaves_as_one_segment() {
    let mut pair = Pair::connected();
    let mut many = pair.from_a();
    many.payload = vec![1; 5_000];
    pair.a_next = pair.a_next.wrapping_add(5_000);
    let sent = pair.a.kernel_super(&many, 500).wire;
    assert_eq!(sizes(&sent), [520; 10]);
    // The probe, and the same again.
    let probe = pair.from_a();
    let sent = pair.a_writes(&[2; 1_400]).wire;
    assert_eq!(sizes(&sent), [1_420]);
    let mut again = probe.clone();
    again.payload = vec![2; 1_400];
    assert_eq!(sizes(&pair.a.kernel(&again).wire), [1_420]);
    // It was too large: the same in smaller packets, alone and together.
    again.payload.truncate(700);
    assert_eq!(sizes(&pair.a.kernel(&again).wire), [720, 700]);
    again.payload = vec![2; 1_400];
    assert_eq!(sizes(&pair.a.kernel_super(&again, 700).wire), [720, 700]);
    // What follows is as before.
    let mut many = pair.from_a();
    many.payload = vec![1; 2_000];
    pair.a_next = pair.a_next.wrapping_add(2_000);
    assert_eq!(sizes(&pair.a.kernel_super(&many, 500).wire), [520; 4]);
}

/// As Linux has it (`tcp_min_snd_mss`): an MSS is obeyed down to 48 bytes, which leave 8 beside all options.
#[test]
fn a_small_mss_is_obeyed() {
    for (mss, most) in [(50_u16, 50), (48, 48), (20, 48), (0, 48)] {
        let mut pair = Pair::new();
        let (syn, mut syn_ack) = (Pair::syn(), Pair::syn_ack());
        syn_ack.options[2..4].copy_from_slice(&mss.to_be_bytes());
        let syn = pair.a.kernel(&syn).wire.remove(0);
        pair.b.wire(&syn);
        let answer = pair.b.kernel(&syn_ack).wire.remove(0);
        assert_eq!(answer.mss(), Some(mss));
        let told = pair.a.wire(&answer).plain.remove(0);
        assert_eq!(told.mss(), Some(most - 20), "what a frame adds is taken off");
        let mut to_b = pair.a.kernel(&pair.from_a()).wire;
        let mut seen = 0;
        while !to_b.is_empty() {
            seen += to_b
                .iter()
                .inspect(|seg| assert!(seg.options.len() + seg.payload.len() <= most.into(), "{seg:?}"))
                .count();
            let to_a: Vec<Seg> = to_b.iter().flat_map(|seg| pair.b.wire(seg).wire).collect();
            to_b = to_a.iter().flat_map(|seg| pair.a.wire(seg).wire).collect();
        }
        assert!(seen > 2, "Init1 in parts");
        let sent = pair.a_writes(&[7; 28]).wire;
        assert!(sent.iter().all(|seg| seg.payload.len() <= most.into()), "{:?}", sizes(&sent));
        assert_eq!(sent.iter().flat_map(|seg| pair.b.wire(seg).delivered()).collect::<Vec<u8>>(), [7; 28]);
    }
}

fn stamped(mut seg: Seg, value: u32, echo: u32) -> Seg {
    let mut list = seg.option_list().expect("options");
    list.push((8, [value.to_be_bytes(), echo.to_be_bytes()].concat()));
    seg.set_options(&list);
    seg
}

fn stamp(seg: &Seg) -> u32 {
    let option = seg.option(8).expect("timestamps");
    u32::from_be_bytes(option[..4].try_into().expect("four bytes"))
}

/// At a millisecond each, timestamps of 25 days later look as if they were earlier (RFC 7323, section 5.5).
#[test]
fn timestamps_go_on_after_25_idle_days() {
    let mut pair = Pair::new();
    let syn = pair.a.kernel(&stamped(Pair::syn(), 1_000, 0)).wire.remove(0);
    pair.b.wire(&syn);
    let answer = pair.b.kernel(&stamped(Pair::syn_ack(), 5_000, 1_000)).wire.remove(0);
    pair.a.wire(&answer);
    let ack = stamped(pair.from_a(), 1_001, 5_000);
    let init1 = pair.a.kernel(&ack).wire;
    let init2: Vec<Seg> = init1.iter().flat_map(|seg| pair.b.wire(seg).wire).collect();
    for seg in init2 {
        pair.a.wire(&seg);
    }
    let later = 1_000_u32.wrapping_add(25 * 24 * 3_600 * 1_000);
    pair.a.now = pair.a.now + Duration::from_secs(25 * 24 * 3_600);
    let mut seg = stamped(pair.from_a(), later, 5_000);
    seg.payload = b"hello".to_vec();
    let sent = pair.a.kernel(&seg).wire;
    assert_eq!(stamp(&sent[0]), later);
    // A day later one that is behind is not taken.
    pair.a.now = pair.a.now + Duration::from_secs(24 * 3_600);
    let sent = pair.a.kernel(&stamped(pair.from_a(), later - 7, 5_000)).wire;
    assert_eq!(stamp(&sent[0]), later);
}

/// What may be fragmented has an identification of its own each (RFC 6864), and nobody can guess where they begin.
#[test]
fn packets_that_may_be_fragmented_have_identifications() {
    let mut first = Vec::new();
    for port in 0..8 {
        let mut pair = Pair::new();
        let client = SocketAddr::new(a_addr().ip(), 41_000 + port);
        let mut syn = Pair::syn();
        (syn.src, syn.df) = (client, false);
        let syn = pair.a.kernel(&syn).wire.remove(0);
        pair.b.wire(&syn);
        let mut answer = Pair::syn_ack();
        (answer.dst, answer.df) = (client, false);
        let answer = pair.b.kernel(&answer).wire.remove(0);
        pair.a.wire(&answer);
        let mut ack = pair.from_a();
        (ack.src, ack.df) = (client, false);
        let mut seen = vec![syn.clone()];
        seen.extend(pair.a.kernel(&ack).wire);
        let init2: Vec<Seg> = seen[1..].iter().flat_map(|seg| pair.b.wire(seg).wire).collect();
        for seg in init2 {
            seen.extend(pair.a.wire(&seg).wire);
        }
        let mut many = pair.from_a();
        (many.src, many.df, many.payload) = (client, false, vec![1; 5_000]);
        seen.extend(pair.a.kernel_super(&many, 500).wire);
        assert!(seen.len() > 12 && seen.iter().all(|seg| !seg.df));
        let ids: Vec<u16> = seen.iter().map(|seg| seg.id).collect();
        assert!(ids.windows(2).all(|two| two[1] == two[0].wrapping_add(1)), "{ids:?}");
        first.push(ids[0]);
    }
    first.sort_unstable();
    first.dedup();
    assert!(first.len() > 4 && !first.contains(&0), "{first:?}");
}

/// The acknowledgement that tells the client's kernel of a window, once there are keys, follows the data that came with Init2: it has
/// the number behind that.
#[test]
fn a_bare_segment_does_not_overtake_the_data_whose_end_it_has() {
    let mut pair = Pair::new();
    let init1 = pair.until_ack().wire.remove(0);
    let mut to_a = pair.b.wire(&init1).wire.remove(0);
    let mut write = pair.from_b();
    write.payload = b"the answer".to_vec();
    to_a.payload.extend(pair.b.kernel(&write).wire_bytes());
    let sent = pair.a.wire(&to_a);
    assert_eq!(sent.delivered(), b"the answer");
    let mut next = pair.b_next;
    for seg in &sent.plain {
        assert_eq!(seg.seq, next, "{sent:?}");
        next = next.wrapping_add(seg.seq_len());
    }
}
