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
mod tests;
