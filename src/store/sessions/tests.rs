use super::*;

use tcpcrypt::schedule::SessionSecret;

const NOW: Instant = Instant::from_micros(1_000_000);

fn limits() -> SessionLimits {
    SessionLimits::default()
}

fn peer(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn first(seed: u8, role: Role) -> CachedSecret {
    CachedSecret::new(Tep::Curve25519, AeadId::Aes128Gcm, role, SessionSecret::from_bytes(&[seed; 32]))
}

/// `ss[i]` of the chain that begins with `first(seed, role)`.
fn later(seed: u8, role: Role, i: usize) -> CachedSecret {
    (1..i).fold(first(seed, role), |secret, _| secret.next())
}

fn propose(sessions: &mut Sessions, to: &str) -> Option<[u8; RESUME_HALF_LEN]> {
    let (id, secret) = sessions.candidate(NOW, peer(to), |_, _| true)?;
    sessions.reserve(id);
    Some(*secret.own_half())
}

fn recognise(sessions: &mut Sessions, half: &[u8; RESUME_HALF_LEN]) -> Option<CachedSecret> {
    sessions.recognise(NOW, Tep::Curve25519, half, |_| true).map(|(_, secret)| secret)
}

/// Both ends of one session.
fn pair(limits: SessionLimits) -> (Sessions, Sessions) {
    let (mut a, mut b) = (Sessions::new(limits), Sessions::new(limits));
    a.insert(NOW, peer("10.0.0.2:80"), true, first(7, Role::A));
    b.insert(NOW, peer("10.0.0.1:50000"), false, first(7, Role::B));
    (a, b)
}

#[test]
fn tc_12_each_host_names_a_secret_by_its_own_half_and_finds_it_by_the_peers() {
    let (mut a, mut b) = pair(limits());
    let half = propose(&mut a, "10.0.0.2:80").unwrap();
    assert_eq!(half, *first(7, Role::A).own_half());
    assert_ne!(half, *first(7, Role::B).own_half());
    assert_eq!(recognise(&mut b, &half).unwrap().own_half(), first(7, Role::B).own_half());
    // Roles swapped: B proposes, A finds.
    let half = propose(&mut b, "10.0.0.1:22").unwrap();
    assert_eq!(half, *later(7, Role::B, 2).own_half());
    assert!(recognise(&mut a, &half).is_some());
}

#[test]
fn tc_16_an_identifier_is_found_whatever_address_it_comes_from_and_only_with_its_tep() {
    let (_, mut b) = pair(limits());
    let half = *first(7, Role::A).own_half();
    assert!(b.recognise(NOW, Tep::P256, &half, |_| true).is_none());
    assert!(b.recognise(NOW, Tep::Curve25519, &half, |_| false).is_none(), "its cipher is not allowed any more");
    assert!(b.recognise(NOW, Tep::Curve25519, &[0; RESUME_HALF_LEN], |_| true).is_none());
    let (id, _) = b.recognise(NOW, Tep::Curve25519, &half, |_| true).unwrap();
    b.confirm(NOW, id, peer("[2001:db8::9]:1234"));
    assert_eq!(b.list(NOW)[0].peer, peer("[2001:db8::9]:1").ip());
    assert!(b.candidate(NOW, peer("10.0.0.1:1"), |_, _| true).is_none());
    assert!(b.candidate(NOW, peer("[2001:db8::9]:1"), |_, _| true).is_some());
}

#[test]
fn tc_19_a_secret_is_proposed_once_and_the_lowest_is_first() {
    let (mut a, _) = pair(limits());
    let mut seen = Vec::new();
    for i in 1..50 {
        let half = propose(&mut a, "10.0.0.2:80").unwrap();
        assert_eq!(half, *later(7, Role::A, i).own_half());
        assert!(!seen.contains(&half));
        seen.push(half);
    }
    assert_eq!(a.list(NOW)[0].index, 50);
}

#[test]
fn tc_19_a_secret_is_accepted_once_and_never_after_it_was_proposed() {
    let (mut a, mut b) = pair(limits());
    let half = propose(&mut a, "10.0.0.2:80").unwrap();
    assert!(recognise(&mut b, &half).is_some());
    assert!(recognise(&mut b, &half).is_none());
    // What A has proposed itself it does not accept.
    assert!(recognise(&mut a, first(7, Role::B).own_half()).is_none());
}

#[test]
fn tc_19_crossing_proposals_of_one_secret_are_refused_by_both() {
    let (mut a, mut b) = pair(limits());
    let (of_a, of_b) = (propose(&mut a, "10.0.0.2:80").unwrap(), propose(&mut b, "10.0.0.1:22").unwrap());
    assert!(recognise(&mut a, &of_b).is_none());
    assert!(recognise(&mut b, &of_a).is_none());
    // And the chain goes on behind it.
    let half = propose(&mut a, "10.0.0.2:80").unwrap();
    assert!(recognise(&mut b, &half).is_some());
}

#[test]
fn tc_19_identifiers_ahead_are_recognised_and_those_skipped_are_dropped() {
    let (_, mut b) = pair(limits());
    let half = |i| *later(7, Role::A, i).own_half();
    assert!(recognise(&mut b, &half(9)).is_none(), "eight ahead and no more");
    assert!(recognise(&mut b, &half(4)).is_some());
    for dropped in 1..=4 {
        assert!(recognise(&mut b, &half(dropped)).is_none(), "{dropped}");
    }
    assert!(recognise(&mut b, &half(12)).is_some(), "the window has moved");
    assert_eq!(b.list(NOW)[0].index, 13);
}

#[test]
fn tc_19_several_connections_at_once_can_all_resume() {
    let (mut a, mut b) = pair(limits());
    let halves: Vec<_> = (0..20).map(|_| propose(&mut a, "10.0.0.2:80").unwrap()).collect();
    assert!(halves.iter().all(|half| recognise(&mut b, half).is_some()));
}

#[test]
fn tc_19_one_identifier_repeated_costs_one_secret() {
    let (mut a, mut b) = pair(limits());
    let half = propose(&mut a, "10.0.0.2:80").unwrap();
    assert_eq!((0..1000).filter(|_| recognise(&mut b, &half).is_some()).count(), 1);
    let half = propose(&mut a, "10.0.0.2:80").unwrap();
    assert!(recognise(&mut b, &half).is_some());
}

#[test]
fn tc_19_what_leaves_the_cache_leaves_no_identifier_behind() {
    let (mut a, mut b) = pair(limits());
    for _ in 0..20 {
        let half = propose(&mut a, "10.0.0.2:80").unwrap();
        recognise(&mut b, &half);
    }
    for sessions in [&mut a, &mut b] {
        assert_eq!(sessions.halves.len(), usize::from(limits().lookahead));
        assert_eq!(sessions.flush(None), 1);
        assert!(sessions.halves.is_empty() && sessions.peers.is_empty() && sessions.by_use.is_empty());
    }
}

#[test]
fn of_a_chain_that_is_refused_again_and_again_nothing_is_proposed_any_more() {
    let (mut a, _) = pair(limits());
    let id = |a: &Sessions| a.candidate(NOW, peer("10.0.0.2:80"), |_, _| true).map(|(id, _)| id);
    let chain = id(&a).unwrap();
    for _ in 1..MAX_REFUSALS {
        a.refused(chain);
        assert!(id(&a).is_some());
    }
    a.confirm(NOW, chain, peer("10.0.0.2:80"));
    for _ in 0..MAX_REFUSALS {
        assert!(id(&a).is_some());
        a.refused(chain);
    }
    assert!(id(&a).is_none());
    // A connection that was on its way all the time.
    a.confirm(NOW, chain, peer("10.0.0.2:80"));
    assert!(id(&a).is_some());
}

/// Hosts behind one address, and one that opens connections to them.
struct Farm {
    client: Sessions,
    members: Vec<Sessions>,
    made: u8,
}

impl Farm {
    fn new(members: usize) -> Self {
        let members = (0..members).map(|_| Sessions::new(limits())).collect();
        Self { client: Sessions::new(limits()), members, made: 0 }
    }

    /// Opens connections at once, the n-th reaching member `reach[n]`; how many resume.
    fn open(&mut self, reach: impl IntoIterator<Item = usize>) -> usize {
        let (service, from) = (peer("10.0.0.2:80"), peer("10.0.0.1:50000"));
        let mut open = Vec::new();
        for member in reach {
            let found = self.client.candidate(NOW, service, |_, _| true);
            if let Some((id, _)) = &found {
                self.client.reserve(*id);
            }
            let known = found.as_ref().and_then(|(_, secret)| {
                self.members[member].recognise(NOW, Tep::Curve25519, secret.own_half(), |_| true)
            });
            open.push((member, found.map(|(id, _)| id), known.map(|(id, _)| id)));
        }
        let mut resumed = 0;
        for (member, proposed, known) in open {
            if let (Some(at_client), Some(at_member)) = (proposed, known) {
                self.client.confirm(NOW, at_client, service);
                self.members[member].confirm(NOW, at_member, from);
                resumed += 1;
                continue;
            }
            if let Some(id) = proposed {
                self.client.refused(id);
            }
            let secret = |role| {
                let mut bytes = [self.made; 32];
                bytes[0] = member as u8;
                CachedSecret::new(Tep::Curve25519, AeadId::Aes128Gcm, role, SessionSecret::from_bytes(&bytes))
            };
            self.client.insert(NOW, service, true, secret(Role::A));
            self.members[member].insert(NOW, from, false, secret(Role::B));
            self.made = self.made.wrapping_add(1);
        }
        resumed
    }
}

/// A number from 0 up to `n`, from `state`.
fn draw(state: &mut u64, n: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % n
}

#[test]
fn in_a_farm_one_connection_in_n_resumes_whoever_takes_turns_and_however_many_are_opened_at_once() {
    const ALL: usize = 1200;
    let mut state = 7;
    for (members, at_once, least) in
        [(2, 1, 45), (3, 1, 30), (4, 1, 20), (2, 100, 35), (4, 100, 15), (2, 300, 30), (1, 100, 90)]
    {
        let mut by_turns = Farm::new(members);
        let mut at_random = Farm::new(members);
        let (mut turns, mut random) = (0, 0);
        for first in (0..ALL).step_by(at_once) {
            turns += by_turns.open((first..first + at_once).map(|n| n % members));
            random += at_random.open((0..at_once).map(|_| draw(&mut state, members)));
        }
        for (resumed, how) in [(turns, "by turns"), (random, "at random")] {
            let percent = resumed * 100 / ALL;
            assert!(percent >= least, "{members} members {how}, {at_once} at once: {percent} %");
        }
        assert!(by_turns.client.len() <= limits().per_peer);
    }
}

#[test]
fn a_chain_is_not_thrown_away_because_another_host_behind_the_address_refuses_it() {
    let mut farm = Farm::new(2);
    assert_eq!(farm.open([0]), 0);
    assert_eq!(farm.open([0]), 1);
    assert_eq!(farm.open([1, 1, 1]), 0, "all of them propose it");
    assert_eq!(farm.open([0]), 0, "the newest chain, which is the other host's, is tried first");
    assert_eq!(farm.open([0]), 1, "then the one that was accepted before");
}

#[test]
fn when_one_host_of_a_farm_is_left_its_sessions_are_soon_found() {
    for seed in 0..50 {
        let mut state = seed;
        let mut farm = Farm::new(2);
        for at_once in [[1; 40].as_slice(), &[60; 5], &[300, 300, 100]].concat() {
            farm.open((0..at_once).map(|_| draw(&mut state, 2)));
        }
        let first: usize = (0..20).map(|_| farm.open([1])).sum();
        assert!(first >= 10, "seed {seed}: {first} of 20");
        let then: usize = (0..20).map(|_| farm.open([1])).sum();
        assert!(then >= 19, "seed {seed}: {then} of 20");
    }
}

#[test]
fn a_host_that_has_forgotten_everything_is_not_taken_for_a_farm() {
    let mut farm = Farm::new(1);
    farm.open([0; 50]);
    assert_eq!(farm.open([0; 50]), 50);
    farm.members[0].flush(None);
    assert_eq!(farm.open([0]), 0);
    assert_eq!(farm.open([0]), 1, "one connection is all it costs");
    assert_eq!(farm.open([0; 100]), 100);
}

#[test]
fn the_chain_proposed_is_of_the_same_port_then_begun_here_then_the_newest() {
    let mut a = Sessions::new(limits());
    let to = |sessions: &mut Sessions, to| {
        let (_, secret) = sessions.candidate(NOW, peer(to), |_, _| true).unwrap();
        *secret.own_half()
    };
    a.insert(NOW, peer("10.0.0.2:80"), true, first(1, Role::A));
    a.insert(NOW, peer("10.0.0.2:443"), true, first(2, Role::A));
    a.insert(NOW, peer("10.0.0.2:50000"), false, first(3, Role::B));
    assert_eq!(to(&mut a, "10.0.0.2:80"), *first(1, Role::A).own_half());
    assert_eq!(to(&mut a, "10.0.0.2:22"), *first(2, Role::A).own_half());
    a.insert(NOW, peer("10.0.0.2:80"), true, first(4, Role::A));
    assert_eq!(to(&mut a, "10.0.0.2:80"), *first(4, Role::A).own_half());
    assert!(a.candidate(NOW, peer("10.0.0.3:80"), |_, _| true).is_none());
    assert!(a.candidate(NOW, peer("10.0.0.2:80"), |tep, _| tep != Tep::Curve25519).is_none());
}

#[test]
fn the_cache_is_bounded_in_all_and_by_address() {
    let mut a = Sessions::new(SessionLimits { max: 5, per_peer: 2, ..limits() });
    for n in 0..10_u8 {
        a.insert(NOW + Duration::from_secs(n.into()), peer("10.0.0.2:80"), true, first(n, Role::A));
    }
    assert_eq!(a.len(), 2);
    assert_eq!(a.take_erased().evicted, 8);
    for n in 0..10_u8 {
        let to = SocketAddr::from(([10, 0, 1, n], 80));
        a.insert(NOW + Duration::from_secs(20 + u64::from(n)), to, true, first(100 + n, Role::A));
    }
    assert_eq!(a.len(), 5);
    assert_eq!(a.list(NOW).last().unwrap().peer, peer("10.0.1.9:1").ip());
    assert_eq!(a.halves.len(), 5 * 8);
    let mut none = Sessions::new(SessionLimits { max: 0, ..limits() });
    assert!(none.insert(NOW, peer("10.0.0.2:80"), true, first(1, Role::A)).is_none());
}

#[test]
fn what_is_not_used_for_its_lifetime_is_erased() {
    let (mut a, mut b) = pair(limits());
    let end = NOW + limits().lifetime;
    assert_eq!(a.poll_timeout(), Some(end));
    assert!(a.candidate(end, peer("10.0.0.2:80"), |_, _| true).is_none(), "even before the timer ran");
    assert!(b.recognise(end, Tep::Curve25519, first(7, Role::A).own_half(), |_| true).is_none());
    a.expire(NOW + Duration::from_secs(1));
    assert_eq!(a.len(), 1);
    a.expire(end);
    assert_eq!((a.len(), a.take_erased().expired, a.poll_timeout()), (0, 1, None));
    // Use makes it live longer.
    let (id, _) = b.candidate(NOW, peer("10.0.0.1:22"), |_, _| true).unwrap();
    b.confirm(NOW + Duration::from_secs(60), id, peer("10.0.0.1:22"));
    b.expire(end);
    assert_eq!(b.len(), 1);
}

#[test]
fn tc_19_a_chain_ages_however_much_it_is_used() {
    let (mut a, mut b) = pair(limits());
    let hours = |n: u64| NOW + Duration::from_secs(n * 3600);
    for n in 1..24 {
        let (id, secret) = a.candidate(hours(n), peer("10.0.0.2:80"), |_, _| true).unwrap();
        a.reserve(id);
        a.confirm(hours(n), id, peer("10.0.0.2:80"));
        let (id, _) = b.recognise(hours(n), Tep::Curve25519, secret.own_half(), |_| true).unwrap();
        b.confirm(hours(n), id, peer("10.0.0.1:50000"));
    }
    assert_eq!(a.poll_timeout(), Some(hours(24)), "before the two hours since its last use are over");
    assert_eq!(a.list(hours(23))[0].expires_seconds, 3600);
    let next = *a.candidate(hours(23), peer("10.0.0.2:80"), |_, _| true).unwrap().1.own_half();
    assert!(a.candidate(hours(24), peer("10.0.0.2:80"), |_, _| true).is_none());
    assert!(b.recognise(hours(24), Tep::Curve25519, &next, |_| true).is_none());
    a.expire(hours(24));
    assert_eq!((a.len(), a.halves.len(), a.take_erased().expired, a.poll_timeout()), (0, 0, 1, None));
}

#[test]
fn tc_19_a_chain_has_so_many_secrets_and_then_keys_are_made_anew() {
    let (mut a, mut b) = pair(SessionLimits { max_uses: 3, ..limits() });
    assert_eq!(a.halves.len(), 3, "no secret is derived that may not be used");
    let first = propose(&mut a, "10.0.0.2:80").unwrap();
    propose(&mut a, "10.0.0.2:80").unwrap();
    let third = propose(&mut a, "10.0.0.2:80").unwrap();
    assert!(propose(&mut a, "10.0.0.2:80").is_none());
    assert_eq!((a.len(), a.halves.len(), a.take_erased().expired), (0, 0, 1));
    // Those that are skipped are used up as well.
    assert!(recognise(&mut b, &third).is_some());
    assert!(recognise(&mut b, &first).is_none());
    assert_eq!((b.len(), b.halves.len(), b.take_erased().expired), (0, 0, 1));
    let mut none = Sessions::new(SessionLimits { max_uses: 0, ..limits() });
    assert_eq!(none.insert(NOW, peer("10.0.0.2:80"), true, self::first(7, Role::A)), None);
}

#[test]
fn tc_22_sessions_are_flushed_by_address_and_all_at_once() {
    let mut a = Sessions::new(limits());
    for n in 1..=4_u8 {
        a.insert(NOW, SocketAddr::from(([10, 0, 0, n / 2], 80)), true, first(n, Role::A));
    }
    assert_eq!(a.flush(Some(peer("[::ffff:10.0.0.1]:1").ip())), 2);
    assert_eq!(a.flush(Some(peer("10.0.0.1:1").ip())), 0);
    assert_eq!((a.flush(None), a.len()), (2, 0));
}

#[test]
fn tc_21_what_is_listed_has_no_secret_and_no_identifier() {
    let (a, _) = pair(limits());
    let listed = a.list(NOW + Duration::from_secs(60));
    let json = serde_json::to_value(&listed).unwrap();
    let expected = serde_json::json!([{
        "peer": "10.0.0.2", "tep": Tep::Curve25519.name(), "aead": "AEAD_AES_128_GCM", "original_role": "A",
        "index": 1, "age_seconds": 60, "expires_seconds": 7140,
    }]);
    assert_eq!(json, expected);
}
