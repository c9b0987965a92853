//! What arrives more than once at the peer is told to the kernel (D-SACK, RFC 2883), which learns from it that nothing was lost.

use super::*;

fn edges(from: u32, to: u32) -> Vec<u8> {
    [from, to].iter().flat_map(|at| (KERNEL_ISN + 1).wrapping_add(*at).to_be_bytes()).collect()
}

impl Bench {
    /// The peer acknowledges `ack` with SACK blocks; what the kernel is told: its acknowledgement and blocks.
    fn sacked(&mut self, ack: u32, blocks: &[(u32, u32)]) -> Vec<(u32, Option<Vec<u8>>)> {
        let at = self.peer_made;
        let mut seg = self.peer_seg(at, ack, 0, &[]);
        seg.set_options(&[(5, blocks.iter().flat_map(|(from, to)| edges(*from, *to)).collect())]);
        let seen = self.hear_bytes(Side::Wire, seg.build());
        seen.plain.iter().map(|seg| (seg.ack.wrapping_sub(KERNEL_ISN + 1), seg.option(5))).collect()
    }
}

#[test]
fn a_duplicate_at_the_peer_is_told_to_the_kernel_in_its_own_numbers() {
    let mut b = Bench::encrypted();
    let made = b.engine_made;
    let frame = 10 + OVERHEAD as u32;
    for n in 0..4 {
        b.from_kernel(n * 10, 0, PSH, b"0123456789");
    }
    let ack = made + 4 * frame;
    b.engine_made = ack;
    let told = b.sacked(ack, &[(made + frame, made + 2 * frame)]);
    assert_eq!(told, [(40, Some(edges(10, 20)))]);
    // Shrunk to whole frames, and nothing if there are none.
    assert_eq!(b.sacked(ack, &[(made + frame + 1, made + 4 * frame - 1)]), [(40, Some(edges(20, 30)))]);
    assert_eq!(b.sacked(ack, &[(made + frame + 1, made + 2 * frame + 3)]), [(40, None)]);
    // Of frames of enotun's own the kernel knows nothing.
    b.record.as_mut().expect("keys").start_rekey();
    let (at, bytes) = b.frame(b"", false);
    let answer = b.from_peer(at, PSH, &bytes).wire_bytes();
    assert_eq!(answer.len(), OVERHEAD);
    let own = ack + OVERHEAD as u32;
    assert_eq!(b.sacked(own, &[(ack, own)]), [(40, None)]);
}

/// Beyond a gap the first block lies in the second (RFC 2883, section 4.1.2).
#[test]
fn a_duplicate_beyond_a_gap_is_told_as_well() {
    let mut b = Bench::encrypted();
    let made = b.engine_made;
    let frame = 10 + OVERHEAD as u32;
    for n in 0..4 {
        b.from_kernel(n * 10, 0, PSH, b"0123456789");
    }
    let told = b.sacked(made + frame, &[(made + 2 * frame, made + 3 * frame), (made + 2 * frame, made + 4 * frame)]);
    assert_eq!(told, [(10, Some([edges(20, 30), edges(20, 40)].concat()))]);
}

/// A late acknowledgement's blocks are acknowledged by now: they tell of no duplicates.
#[test]
fn a_late_acknowledgement_tells_of_no_duplicates() {
    let mut b = Bench::encrypted();
    let made = b.engine_made;
    let frame = 10 + OVERHEAD as u32;
    for n in 0..4 {
        b.from_kernel(n * 10, 0, PSH, b"0123456789");
    }
    b.sacked(made + 4 * frame, &[]);
    let told = b.sacked(made + frame, &[(made + 2 * frame, made + 4 * frame)]);
    assert!(told.iter().all(|(ack, blocks)| *ack == 40 && blocks.is_none()), "{told:?}");
}

/// That something came twice is no sign that the answer to a rekey was lost.
#[test]
fn a_duplicate_is_no_loss_of_our_own_frames() {
    let mut b = Bench::encrypted();
    let made = b.engine_made;
    b.from_kernel(0, 0, PSH, b"0123456789");
    let ack = made + 10 + OVERHEAD as u32;
    b.engine_made = ack;
    b.sacked(ack, &[]);
    b.record.as_mut().expect("keys").start_rekey();
    let (at, bytes) = b.frame(b"", false);
    assert_eq!(b.from_peer(at, PSH, &bytes).wire_bytes().len(), OVERHEAD);
    let at = b.peer_made;
    let mut seg = b.peer_seg(at, ack, 0, &[]);
    seg.set_options(&[(5, edges(made, ack))]);
    let seen = b.hear_bytes(Side::Wire, seg.build());
    assert!(seen.wire_bytes().is_empty(), "{seen:?}");
}
