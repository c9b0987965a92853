//! The configuration file. docs/configuration.md describes it; a test compares the two.

mod negotiation;
mod position;
mod range;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

pub use negotiation::{Negotiation, Rekey, Resumption, check_offer, parse_aead, parse_tep};
pub use position::InvalidValue;
use range::{BUSY_POLL_MAX, DAY, ENTRIES_MAX, HELD_MIN, HELD_MOST, HOUR, in_range};

use super::instance::Instance;
use crate::engine;
use crate::io::BusyPoll;
use crate::linux;
use crate::selector::{self, Policy, Rule, RuleError, Selected};

/// Larger files are not configurations.
const SIZE_MAX: u64 = 4 << 20;

/// The contents of a configuration file. What is missing has its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct File {
    /// The name of the plain side's TUN device.
    pub tun: Option<String>,
    /// The instance's name.
    pub instance: Option<String>,
    /// The policy of selectors given without one, on the command line or at run time.
    pub policy: Option<Policy>,
    /// Interfaces to the hosts behind this one, for which it encrypts as a gateway.
    pub gateway: Vec<String>,
    /// What is logged: a level, or `tracing` directives.
    pub log: Option<String>,
    /// What is protected.
    pub selectors: Selectors,
    /// What is offered and accepted.
    pub negotiation: Negotiation,
    /// The session cache.
    pub resumption: Resumption,
    /// When keys are replaced.
    pub rekey: Rekey,
    /// The engine's limits and timeouts.
    pub limits: Limits,
    /// Numbers visible to the host's firewall and routing.
    pub host: Host,
}

/// Selectors by policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Selectors {
    /// [`Policy::Opportunistic`].
    pub opportunistic: Vec<Selected>,
    /// [`Policy::Required`].
    pub required: Vec<Selected>,
    /// [`Policy::Off`].
    pub off: Vec<Selected>,
}

impl Selectors {
    /// As rules.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        let of = |selectors: &[Selected], policy| {
            selectors.iter().map(|selected| selected.clone().rule(policy)).collect::<Vec<_>>()
        };
        let mut rules = of(&self.opportunistic, Policy::Opportunistic);
        rules.extend(of(&self.required, Policy::Required));
        rules.extend(of(&self.off, Policy::Off));
        rules
    }

    /// Whether they can be in force together.
    fn check(&self) -> Result<(), RuleError> {
        selector::check(&self.rules())
    }
}

/// Limits and timeouts, see [`engine::Config`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// [`engine::Config::max_flows`].
    pub max_flows: Option<usize>,
    /// [`engine::Config::max_half_open`].
    pub max_half_open: Option<usize>,
    /// [`engine::Config::max_held_bytes`].
    pub max_held_bytes: Option<usize>,
    /// [`engine::Config::syn_attempts`].
    pub syn_attempts: Option<u8>,
    /// [`engine::PathLimits::max`].
    pub max_paths: Option<usize>,
    /// [`engine::PathLimits::retry`], seconds.
    pub path_retry: Option<u32>,
    /// [`engine::PathLimits::retry_max`], seconds.
    pub path_retry_max: Option<u32>,
    /// [`engine::Config::handshake_timeout`], seconds.
    pub handshake_timeout: Option<u32>,
    /// [`engine::Config::plain_idle_timeout`], seconds.
    pub plain_idle_timeout: Option<u32>,
    /// [`engine::Config::closed_linger`], seconds.
    pub closed_linger: Option<u32>,
}

impl Limits {
    /// The engine's configuration with these limits.
    #[must_use]
    pub fn engine(&self) -> engine::Config {
        let default = engine::Config::default();
        let seconds = |given: Option<u32>, default: Duration| given.map_or(default, |s| Duration::from_secs(s.into()));
        engine::Config {
            max_flows: self.max_flows.unwrap_or(default.max_flows),
            max_half_open: self.max_half_open.unwrap_or(default.max_half_open),
            max_held_bytes: self.max_held_bytes.unwrap_or(default.max_held_bytes),
            syn_attempts: self.syn_attempts.unwrap_or(default.syn_attempts),
            paths: engine::PathLimits {
                max: self.max_paths.unwrap_or(default.paths.max),
                retry: seconds(self.path_retry, default.paths.retry),
                retry_max: seconds(self.path_retry_max, default.paths.retry_max),
                ..default.paths
            },
            handshake_timeout: seconds(self.handshake_timeout, default.handshake_timeout),
            plain_idle_timeout: seconds(self.plain_idle_timeout, default.plain_idle_timeout),
            closed_linger: seconds(self.closed_linger, default.closed_linger),
            ..default
        }
    }

    fn check(&self) -> Result<(), InvalidValue> {
        let size = |value: Option<usize>| value.map(|value| u64::try_from(value).unwrap_or(u64::MAX));
        for (name, value, allowed) in [
            ("max-flows", size(self.max_flows), 1..=ENTRIES_MAX),
            ("max-half-open", size(self.max_half_open), 1..=ENTRIES_MAX),
            ("max-held-bytes", size(self.max_held_bytes), HELD_MIN..=HELD_MOST),
            ("syn-attempts", self.syn_attempts.map(u64::from), 1..=u8::MAX.into()),
            ("max-paths", size(self.max_paths), 0..=ENTRIES_MAX),
            ("path-retry", self.path_retry.map(u64::from), 1..=DAY),
            ("path-retry-max", self.path_retry_max.map(u64::from), 1..=30 * DAY),
            ("handshake-timeout", self.handshake_timeout.map(u64::from), 1..=HOUR),
            ("plain-idle-timeout", self.plain_idle_timeout.map(u64::from), 60..=365 * DAY),
            ("closed-linger", self.closed_linger.map(u64::from), 1..=HOUR),
        ] {
            in_range(&format!("limits.{name}"), value, allowed)?;
        }
        let default = engine::PathLimits::default();
        let retry = self.path_retry.map_or(default.retry.as_secs(), u64::from);
        let most = self.path_retry_max.map_or(default.retry_max.as_secs(), u64::from);
        if most < retry {
            let key = if self.path_retry_max.is_some() { "limits.path-retry-max" } else { "limits.path-retry" };
            return Err(InvalidValue::new(key, format!("path-retry-max is {most}, less than path-retry, {retry}")));
        }
        Ok(())
    }
}

/// The kernel's own routing tables: unspecified (0), compat (252), default (253), main (254), local (255).
const RESERVED_TABLES: [u32; 5] = [0, 252, 253, 254, 255];
/// Three consecutive preferences must fit before that of the main table, 32766.
const PREFERENCE_MAX: u32 = 32_763;
/// The minimum for IPv6 (RFC 8200, section 5), and the longest packet.
const MTU_MIN: u32 = 1280;
const MTU_MAX: u32 = 65_535;

/// Numbers visible to the host's firewall and routing, see [`linux::HostSettings`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Host {
    /// [`linux::HostSettings::mark_mask`].
    pub mark_mask: Option<u32>,
    /// [`linux::HostSettings::table_plain`].
    pub table_plain: Option<u32>,
    /// [`linux::HostSettings::table_wire`].
    pub table_wire: Option<u32>,
    /// [`linux::HostSettings::preference`].
    pub preference: Option<u32>,
    /// [`linux::HostSettings::zone`].
    pub zone: Option<u16>,
    /// [`linux::HostSettings::txqueuelen`].
    pub txqueuelen: Option<u32>,
    /// [`linux::HostSettings::mtu`].
    pub mtu: Option<u32>,
    /// [`crate::io::BusyPoll`], in microseconds.
    pub busy_poll: Option<u32>,
}

impl Host {
    /// The host settings with these numbers.
    #[must_use]
    pub fn settings(&self, instance: &Instance, tun: &str, gateway: &[String]) -> linux::HostSettings {
        let default = linux::HostSettings::default();
        linux::HostSettings {
            instance: instance.to_string(),
            tun: tun.to_owned(),
            gateway: gateway.to_vec(),
            mark_mask: self.mark_mask.unwrap_or(default.mark_mask),
            table_plain: self.table_plain.unwrap_or(default.table_plain),
            table_wire: self.table_wire.unwrap_or(default.table_wire),
            preference: self.preference.unwrap_or(default.preference),
            zone: self.zone.unwrap_or(default.zone),
            txqueuelen: self.txqueuelen.unwrap_or(default.txqueuelen),
            mtu: self.mtu.or(default.mtu),
            ..default
        }
    }

    /// How long the packet loop spins.
    #[must_use]
    pub fn busy_poll(&self) -> BusyPoll {
        self.busy_poll.map_or_else(BusyPoll::default, |most| BusyPoll::new(Duration::from_micros(most.into())))
    }

    fn check(&self) -> Result<(), InvalidValue> {
        if self.mark_mask.is_some_and(|mask| mask.count_ones() < 2) {
            return Err(InvalidValue::new(
                "host.mark-mask",
                "at least two bits are needed, one to mark packets for each side",
            ));
        }
        let default = linux::HostSettings::default();
        let plain = self.table_plain.unwrap_or(default.table_plain);
        let wire = self.table_wire.unwrap_or(default.table_wire);
        if plain == wire {
            let key = if self.table_wire.is_some() { "host.table-wire" } else { "host.table-plain" };
            return Err(InvalidValue::new(key, format!("table-plain and table-wire must differ; both are {plain}")));
        }
        for (key, table) in [("host.table-plain", plain), ("host.table-wire", wire)] {
            if RESERVED_TABLES.contains(&table) {
                return Err(InvalidValue::new(
                    key,
                    format!("{table} is one of the system's own tables; use another number"),
                ));
            }
        }
        for (name, value, allowed) in [
            ("busy-poll", self.busy_poll, 0..=BUSY_POLL_MAX),
            ("preference", self.preference, 1..=PREFERENCE_MAX),
            ("zone", self.zone.map(u32::from), 1..=u16::MAX.into()),
            ("txqueuelen", self.txqueuelen, 1..=u32::MAX >> 1),
            ("mtu", self.mtu, MTU_MIN..=MTU_MAX),
        ] {
            let allowed = u64::from(*allowed.start())..=u64::from(*allowed.end());
            in_range(&format!("host.{name}"), value.map(u64::from), allowed)?;
        }
        Ok(())
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It has a key or value that is not allowed.
    #[error("{}{}: {message}", path.display(), line.map_or(String::new(), |line| format!(", line {line}")))]
    InvalidValue {
        /// Which file.
        path: PathBuf,
        /// Where, counted from 1.
        line: Option<usize>,
        /// What is wrong and what is allowed.
        message: String,
    },
}

impl File {
    /// Reads `path`.
    ///
    /// # Errors
    /// If it cannot be read, is not TOML, or has keys or values that are not allowed.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let size = fs::metadata(path).map_err(read)?.len();
        if size > SIZE_MAX {
            return Err(ConfigError::InvalidValue {
                path: path.to_owned(),
                line: None,
                message: format!("too large: {size} bytes (at most {SIZE_MAX})"),
            });
        }
        let text = fs::read_to_string(path).map_err(read)?;
        Self::parse(&text).map_err(|(line, message)| ConfigError::InvalidValue { path: path.to_owned(), line, message })
    }

    /// Parses a file's text.
    ///
    /// # Errors
    /// What is wrong, in one line with its key, and where (counted from 1).
    pub fn parse(text: &str) -> Result<Self, (Option<usize>, String)> {
        let file: Self = toml::from_str(text).map_err(|error| refusal(text, &error))?;
        // The message quotes the value, which may be anything.
        file.check()
            .map_err(|invalid| (position::line_of(text, &invalid.key, |_| false), one_line(&invalid.message)))?;
        file.selectors.check().map_err(|error| {
            let (culprit, policy) = error.culprit();
            let key = format!("selectors.{policy}");
            let is_it = |item: &str| item.parse::<Selected>().is_ok_and(|it| it.selector == *culprit);
            (position::line_of(text, &key, is_it), one_line(&InvalidValue::new(key.as_str(), &error).message))
        })?;
        Ok(file)
    }

    /// The engine's configuration.
    #[must_use]
    pub fn engine(&self) -> engine::Config {
        let mut config = self.limits.engine();
        self.negotiation.apply(&mut config);
        self.resumption.apply(&mut config);
        self.rekey.apply(&mut config);
        config
    }

    fn check(&self) -> Result<(), InvalidValue> {
        self.negotiation.check()?;
        self.resumption.check()?;
        self.rekey.check()?;
        self.limits.check()?;
        self.host.check()?;
        if let Some(name) = &self.tun {
            check_tun(name).map_err(|error| InvalidValue::new("tun", error))?;
        }
        self.gateway
            .iter()
            .try_for_each(|name| check_interface(name))
            .map_err(|error| InvalidValue::new("gateway", error))?;
        if let Some(name) = &self.instance {
            name.parse::<Instance>().map_err(|error| InvalidValue::new("instance", error))?;
        }
        if let Some(log) = &self.log {
            super::log::parse(log).map_err(|error| InvalidValue::new("log", error))?;
        }
        Ok(())
    }
}

/// What the parser rejects: line, key, and why.
fn refusal(text: &str, error: &toml::de::Error) -> (Option<usize>, String) {
    let message = one_line(error.message());
    let Some(span) = error.span() else { return (None, message) };
    let line = position::line_at(text, span.start);
    // An unknown key names itself, and text that is not TOML has no keys.
    let key = if message.starts_with("unknown field") { None } else { position::key_at(text, span.start) };
    let Some(key) = key else { return (line, message) };
    // The parser only tells where a list begins.
    let in_list = position::line_of(text, &key, |item| match key.as_str() {
        "selectors.opportunistic" | "selectors.required" | "selectors.off" => item.parse::<Selected>().is_err(),
        _ => false,
    });
    (in_list.or(line), InvalidValue::new(key, message).message)
}

/// The parser's `message` in one line, in terms of the file rather than of Rust.
fn one_line(message: &str) -> String {
    let words = [
        ("expected a sequence", "expected a list, as in [\"10.0.0.0/8\"]"),
        ("invalid boolean, expected `true`", "invalid value; strings need quotes"),
    ];
    let numbers = [("u8", "255"), ("u16", "65535"), ("u32", "4294967295"), ("u64", "2^64 - 1"), ("usize", "2^64 - 1")];
    let mut text = message.replace('\n', "; ");
    for (theirs, ours) in words {
        text = text.replace(theirs, ours);
    }
    for (theirs, most) in numbers {
        if let Some(rest) = text.strip_suffix(&format!("expected {theirs}")) {
            text = format!("{rest}expected a number from 0 to {most}");
        }
    }
    text
}

/// Whether `name` can be the plain side's device, and leaves a name for the wire side's.
///
/// # Errors
/// What is wrong with it.
pub fn check_tun(name: &str) -> Result<(), String> {
    if !linux::is_interface_name(name) {
        return Err(format!("`{name}` cannot name a TUN device (1 to 15 characters: letters, digits, `-`, `_`, `.`)"));
    }
    if linux::HostSettings::for_tun(name).wire_tun() == name {
        return Err(format!(
            "`{name}` leaves no name for the second device, which is its first 13 characters plus `-w`"
        ));
    }
    Ok(())
}

/// Whether packets of hosts behind interface `name` can be encrypted through the device `tun`.
///
/// # Errors
/// What is wrong with it.
pub fn check_gateway(name: &str, tun: &str) -> Result<(), String> {
    check_interface(name)?;
    if name == "lo" || name == tun || linux::HostSettings::for_tun(tun).wire_tun() == name {
        return Err(format!(
            "--gateway names the interface towards the hosts behind this one; there are none behind `{name}`"
        ));
    }
    Ok(())
}

/// Whether the kernel would accept `name` for an interface.
///
/// # Errors
/// What is wrong with it.
pub fn check_interface(name: &str) -> Result<(), String> {
    let good = (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'));
    if good {
        Ok(())
    } else {
        Err(format!("`{name}` cannot name an interface (1 to 15 characters, no `/`, `:`, `%`, blanks)"))
    }
}

#[cfg(test)]
mod tests {
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
        let text = include_str!("../../docs/configuration.md");
        let example = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let file = File::parse(example).unwrap();
        assert_eq!(file.selectors.rules().len(), 5);
        assert_eq!(file.limits.engine().max_flows, engine::Config::default().max_flows);
    }

    #[test]
    fn every_default_in_the_documentation_is_the_real_one() {
        let text = include_str!("../../docs/configuration.md");
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
        let (line, message) =
            File::parse("[selectors]\nrequired = [\n  \"10.0.0.0/8\",\n  \"10.0.0\",\n]\n").unwrap_err();
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
        let text = include_str!("../../docs/configuration.md");
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
}
