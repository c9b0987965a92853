//! Peers that want too much.

use super::*;

#[test]
fn segments_in_crumbs_do_not_use_up_memory() {
    let mut pair = Pair::connected();
    let frame = pair.a_writes(&[1; 100]).wire.remove(0);
    // Every other byte of what may come: nothing of it can be opened.
    for i in 0..30_000 {
        let mut crumb = frame.clone();
        crumb.seq = frame.seq.wrapping_add(1 + 2 * i);
        crumb.payload = vec![9];
        pair.b.wire(&crumb);
    }
    assert!(pair.b.engine.held_bytes() < 1 << 20, "{} bytes", pair.b.engine.held_bytes());
    assert_eq!(pair.b.wire(&frame).delivered(), [1; 100], "what comes next is taken all the same");
}

/// The peer starts rekeys and acknowledges none of the answers (TC-32).
#[test]
fn answers_to_rekeys_do_not_pile_up() {
    let mut pair = Pair::connected();
    for _ in 0..3000 {
        let sent = pair.a.rekey(a_addr(), b_addr());
        for seg in sent.wire {
            let answers = pair.b.wire(&seg).wire;
            for mut seg in answers {
                // It takes the answer's frame, so that it can go on, and acknowledges nothing ever.
                pair.a.wire(&seg);
                seg.payload.clear();
            }
        }
    }
    assert!(pair.b.engine.held_bytes() < 1 << 20, "{} bytes", pair.b.engine.held_bytes());
}
