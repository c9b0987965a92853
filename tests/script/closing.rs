//! Ends of connections.

use super::packet::FIN;
use super::*;

/// A keep-alive asks for an authentic answer (TC-35), which a peer that has sent its FINp frame cannot give.
#[test]
fn keep_alives_of_a_half_closed_connection_are_answered() {
    let mut pair = Pair::connected();
    let mut fin = pair.from_b();
    fin.flags |= FIN;
    for seg in pair.b.kernel(&fin).wire {
        pair.a.wire(&seg);
    }
    pair.b_next = pair.b_next.wrapping_add(1);
    for seg in pair.a.kernel(&pair.from_a()).wire {
        pair.b.wire(&seg);
    }
    let mut keep_alive = pair.from_a();
    keep_alive.seq = keep_alive.seq.wrapping_sub(1);
    let mut to_b = pair.a.kernel(&keep_alive).wire;
    let mut answered = false;
    while let Some(seg) = to_b.pop() {
        let sent = pair.b.wire(&seg);
        let mut to_a = sent.wire;
        if !sent.plain.is_empty() {
            to_a.extend(pair.b.kernel(&pair.from_b()).wire);
        }
        for seg in to_a {
            let sent = pair.a.wire(&seg);
            answered |= !sent.plain.is_empty();
            to_b.extend(sent.wire);
        }
    }
    assert!(answered, "the kernel takes silence for a dead peer");
}
