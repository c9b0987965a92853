use super::*;
use crate::wire::C;

fn at(n: i64) -> Offset<C> {
    Offset::new(n)
}

fn text(r: &Held<C>, prefer: Prefer, from: i64, len: usize) -> Option<String> {
    let mut out = vec![0; len];
    r.copy(prefer, at(from), &mut out).then(|| String::from_utf8(out).expect("letters"))
}

#[test]
fn pieces_in_any_order_and_with_overlaps_come_out_whole() {
    let mut r = Held::default();
    assert_eq!(r.insert(at(4), b"efgh"), Inserted::New);
    assert_eq!(r.insert(at(0), b"ab"), Inserted::New);
    assert_eq!(r.contiguous_end(at(0)), at(2));
    assert_eq!(r.insert(at(1), b"bcdefghij"), Inserted::New);
    assert_eq!(text(&r, Prefer::First, 0, 10).as_deref(), Some("abcdefghij"));
    assert_eq!(r.insert(at(3), b"def"), Inserted::Duplicate);
    assert_eq!(r.contiguous_end(at(0)), at(10));
    r.remove_before(at(7));
    assert_eq!(r.ranges.len(), 1);
    assert_eq!(text(&r, Prefer::Last, 7, 3).as_deref(), Some("hij"));
}

#[test]
fn both_versions_of_a_place_are_kept_until_one_is_removed() {
    let mut r = Held::default();
    r.insert(at(0), b"FORGED");
    assert_eq!(r.insert(at(2), b"genuine"), Inserted::Conflict);
    assert_eq!(text(&r, Prefer::First, 0, 9).as_deref(), Some("FORGEDine"));
    assert_eq!(text(&r, Prefer::Last, 0, 9).as_deref(), Some("FOgenuine"));
    assert_eq!(r.insert(at(2), b"genuine"), Inserted::Duplicate);
    assert_eq!(r.insert(at(0), b"FORGED"), Inserted::Duplicate);
    r.remove(at(0)..at(9));
    assert!(r.is_empty() && !r.has_conflicts());
}

#[test]
fn sack_blocks_name_the_latest_arrival_first() {
    let mut r = Held::default();
    r.insert(at(10), b"aa");
    r.insert(at(20), b"bb");
    r.insert(at(12), b"cc");
    let mut blocks = std::array::from_fn(|_| at(0)..at(0));
    assert_eq!(r.sack(at(0), &mut blocks), 2);
    assert_eq!(blocks[..2], [at(10)..at(14), at(20)..at(22)]);
}

#[test]
fn removing_the_middle_leaves_both_ends() {
    let mut r = Held::default();
    r.insert(at(0), b"0123456789");
    r.remove(at(3)..at(6));
    assert_eq!(r.contiguous_end(at(0)), at(3));
    assert_eq!(text(&r, Prefer::First, 6, 4).as_deref(), Some("6789"));
}

/// One byte at a time from behind: what each further segment costs does not grow.
#[test]
fn bytes_in_falling_order_become_one_piece() {
    let mut r = Held::default();
    for n in (1..4_000).rev() {
        assert_eq!(r.insert(at(n), &[n as u8]), Inserted::New);
        assert_eq!((r.pieces(), r.ranges.len()), (1, 1));
    }
    assert!(r.held() < 9_000, "{}", r.held());
}

#[test]
fn of_a_stream_in_too_many_pieces_the_furthest_are_dropped() {
    let mut r = Held::default();
    for n in 0..10_000 {
        r.insert(at(20_000 - 2 * n), b"x");
        assert!(r.pieces() <= MAX_CRUMBS + 1 && r.ranges.len() == r.pieces());
    }
    assert_eq!(r.contiguous_end(at(2)), at(3), "the nearest stay");
    assert_eq!(r.insert(at(30_000), b"x"), Inserted::Refused);
    assert!(r.held() < 64 << 10, "{}", r.held());
    // Much that is whole is not crumbs.
    let mut r = Held::default();
    for n in 0..1_000 {
        assert_eq!(r.insert(at(n * 70_000), &[7; 64 << 10]), Inserted::New);
    }
    assert_eq!(r.pieces(), 1_000);
}

/// Against a plain model: what is held, where gaps are, and what both layers say.
#[test]
fn random_segments_and_removals_agree_with_a_model() {
    let mut seed = 1_u64;
    let mut random = move |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % n
    };
    for _ in 0..200 {
        let mut r = Held::default();
        let mut first = [None::<u8>; 64];
        for _ in 0..40 {
            let start = random(60) as usize;
            let end = (start + 1 + random(12) as usize).min(64);
            if random(4) == 0 {
                r.remove(at(start as i64)..at(end as i64));
                first[start..end].fill(None);
            } else {
                // The same bytes in the same place, so that no layer but the first is used.
                let bytes: Vec<u8> = (start..end).map(|n| n as u8).collect();
                let new = first[start..end].iter().any(Option::is_none);
                assert_eq!(r.insert(at(start as i64), &bytes) == Inserted::New, new);
                (start..end).for_each(|n| first[n] = Some(n as u8));
            }
            for n in 0..64 {
                let gap = (n..64).find(|n| first[*n].is_none()).unwrap_or(64);
                assert_eq!(r.contiguous_end(at(n as i64)), at(gap as i64));
                let mut out = vec![0; gap - n];
                assert!(r.copy(Prefer::First, at(n as i64), &mut out));
                assert!(out.iter().enumerate().all(|(i, byte)| usize::from(*byte) == n + i));
            }
            assert_eq!(r.first.memory(), r.first.count_memory());
        }
    }
}
