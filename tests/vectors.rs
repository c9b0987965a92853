//! The test vectors of an independent implementation, for both cryptographic backends. They are read from the copy
//! in tests/vectors, or from the directory that `ENOTUN_VECTORS` names.

use std::path::PathBuf;

use serde_json::Value;
use tcpcrypt::aead::AeadId;
use tcpcrypt::eno::negotiate::{conclude, passive_reply};
use tcpcrypt::eno::option::{SynArea, SynOption, find_syn};
use tcpcrypt::handshake::{Initiator, respond};
use tcpcrypt::kex::RandomUse;
use tcpcrypt::messages::{Init1, Init2, message_len};
use tcpcrypt::resume::{ResumeNonce, SessionNonce};
use tcpcrypt::schedule::SessionSecret;
use tcpcrypt::{
    Aware, CachedSecret, Negotiated, NegotiationConfig, OpenError, Outcome, Plaintext, Proposal, Provider, Record,
    Role, Session, Tep,
};

fn providers() -> Vec<&'static dyn Provider> {
    vec![
        &tcpcrypt::rust_crypto::PROVIDER,
        #[cfg(feature = "aws-lc")]
        &enotun::crypto::aws_lc::PROVIDER,
    ]
}

fn load(file: &str) -> Value {
    let dir = std::env::var_os("ENOTUN_VECTORS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors"), PathBuf::from);
    let path = dir.join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("vector file is JSON")
}

fn list<'a>(value: &'a Value, field: &str) -> &'a Vec<Value> {
    value[field].as_array().unwrap_or_else(|| panic!("{field} is a list"))
}

fn bytes(value: &Value, field: &str) -> Vec<u8> {
    hex::decode(value[field].as_str().unwrap_or_else(|| panic!("{field} is a string"))).expect("hex")
}

fn array<const N: usize>(value: &Value, field: &str) -> [u8; N] {
    bytes(value, field).try_into().unwrap_or_else(|_| panic!("{field} has {N} bytes"))
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field} is a number"))
}

fn name(value: &Value) -> &str {
    value["name"].as_str().unwrap_or_default()
}

fn tep(value: &Value) -> Tep {
    Tep::from_id(number(value, "tep") as u8).expect("known TEP")
}

fn aead(value: &Value) -> AeadId {
    AeadId::from_id(number(value, "aead") as u16).expect("known AEAD")
}

fn role(value: &Value) -> Role {
    if value == "A" { Role::A } else { Role::B }
}

/// A whole option from its contents.
fn option(contents: &[u8]) -> Vec<u8> {
    [&[69, contents.len() as u8 + 2], contents].concat()
}

/// Contents of an option, or null, as it would be found in a SYN.
fn in_syn(option: &Option<Vec<u8>>) -> SynArea<'_> {
    option.as_deref().map_or(SynArea::None, find_syn)
}

fn check_option(case: &Value, option: &SynOption<'_>) {
    let name = name(case);
    assert_eq!(u64::from(option.global()), number(case, "global"), "{name}");
    assert_eq!(u64::from(option.aware()), number(case, "a"), "{name}");
    assert_eq!(u64::from(option.b()), number(case, "b"), "{name}");
    assert_eq!(option.is_vacuous(), case["vacuous"], "{name}");
    let suboptions: Vec<_> = option.suboptions().collect();
    let expected = list(case, "suboptions");
    assert_eq!(suboptions.len(), expected.len(), "{name}");
    for (suboption, expected) in suboptions.iter().zip(expected) {
        assert_eq!(u64::from(suboption.tep), number(expected, "tep"), "{name}");
        assert_eq!(u64::from(suboption.v), number(expected, "v"), "{name}");
        assert_eq!(suboption.data, bytes(expected, "data"), "{name}");
    }
}

#[test]
fn eno_1_to_6_option_contents() {
    for case in list(&load("eno_options.json"), "contents") {
        let raw = [&[69, bytes(case, "contents").len() as u8 + 2], &bytes(case, "contents")[..]].concat();
        match SynOption::parse(&raw) {
            Ok(option) => {
                assert_eq!(case["result"], "ok", "{}", name(case));
                check_option(case, &option);
            }
            Err(_) => assert_eq!(case["result"], "ill-formed", "{}", name(case)),
        }
    }
}

#[test]
fn eno_1_to_6_option_areas() {
    for case in list(&load("eno_options.json"), "areas") {
        let area = bytes(case, "area");
        let result = match find_syn(&area) {
            SynArea::None => "no-eno",
            SynArea::Duplicate => "duplicate",
            SynArea::MalformedArea { .. } => "malformed-area",
            SynArea::IllFormed(_) => "ill-formed",
            SynArea::Option(option) => {
                check_option(case, &option);
                "ok"
            }
        };
        assert_eq!(case["result"], result, "{}", name(case));
    }
}

fn settings(value: &Value) -> NegotiationConfig {
    let mut settings = NegotiationConfig::default();
    for (key, value) in value.as_object().expect("settings are an object") {
        let flag = value.as_bool();
        match key.as_str() {
            "enabled" => settings.enabled = flag.expect("bool"),
            "aware" if flag.expect("bool") => settings.aware = settings.aware.max(Aware::Yes),
            "mandatory_aware" if flag.expect("bool") => settings.aware = Aware::Mandatory,
            "aware" | "mandatory_aware" => {}
            "active_b" => settings.active_b = flag.expect("bool"),
            "resume" => settings.resume = flag.expect("bool"),
            "nonce_len" => settings.nonce_len = value.as_u64().expect("number") as usize,
            "teps" => {
                let ids = value.as_array().expect("list").iter();
                settings.teps = ids.map(|id| Tep::from_id(id.as_u64().expect("id") as u8).expect("TEP")).collect();
            }
            other => panic!("unknown setting {other}"),
        }
    }
    settings
}

fn cached(value: &Value) -> CachedSecret {
    let ss = SessionSecret::from_bytes(&array(value, "ss"));
    let (a, b) = ss.resume_halves();
    assert_eq!([a, b].concat(), bytes(value, "resume"));
    CachedSecret::new(tep(value), aead(value), role(&value["orig_role"]), ss)
}

fn check_outcome(name: &str, host: &Value, own: &Option<Vec<u8>>, peer: &Option<Vec<u8>>) {
    let proposal = (!host["secret"].is_null())
        .then(|| Proposal { secret: cached(&host["secret"]), nonce: ResumeNonce::default() });
    let outcome = conclude(&settings(&host["settings"]), own.as_deref(), proposal.as_ref(), &in_syn(peer));
    let expected = &host["outcome"];
    let (negotiated, session) = match &outcome {
        Outcome::Plain(_) => return assert_eq!(expected["result"], "plain", "{name}: {outcome:?}"),
        Outcome::Fresh(negotiated) => {
            assert_eq!(expected["result"], "fresh", "{name}: {outcome:?}");
            (negotiated, None)
        }
        Outcome::Resumed(negotiated, session) => {
            assert_eq!(expected["result"], "resumed", "{name}: {outcome:?}");
            (negotiated, Some(session))
        }
    };
    assert_eq!(negotiated.role, role(&expected["role"]), "{name}");
    assert_eq!(negotiated.tep, tep(expected), "{name}");
    assert_eq!(u64::from(negotiated.tep_byte), number(expected, "tep_byte"), "{name}");
    assert_eq!(negotiated.transcript, bytes(expected, "transcript"), "{name}");
    if let Some(session) = session {
        assert_eq!(session.nonce().as_bytes(), bytes(expected, "sn"), "{name}");
        assert_eq!(session.original_role(), role(&host["secret"]["orig_role"]), "{name}");
        assert_eq!(session.aead(), aead(&host["secret"]), "{name}");
    }
}

#[test]
fn eno_7_to_11_and_tc_12_to_18_outcomes() {
    for case in list(&load("negotiation.json"), "negotiations") {
        let sent = |host: &Value| (!host["option"].is_null()).then(|| option(&bytes(host, "option")));
        let (active, passive) = (sent(&case["active"]), sent(&case["passive"]));
        check_outcome(name(case), &case["active"], &active, &passive);
        check_outcome(name(case), &case["passive"], &passive, &active);
    }
}

#[test]
fn eno_10_11_and_tc_16_17_replies() {
    for case in list(&load("negotiation.json"), "replies") {
        let name = name(case);
        let syn = (!case["syn"].is_null()).then(|| option(&bytes(case, "syn")));
        let settings = settings(&case["settings"]);
        let mut nonce = [0; 8];
        nonce[..settings.nonce_len].copy_from_slice(&bytes(case, "nonce"));
        let cache: Vec<_> = list(case, "cache").iter().map(cached).collect();
        let peer = in_syn(&syn);
        let reply = passive_reply(&settings, &peer, 40, &nonce, |tep, half| {
            cache.iter().find(|secret| secret.tep() == tep && secret.peer_half() == half).cloned()
        });
        assert_eq!(reply.resumes.is_some(), case["resumes"], "{name}");
        let expected = (!case["reply"].is_null()).then(|| option(&bytes(case, "reply")));
        assert_eq!(reply.option, expected, "{name}");
        let outcome = conclude(&settings, reply.option.as_deref(), reply.resumes.as_ref(), &peer);
        assert_eq!(matches!(outcome, Outcome::Resumed(..)), case["resumes"], "{name}: {outcome:?}");
    }
}

#[test]
fn tc_1_2_key_agreement() {
    for provider in providers() {
        for case in list(&load("key_schedule.json"), "cases") {
            let es = bytes(case, "es");
            let tep = tep(case);
            for (own, own_pub, peer_pub) in [("private_a", "pub_a", "pub_b"), ("private_b", "pub_b", "pub_a")] {
                let key = provider.private_key(tep, &bytes(case, own)).expect("TEP").expect("valid key");
                let skip = if tep.has_key_length() { 2 } else { 0 };
                assert_eq!(key.public_key(), bytes(case, own_pub)[skip..], "{} {}", provider.name(), name(case));
                let shared = key.agree(&bytes(case, peer_pub)[skip..]).expect("valid point");
                assert_eq!(*shared, es, "{} {}", provider.name(), name(case));
            }
        }
    }
}

#[test]
fn tc_1_2_bad_keys() {
    for provider in providers() {
        for case in list(&load("key_schedule.json"), "bad_keys") {
            let tep = tep(case);
            let context = format!("{} {}", provider.name(), name(case));
            // Through a message, so that the length field is read as on the wire.
            let mut message = Init2 { cipher: 1, nonce: [7; 32], public_key: &[] }.encode(tep);
            if tep.has_key_length() {
                message.truncate(message.len() - 2);
            }
            message.extend(bytes(case, "pub"));
            let len = message.len() as u32;
            message[4..8].copy_from_slice(&len.to_be_bytes());
            let agreed = Init2::parse(tep, &message).and_then(|init2| {
                let key = provider.private_key(tep, &bytes(case, "private"))?.expect("valid key");
                key.agree(init2.public_key)
            });
            match agreed {
                Ok(es) => {
                    assert_eq!(case["valid"], true, "{context}");
                    assert_eq!(*es, bytes(case, "es"), "{context}");
                }
                Err(error) => assert_eq!(case["valid"], false, "{context}: {error}"),
            }
        }
    }
}

#[test]
fn tc_7_to_13_key_schedule() {
    for case in list(&load("key_schedule.json"), "cases") {
        let aead = aead(case);
        let transcript = [bytes(case, "option_a"), bytes(case, "option_b")].concat();
        assert_eq!(transcript, bytes(case, "transcript"));
        let mut ss = SessionSecret::extract(
            &array(case, "n_a"),
            &transcript,
            &bytes(case, "init1"),
            &bytes(case, "init2"),
            &bytes(case, "es"),
        );
        for session in list(case, "sessions") {
            let context = format!("{} {}", name(case), session["i"]);
            let nonce = |field| ResumeNonce::new(&bytes(session, field)).expect("at most 8 bytes");
            let sn = SessionNonce::new(Role::A, &nonce("nonce_a"), &nonce("nonce_b"));
            assert_eq!(sn, SessionNonce::new(Role::B, &nonce("nonce_b"), &nonce("nonce_a")), "{context}");
            assert_eq!(sn.as_bytes(), bytes(session, "sn"), "{context}");

            let fresh = number(session, "i") == 0;
            let tep_byte = tep(case).id() | if fresh { 0 } else { 0x80 };
            assert_eq!(ss.session_id(tep_byte, &sn).as_bytes()[..], bytes(session, "session_id"), "{context}");

            let mut mk = ss.master_key(&sn);
            for j in 0..3 {
                for (field, sender) in [("k_ab", Role::A), ("k_ba", Role::B)] {
                    let key = mk.traffic_key(sender, aead);
                    let both = [key.key(), &key.nonce(0)].concat();
                    assert_eq!(hex::encode(both), session[field][j], "{context} generation {j}");
                }
                mk = mk.next();
            }
            if !fresh {
                let (a, b) = ss.resume_halves();
                assert_eq!([a, b].concat(), bytes(session, "resume"), "{context}");
                let byte = tep(case).id() | 0x80;
                let from_a = [&[byte], &a[..], &bytes(session, "nonce_a")].concat();
                let from_b = [&[byte], &b[..], &bytes(session, "nonce_b")].concat();
                assert_eq!(from_a, bytes(session, "suboption_from_original_a"), "{context}");
                assert_eq!(from_b, bytes(session, "suboption_from_original_b"), "{context}");
            }
            ss = ss.next();
        }
    }
}

/// Runs the key exchange itself with the vectors' random values: messages and session IDs come out as given, where
/// the vectors' messages have no ignored bytes or unknown ciphers.
#[test]
fn tc_3_to_10_handshake() {
    for provider in providers() {
        let mut answered = 0;
        for case in list(&load("key_schedule.json"), "cases") {
            let context = format!("{} {}", provider.name(), name(case));
            let tep = tep(case);
            let negotiated = |role| Negotiated { role, tep, tep_byte: tep.id(), transcript: bytes(case, "transcript") };
            let random = |fields: [&str; 2]| {
                let [private_key, nonce] = fields.map(|field| bytes(case, field));
                move |wanted, out: &mut [u8]| {
                    out.copy_from_slice(if wanted == RandomUse::PrivateKey { &private_key } else { &nonce });
                }
            };
            let (init1, init2) = (bytes(case, "init1"), bytes(case, "init2"));
            assert_eq!(message_len(Role::A, &init1), Ok(Some(init1.len())), "{context}");
            assert_eq!(message_len(Role::B, &init2), Ok(Some(init2.len())), "{context}");
            let offered: Vec<_> = list(case, "ciphers").iter().map(|id| id.as_u64().expect("cipher") as u16).collect();
            let parsed = Init1::parse(tep, &init1).expect("Init1");
            assert_eq!((parsed.ciphers, parsed.nonce), (offered.clone(), array(case, "n_a")), "{context}");
            let session_id = &case["sessions"][0]["session_id"];

            // B sees ciphers unknown to it and bytes behind the key; what it answers has neither.
            let (answer, session) =
                respond(provider, &negotiated(Role::B), &[aead(case)], &init1, &mut random(["private_b", "n_b"]))
                    .expect("respond");
            assert_eq!(answer[8..], init2[8..answer.len()], "{context}");
            if answer == init2 {
                assert_eq!(*session_id, session.id().to_string(), "{context}");
                answered += 1;
            }

            let known: Vec<_> = offered.iter().copied().filter_map(AeadId::from_id).collect();
            let (start, initiator) =
                Initiator::start(provider, negotiated(Role::A), &known, &mut random(["private_a", "n_a"]))
                    .expect("start");
            let (own, given) = (Init1::parse(tep, &start).expect("own"), Init1::parse(tep, &init1).expect("Init1"));
            assert_eq!((own.nonce, own.public_key), (given.nonce, given.public_key), "{context}");
            // What A concludes depends on its own Init1; it takes the vectors' Init2, ignored bytes included.
            assert_eq!(initiator.handle_init2(&init2).expect("Init2").aead(), aead(case), "{context}");
        }
        assert!(answered > 0, "no Init2 without ignored bytes");
    }
}

/// Both ends of a session, and where their next frames start.
struct Pair {
    sender: Record,
    receiver: Record,
    offsets: [u64; 2],
}

impl Pair {
    /// Up to the point where `frame` can be sent or received under the generation that `case` gives.
    fn before(provider: &'static dyn Provider, case: &Value, rekey: bool) -> Self {
        let sender_role = if case["direction"] == "ab" { Role::A } else { Role::B };
        let sn = bytes(case, "sn");
        let (nonce_a, nonce_b) = sn.split_at(sn.len().min(8));
        let nonce = |role| ResumeNonce::new(if role == Role::A { nonce_a } else { nonce_b }).expect("at most 8 bytes");
        let record = |role: Role| {
            let ss = SessionSecret::from_bytes(&array(case, "ss"));
            let cached = CachedSecret::new(Tep::Curve25519, aead(case), role, ss);
            Record::new(provider, &Session::resumed(0xa3, &cached, &nonce(role), &nonce(role.other())))
        };
        let mut pair = Self { sender: record(sender_role), receiver: record(sender_role.other()), offsets: [0, 0] };
        for _ in 0..number(case, "generation").saturating_sub(u64::from(rekey)) {
            assert!(pair.sender.start_rekey());
            let Self { sender, receiver, offsets } = &mut pair;
            transfer(sender, receiver, &mut offsets[0]);
            assert!(receiver.rekey_answer_due());
            transfer(receiver, sender, &mut offsets[1]);
        }
        pair
    }
}

/// An empty frame from one to the other.
fn transfer(from: &mut Record, to: &mut Record, offset: &mut u64) {
    let mut frame = [0; 20];
    let len = from.seal(*offset, &Plaintext::default(), &mut frame).expect("seal");
    to.open(*offset, &mut frame[..len]).expect("open");
    *offset += len as u64;
}

#[test]
fn tc_23_to_27_and_31_valid_frames() {
    for provider in providers() {
        for case in list(&load("frames.json"), "valid") {
            let context = format!("{} {}", provider.name(), name(case));
            let (offset, control, flags) = (number(case, "offset"), number(case, "control"), number(case, "flags"));
            let rekey = control & 1 != 0;
            let seed = number(case, "data_seed");
            let data: Vec<u8> = (0..number(case, "data_len")).map(|k| (seed + 7 * k + k / 251) as u8).collect();
            let urgent = case["urgent"].as_u64().map(|urgent| urgent as u16);
            let plaintext = Plaintext { fin: case["fin"] == true, urgent, data: &data };

            let mut pair = Pair::before(provider, case, rekey);
            let frame = if control <= 1 && flags <= 3 {
                assert!(!rekey || pair.sender.start_rekey());
                let mut frame = vec![0; plaintext.frame_len()];
                assert_eq!(pair.sender.seal(offset, &plaintext, &mut frame), Ok(frame.len()), "{context}");
                assert_eq!(pair.sender.local_generation(), number(case, "generation"), "{context}");
                if case.get("frame").is_none() {
                    assert_eq!(frame.len() as u64, number(case, "frame_len"), "{context}");
                    assert!(frame.starts_with(&bytes(case, "frame_head")), "{context}");
                    assert!(frame.ends_with(&bytes(case, "frame_tag")), "{context}");
                } else {
                    assert_eq!(frame, bytes(case, "frame"), "{context}");
                }
                frame
            } else {
                // Reserved bits: never sent, ignored on receipt, authenticated as they came.
                bytes(case, "frame")
            };

            let mut buffer = frame.clone();
            let opened = pair.receiver.open(offset, &mut buffer).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(buffer[opened.data], data, "{context}");
            assert_eq!((opened.fin, opened.urgent, opened.rekeyed), (plaintext.fin, urgent, rekey), "{context}");
            assert_eq!(pair.receiver.remote_generation(), number(case, "generation"), "{context}");
        }
    }
}

#[test]
fn tc_23_to_28_invalid_frames() {
    for provider in providers() {
        for case in list(&load("frames.json"), "invalid") {
            let context = format!("{} {}", provider.name(), name(case));
            let mut frame = bytes(case, "frame");
            let rekey = frame[0] & 1 != 0;
            let mut pair = Pair::before(provider, case, rekey);
            if number(case, "offset") < pair.offsets[0] {
                // The generation cannot be reached before that offset: the key alone must refuse it.
                assert!(!opens_with_its_key(provider, case), "{context}");
                continue;
            }
            let generation = pair.receiver.remote_generation();
            assert_eq!(
                pair.receiver.open(number(case, "offset"), &mut frame),
                Err(OpenError::NotAuthentic),
                "{context}"
            );
            // And nothing has changed: the next clean frame opens.
            assert_eq!(pair.receiver.remote_generation(), generation, "{context}");
            let Pair { sender, receiver, offsets } = &mut pair;
            transfer(sender, receiver, &mut offsets[0]);
        }
    }
}

/// Whether `frame` authenticates with the key of the direction and generation given.
fn opens_with_its_key(provider: &dyn Provider, case: &Value) -> bool {
    let sn = bytes(case, "sn");
    let (a, b) = sn.split_at(sn.len().min(8));
    let nonce = |bytes| ResumeNonce::new(bytes).expect("at most 8 bytes");
    let mut mk =
        SessionSecret::from_bytes(&array(case, "ss")).master_key(&SessionNonce::new(Role::A, &nonce(a), &nonce(b)));
    for _ in 0..number(case, "generation") {
        mk = mk.next();
    }
    let sender = if case["direction"] == "ab" { Role::A } else { Role::B };
    let key = mk.traffic_key(sender, aead(case));
    let mut frame = bytes(case, "frame");
    let (header, rest) = frame.split_at_mut(3);
    let Some((body, tag)) = rest.split_last_chunk_mut() else { return false };
    let ready = provider.aead(aead(case), key.key()).expect("key length");
    ready.open(&key.nonce(number(case, "offset")), header, body, tag).is_ok()
}
