use tcpcrypt::{AeadId, Tep};

use super::*;

#[test]
fn an_empty_file_has_every_default() {
    let file = File::parse("").unwrap();
    assert_eq!(file, File::default());
    assert_eq!(format!("{:?}", file.engine()), format!("{:?}", engine::Config::default()));
}

#[test]
fn the_documented_example_is_accepted() {
    let text = include_str!("../../../docs/configuration.md");
    let example = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let file = File::parse(example).unwrap();
    assert_eq!(file.selectors.rules().len(), 5);
    assert_eq!(file.limits.engine().max_flows, engine::Config::default().max_flows);
}

#[test]
fn every_default_in_the_documentation_is_the_real_one() {
    let text = include_str!("../../../docs/configuration.md");
    let default = engine::Config::default();
    let host = linux::HostSettings::default();
    for (key, value) in [
        ("host.table-plain", host.table_plain),
        ("host.table-wire", host.table_wire),
        ("host.preference", host.preference),
        ("host.zone", host.zone.into()),
        ("host.txqueuelen", host.txqueuelen),
        ("host.busy-poll", u32::try_from(BusyPoll::DEFAULT.as_micros()).unwrap()),
    ] {
        assert!(text.contains(&format!("| `{key}` | `{value}` |")), "{key} = {value}");
    }
    assert!(text.contains(&format!("| `host.mark-mask` | `{:#010x}` |", host.mark_mask)));
    for (key, value) in [
        ("max-flows", default.max_flows as u64),
        ("max-half-open", default.max_half_open as u64),
        ("max-held-bytes", default.max_held_bytes as u64),
        ("syn-attempts", default.syn_attempts.into()),
        ("max-paths", default.paths.max as u64),
        ("path-retry", default.paths.retry.as_secs()),
        ("path-retry-max", default.paths.retry_max.as_secs()),
        ("handshake-timeout", default.handshake_timeout.as_secs()),
        ("plain-idle-timeout", default.plain_idle_timeout.as_secs()),
        ("closed-linger", default.closed_linger.as_secs()),
    ] {
        assert!(text.contains(&format!("| `limits.{key}` | `{value}` |")), "{key} = {value}");
    }
    let (sessions, rekey) = (default.sessions, default.rekey);
    for (key, value) in [
        ("resumption.nonce-length", default.negotiation.nonce_len as u64),
        ("resumption.max-sessions", sessions.max as u64),
        ("resumption.per-peer", sessions.per_peer as u64),
        ("resumption.lifetime", sessions.lifetime.as_secs()),
        ("resumption.max-age", sessions.max_age.as_secs()),
        ("resumption.max-uses", sessions.max_uses.into()),
        ("resumption.look-ahead", sessions.lookahead.into()),
        ("rekey.frames", rekey.frames),
        ("rekey.bytes", rekey.bytes),
        ("rekey.seconds", rekey.time.as_secs()),
    ] {
        assert!(text.contains(&format!("| `{key}` | `{value}` |")), "{key} = {value}");
    }
    let list = |names: Vec<&str>| format!("[\"{}\"]", names.join("\", \""));
    let teps = list(default.negotiation.teps.iter().map(|tep| tep.short_name()).collect());
    assert!(text.contains(&format!("| `negotiation.teps` | `{teps}` |")), "{teps}");
    let aeads = list(default.ciphers.iter().map(|aead| aead.short_name()).collect());
    assert!(text.contains(&format!("| `negotiation.aeads` | `{aeads}` |")), "{aeads}");
}

#[test]
fn eno_10_tc_5_what_is_offered_has_its_order_from_the_file() {
    let file = File::parse(
        "[negotiation]\nteps = [\"P521\", \"curve448\"]\naeads = [\"AEAD_AES_128_GCM\", \"aes-256-gcm\"]\n",
    )
    .unwrap();
    let config = file.engine();
    assert_eq!(config.negotiation.teps, [Tep::P521, Tep::Curve448]);
    assert_eq!(config.ciphers, [AeadId::Aes128Gcm, AeadId::Aes256Gcm]);
    for (bad, says) in [
        ("teps = []", "empty"),
        ("teps = [\"P256\", \"p-256\"]", "ECDHE-P256 is given twice"),
        ("teps = [\"P384\"]", "Curve25519"),
        ("aeads = [\"DES\"]", "ChaCha20-Poly1305"),
    ] {
        let (_, message) = File::parse(&format!("[negotiation]\n{bad}\n")).unwrap_err();
        assert!(message.contains(says), "{bad}: {message}");
    }
}

#[test]
fn eno_7_8_tc_13_22_31_every_setting_of_the_protocol_reaches_the_engine() {
    let text = "[negotiation]\naware = true\nmandatory-aware = true\nrole-b = true\n[resumption]\nenabled = false\n\
                nonce-length = 0\nmax-sessions = 1\nper-peer = 2\nlifetime = 3\nlook-ahead = 4\nmax-age = 8\nmax-uses = 9\n[rekey]\n\
                frames = 5\nbytes = 6\nseconds = 7\n";
    let config = File::parse(text).unwrap().engine();
    let n = &config.negotiation;
    assert!(n.aware == tcpcrypt::Aware::Mandatory && n.active_b && !n.resume);
    assert_eq!(n.nonce_len, 0);
    let [lifetime, max_age] = [3, 8].map(Duration::from_secs);
    let sessions = engine::SessionLimits { max: 1, per_peer: 2, lifetime, max_age, max_uses: 9, lookahead: 4 };
    assert_eq!(config.sessions, sessions);
    let rekey = config.rekey;
    assert_eq!((rekey.frames, rekey.bytes, rekey.time), (5, 6, Duration::from_secs(7)));
    for bad in [
        "[resumption]\nnonce-length = 9",
        "[resumption]\nlook-ahead = 0",
        "[resumption]\nmax-age = 0",
        "[resumption]\nmax-uses = 0",
        "[rekey]\nframes = 0",
        "[rekey]\nbytes = 274877906945",
    ] {
        assert!(File::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_what_is_allowed() {
    let (line, message) = File::parse("tun = \"tun1\"\n\n[limits]\nmax-flow = 3\n").unwrap_err();
    assert_eq!(line, Some(4));
    assert!(message.contains("max-flow") && message.contains("max-flows"), "{message}");
}

#[test]
fn a_wrong_selector_is_refused_with_its_line_and_key() {
    let (line, message) = File::parse("[selectors]\nrequired = [\n  \"10.0.0.0/8\",\n  \"10.0.0\",\n]\n").unwrap_err();
    assert_eq!(line, Some(4));
    assert!(message.starts_with("selectors.required: `10.0.0`"), "{message}");
}

#[test]
fn a_refusal_is_one_line_whatever_it_quotes() {
    let (_, message) = File::parse(r#"log = "enotun=deb,\nfo""#).unwrap_err();
    assert!(message.contains("enotun=deb") && !message.contains('\n'), "{message:?}");
}

#[test]
fn numbers_of_the_host_that_would_cut_it_off_are_refused() {
    for (bad, says) in [
        ("table-plain = 8548", "must differ"),
        ("table-wire = 8547", "must differ"),
        ("table-plain = 254", "one of the system's own tables"),
        ("table-wire = 0", "one of the system's own tables"),
        ("preference = 0", "out of range, 1 to 32763"),
        ("preference = 4294967295", "out of range, 1 to 32763"),
        ("zone = 0", "out of range, 1 to 65535"),
        ("txqueuelen = 0", "out of range, 1 to"),
        ("mtu = 1279", "out of range, 1280 to 65535"),
        ("mtu = 65536", "out of range, 1280 to 65535"),
        ("mark-mask = 4", "two bits"),
    ] {
        let (_, message) = File::parse(&format!("[host]\n{bad}\n")).unwrap_err();
        assert!(message.contains("host.") && message.contains(says), "{bad}: {message}");
    }
    File::parse("[host]\ntable-plain = 8548\ntable-wire = 8547\npreference = 32763\nmtu = 1280\n").unwrap();
}

#[test]
fn a_name_that_cannot_be_the_devices_is_refused() {
    for bad in ["", "a+b", "a-name-of-more-than-15", "abcdefghijklm-w", "a/b"] {
        assert!(check_tun(bad).is_err(), "{bad}");
    }
    for bad in ["lo", "tun7", "tun7-w", "a b"] {
        assert!(check_gateway(bad, "tun7").is_err(), "{bad}");
    }
    assert_eq!((check_tun("tun7-w"), check_gateway("eth1", "tun7")), (Ok(()), Ok(())));
}

#[test]
fn what_is_wrong_is_said_in_the_words_of_the_file() {
    for (bad, says) in [
        ("[selectors]\noff = \"10.0.0.0/8\"", "expected a list, as in"),
        ("[limits]\nmax-flows = -3", "expected a number from 0 to 2^64 - 1"),
        ("[host]\nzone = 70000", "expected a number from 0 to 65535"),
        ("tun = tun7", "strings need quotes"),
        ("log = \"inof\"", "not a log level"),
    ] {
        let (_, message) = File::parse(bad).unwrap_err();
        assert!(message.contains(says), "{bad}: {message}");
    }
}

#[test]
fn every_refused_value_is_named_with_its_line_and_key() {
    for (table, value) in [
        ("", "tun = \"a+b\""),
        ("", "tun = 7"),
        ("", "instance = \"../x\""),
        ("", "gateway = [\"a b\"]"),
        ("", "policy = \"perhaps\""),
        ("", "log = \"inof\""),
        ("selectors", "opportunistic = [\"10.0.0.1/8\"]"),
        ("selectors", "required = [\"db.example\"]"),
        ("selectors", "off = 7"),
        ("negotiation", "teps = [\"P384\"]"),
        ("negotiation", "teps = []"),
        ("negotiation", "aeads = [\"AES-128-GCM\", \"aes-128-gcm\"]"),
        ("negotiation", "aware = 1"),
        ("resumption", "nonce-length = 9"),
        ("resumption", "max-sessions = 16777217"),
        ("resumption", "per-peer = 16777217"),
        ("resumption", "lifetime = 0"),
        ("resumption", "look-ahead = 65"),
        ("rekey", "frames = 0"),
        ("rekey", "bytes = 274877906945"),
        ("rekey", "seconds = 0"),
        ("limits", "max-flows = 0"),
        ("limits", "max-flows = -3"),
        ("limits", "max-half-open = 16777217"),
        ("limits", "max-held-bytes = 131071"),
        ("limits", "syn-attempts = 0"),
        ("limits", "syn-attempts = 256"),
        ("limits", "max-paths = 16777217"),
        ("limits", "path-retry = 0"),
        ("limits", "path-retry-max = 59"),
        ("limits", "handshake-timeout = 3601"),
        ("limits", "plain-idle-timeout = 0"),
        ("limits", "closed-linger = 0"),
        ("host", "mark-mask = 4"),
        ("host", "table-plain = 8548"),
        ("host", "table-wire = 254"),
        ("host", "preference = 0"),
        ("host", "zone = 70000"),
        ("host", "txqueuelen = 0"),
        ("host", "busy-poll = 10001"),
        ("host", "mtu = 1279"),
    ] {
        let key = value.split(' ').next().unwrap();
        let (heading, key) = match table {
            "" => ("# no table".to_owned(), key.to_owned()),
            table => (format!("[{table}]"), format!("{table}.{key}")),
        };
        let (line, message) = File::parse(&format!("# a comment\n\n{heading}\n\n{value}\n")).unwrap_err();
        assert_eq!(line, Some(5), "{value}: {message}");
        assert!(message.starts_with(&format!("{key}: ")), "{value}: {message}");
    }
}

#[test]
fn contradictions_are_refused_with_the_line_of_the_exception() {
    let text = "[selectors]\nrequired = [\"10.1.0.0/24\"]\noff = [\n  \"10.2.0.0/16\",\n  \":7000\",\n]\n";
    let (line, message) = File::parse(text).unwrap_err();
    assert_eq!(line, Some(5));
    assert!(message.starts_with("selectors.off: `:7000` is off and `10.1.0.0/24` required"), "{message}");
}

#[test]
fn every_range_in_the_documentation_is_the_real_one() {
    let text = include_str!("../../../docs/configuration.md");
    let mut checked = 0;
    for row in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [key, _, allowed, _] = cells[..] else { continue };
        let Some((first, last)) = allowed.split_once(" to ") else { continue };
        let key = key.trim_matches('`');
        let (table, name) = key.split_once('.').unwrap();
        let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
        let set = |value: u64| {
            // The longest pause is not shorter than the first.
            let along = match name {
                "path-retry" => "path-retry-max = 2592000\n",
                "path-retry-max" => "path-retry = 1\n",
                _ => "",
            };
            File::parse(&format!("[{table}]\n{along}{name} = {value}\n")).map(drop)
        };
        assert_eq!((set(first), set(last)), (Ok(()), Ok(())), "{row}");
        assert!(first == 0 || set(first - 1).is_err(), "{key} takes less than {first}");
        assert!(set(last + 1).is_err(), "{key} takes more than {last}");
        checked += 1;
    }
    assert!(checked >= 23, "{checked} ranges");
}
