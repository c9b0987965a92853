//! Errors that may be due to forgery: they count only if repeated.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tcpcrypt::constants::TAG_LEN;

use crate::time::Instant;
use crate::wire::{C, Offset};

/// The same damage this often, over this time, is not accidental: the peer is broken (TC-28, TC-29).
const STUBBORN_TIMES: u8 = 3;
const STUBBORN_TIME: Duration = Duration::from_secs(1);
/// Repetitions count only after this interval.
const STUBBORN_PAUSE: Duration = Duration::from_millis(100);

/// Identifies a damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damage(u64);

impl Damage {
    /// A frame or message of `len` bytes at this place that ends so.
    pub(super) fn of(at: Offset<C>, len: usize, tag: Option<[u8; TAG_LEN]>) -> Self {
        let mut hasher = DefaultHasher::new();
        (at.get(), len, tag).hash(&mut hasher);
        Self(hasher.finish())
    }

    /// A FIN where none may be.
    pub(super) fn fin(at: Offset<C>) -> Self {
        Self(at.get().cast_unsigned())
    }
}

/// The last bytes of a frame: its tag, if it is long enough to have one.
pub(super) fn tag_of(frame: &[u8]) -> Option<[u8; TAG_LEN]> {
    frame.last_chunk().copied()
}

/// How often the same error occurred.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspicion {
    damage: Damage,
    times: u8,
    since: Instant,
    last: Instant,
}

impl Suspicion {
    /// Notes the same kind of damage at the same place; true if it is no accident any more.
    pub(super) fn note(before: &mut Option<Self>, now: Instant, damage: Damage) -> bool {
        let same = before.filter(|suspicion| suspicion.damage == damage);
        let mut suspicion = same.unwrap_or(Self { damage, times: 0, since: now, last: now });
        // What comes so soon was duplicated on the way; the peer did not send it again.
        if same.is_none() || now.since(suspicion.last) >= STUBBORN_PAUSE {
            suspicion.times = suspicion.times.saturating_add(1);
            suspicion.last = now;
        }
        *before = Some(suspicion);
        suspicion.times >= STUBBORN_TIMES && now.since(suspicion.since) >= STUBBORN_TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_damage_again_and_again_is_no_accident() {
        let now = Instant::from_micros(1_000_000);
        let here = Damage::of(Offset::START, 100, Some([7; TAG_LEN]));
        let others = [
            Damage::of(Offset::START + 1_usize, 100, Some([7; TAG_LEN])),
            Damage::of(Offset::START, 101, Some([7; TAG_LEN])),
            Damage::of(Offset::START, 100, Some([8; TAG_LEN])),
            Damage::of(Offset::START, 100, None),
        ];
        assert!(others.iter().all(|other| *other != here));
        let mut suspicion = None;
        assert!((0..99).all(|_| !Suspicion::note(&mut suspicion, now, here)), "duplicated on the way");
        assert!(!Suspicion::note(&mut suspicion, now + STUBBORN_TIME / 2, here));
        assert!(Suspicion::note(&mut suspicion, now + STUBBORN_TIME, here));
        assert!(!Suspicion::note(&mut suspicion, now + STUBBORN_TIME, others[0]), "that is another one");
        assert!(!Suspicion::note(&mut suspicion, now + STUBBORN_TIME * 2, here), "and that is new again");
    }
}
