//! Windows that close, and what waits behind them.

use super::*;

#[test]
fn data_reaches_the_other_kernel_and_its_acknowledgement_comes_back() {
    let mut pair = Pair::connected();
    let sent = pair.a_writes(b"hello");
    assert_eq!(sent.wire.len(), 1);
    let sent = pair.b.wire(&sent.wire[0]);
    assert_eq!(sent.delivered(), b"hello");
    assert!(sent.wire.is_empty(), "the kernel acknowledges, not enotun");
    let sent = pair.b.kernel(&pair.from_b());
    let sent = pair.a.wire(&sent.wire[0]);
    assert_eq!(sent.plain[0].ack, pair.a_next);
}

/// What waits in the engine because the kernel's window is closed is acknowledged, or the peer's kernel would take it for
/// lost, send it again and again, and give up after a quarter of an hour.
#[test]
fn a_paused_reader_does_not_look_like_loss_to_the_sender() {
    let mut pair = Pair::connected();
    // The server's application does not read.
    let mut taken = 0;
    let mut acked = A_ISN;
    let mut window = 0;
    let mut edge = pair.a_next + 60_000;
    while edge.saturating_sub(pair.a_next) >= 1400 {
        let mut sent = pair.a_writes(&[7; 1400]).wire;
        while let Some(seg) = sent.pop() {
            let heard = pair.b.wire(&seg);
            let took = heard.delivered().len() as u32;
            let mut wire = heard.wire;
            if took > 0 {
                taken += took;
                let mut ack = pair.from_b();
                (ack.ack, ack.win) = (A_ISN + 1 + taken, WINDOW - taken as u16);
                wire.extend(pair.b.kernel(&ack).wire);
            }
            for seg in wire {
                let heard = pair.a.wire(&seg);
                sent.extend(heard.wire);
                for seg in heard.plain {
                    (acked, window) = (seg.ack, seg.win);
                    edge = acked + u32::from(window);
                }
            }
        }
    }
    assert!(pair.a_next > A_ISN + 60_000, "a whole frame always has room");
    assert_eq!(acked, pair.a_next, "all acknowledged");
    assert!(window < 1400, "and nothing more asked for");
    // The kernel takes it when there is room.
    assert_eq!(taken, u32::from(WINDOW));
    let mut ack = pair.from_b();
    (ack.ack, ack.win) = (A_ISN + 1 + taken, WINDOW);
    assert_eq!(pair.b.kernel(&ack).delivered().len() as u32, u32::from(WINDOW).min(pair.a_next - A_ISN - 1 - taken));
}

/// A kernel that has sent again what was only late is told so (RFC 2883): it adapts, and takes back what it did about the loss. Both
/// engines have a part in it, and neither kernel has anything to do.
#[test]
fn a_sender_learns_of_what_it_has_sent_in_vain() {
    let mut pair = Pair::connected();
    let (at, ack) = (pair.a_next, pair.b_next);
    let frames = [pair.a_writes(&[1; 500]).wire.remove(0), pair.a_writes(&[2; 500]).wire.remove(0)];
    // The second overtakes the first, which the kernel sends again at once.
    let sacked = pair.b.wire(&frames[1]).wire.remove(0);
    pair.a.wire(&sacked);
    let mut again = pair.from_a();
    (again.seq, again.payload) = (at, vec![1; 500]);
    let again = pair.a.kernel(&again).wire.remove(0);
    assert_eq!(pair.b.wire(&frames[0]).delivered().len(), 1000);
    let told = pair.b.wire(&again).wire;
    let told: Vec<Seg> = told.iter().flat_map(|seg| pair.a.wire(seg).plain).collect();
    let seg = told.iter().find(|seg| seg.option(5).is_some()).expect("a SACK option");
    assert_eq!(seg.option(5), Some([at.to_be_bytes(), (at + 500).to_be_bytes()].concat()));
    assert_eq!((seg.ack, seg.seq), (at + 1000, ack));
}
