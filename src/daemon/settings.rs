//! The daemon's settings: the command line over the configuration file over the defaults.

use std::path::PathBuf;

use tcpcrypt::constants::RESUME_NONCE_MAX;
use tcpcrypt::{AeadId, Tep};

use super::config::{ConfigError, File, check_gateway, check_offer, check_tun};
use super::instance::Instance;
use super::log;
use super::selectors::Selectors;
use crate::io::BusyPoll;
use crate::selector::{Policy, Rule, Selected};
use crate::{engine, linux};

/// The arguments of the command line.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// The plain side's device.
    pub tun: Option<String>,
    /// The instance.
    pub instance: Option<Instance>,
    /// The policy of selectors given without one.
    pub policy: Option<Policy>,
    /// Interfaces to the hosts behind this one, for which it encrypts.
    pub gateway: Vec<String>,
    /// What is protected.
    pub selectors: Vec<Selected>,
    /// TEPs to offer and accept, in order of increasing preference (ENO-10); empty: those of the file or the default.
    pub teps: Vec<Tep>,
    /// AEADs, in order of increasing preference (TC-5); empty: those of the file or the default.
    pub aeads: Vec<AeadId>,
    /// The file to which keys are exported.
    pub export_keys: Option<PathBuf>,
}

/// The daemon's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The configuration file, to be reloaded on SIGHUP, and its contents.
    pub file: Option<(PathBuf, File)>,
    /// The instance.
    pub instance: Instance,
    /// The policy given on the command line, which overrides that of the file.
    pub policy_option: Option<Policy>,
    /// The policy of selectors given without one.
    pub policy: Policy,
    /// What is logged.
    pub log: String,
    /// Selectors of the file.
    pub file_rules: Vec<Rule>,
    /// Selectors of the command line.
    pub command_rules: Vec<Rule>,
    /// The engine's configuration.
    pub engine: engine::Config,
    /// The host's configuration.
    pub host: linux::HostSettings,
    /// How long the packet loop spins.
    pub busy_poll: BusyPoll,
    /// The file to which keys are exported. On the command line only: the setting cannot be left behind in a file.
    pub export_keys: Option<PathBuf>,
}

/// Why a daemon cannot be started with these settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An argument.
    #[error("{0}")]
    Usage(String),
}

impl Settings {
    /// Combines command line, file and defaults.
    ///
    /// # Errors
    /// If the file cannot be read or is invalid, or a name is invalid.
    pub fn new(options: Options, default_tun: &str) -> Result<Self, SettingsError> {
        let file = match options.config {
            // Independent of the working directory when it is reloaded.
            Some(path) => {
                let path = std::path::absolute(&path).unwrap_or(path);
                let file = File::read(&path)?;
                Some((path, file))
            }
            None => None,
        };
        let said = file.as_ref().map(|(_, file)| file.clone()).unwrap_or_default();
        let mut engine = said.engine();
        engine.export_keys = options.export_keys.is_some();
        if !options.teps.is_empty() {
            check_offer(&options.teps).map_err(|error| SettingsError::Usage(format!("--tep: {error}")))?;
            engine.negotiation.teps = options.teps;
        }
        if !options.aeads.is_empty() {
            check_offer(&options.aeads).map_err(|error| SettingsError::Usage(format!("--aead: {error}")))?;
            engine.ciphers = options.aeads;
        }
        let tun = options.tun.or(said.tun).unwrap_or_else(|| default_tun.to_owned());
        check_tun(&tun).map_err(SettingsError::Usage)?;
        let gateway = if options.gateway.is_empty() { said.gateway } else { options.gateway };
        gateway.iter().try_for_each(|name| check_gateway(name, &tun)).map_err(SettingsError::Usage)?;
        let instance = match (options.instance, said.instance) {
            (Some(instance), _) => instance,
            (None, named) => {
                named.as_deref().unwrap_or(&tun).parse().map_err(|error| SettingsError::Usage(format!("{error}")))?
            }
        };
        let from_environment = log::from_environment();
        if let Some(Err(wrong)) = from_environment.as_deref().map(log::parse) {
            return Err(SettingsError::Usage(format!("ENOTUN_LOG: {wrong}")));
        }
        let policy = options.policy.or(said.policy).unwrap_or_default();
        let command_rules: Vec<Rule> = options.selectors.into_iter().map(|selected| selected.rule(policy)).collect();
        let selectors = Selectors::new(said.selectors.rules(), command_rules.clone(), policy);
        selectors.check().map_err(|error| SettingsError::Usage(error.to_string()))?;
        Ok(Self {
            policy_option: options.policy,
            policy,
            log: from_environment.or(said.log).unwrap_or_else(|| log::DEFAULT.to_owned()),
            file_rules: said.selectors.rules(),
            command_rules,
            engine,
            export_keys: options.export_keys,
            host: said.host.settings(&instance, &tun, &gateway),
            busy_poll: said.host.busy_poll(),
            instance,
            file,
        })
    }

    /// Settings that are allowed but have a price worth knowing.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let negotiation = &self.engine.negotiation;
        let mut warnings = Vec::new();
        if negotiation.resume && negotiation.nonce_len < RESUME_NONCE_MAX {
            // TC-13, TC-14: the peer's nonce is all that is left if this machine is a clone of another.
            warnings.push(format!(
                "resumption.nonce-length is {}: if this machine is cloned or rolled back, two connections may share their keys; the default is {RESUME_NONCE_MAX}",
                negotiation.nonce_len
            ));
        }
        if negotiation.active_b {
            warnings.push(
                "negotiation.role-b is on: connections that this host opens are plain, except for simultaneous opens; as an option of a selector (`10.0.0.1:179,role-b`) it applies to that one only"
                    .to_owned(),
            );
        }
        for (missing, name) in [
            (!negotiation.teps.contains(&Tep::Curve25519), "Curve25519"),
            (!self.engine.ciphers.contains(&AeadId::Aes128Gcm), "AES-128-GCM"),
        ] {
            if missing {
                warnings.push(format!(
                    "{name} is not offered: connections with peers that have only what RFC 8548 requires will not be encrypted"
                ));
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str, teps: Vec<Tep>) -> Settings {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("enotun.toml");
        std::fs::write(&path, text).unwrap();
        Settings::new(Options { config: Some(path), teps, ..Options::default() }, "tun0").unwrap()
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let file = "[negotiation]\nteps = [\"P256\", \"Curve25519\"]\n";
        assert_eq!(settings(file, vec![]).engine.negotiation.teps, [Tep::P256, Tep::Curve25519]);
        assert_eq!(settings(file, vec![Tep::P521]).engine.negotiation.teps, [Tep::P521]);
        let twice = Options { teps: vec![Tep::P256, Tep::P256], ..Options::default() };
        assert!(matches!(Settings::new(twice, "tun0"), Err(SettingsError::Usage(_))));
    }

    #[test]
    fn tc_13_a_short_nonce_is_warned_of() {
        assert!(settings("", vec![]).warnings().is_empty());
        let warnings = settings("[resumption]\nnonce-length = 7\n", vec![]).warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("cloned"), "{warnings:?}");
        assert!(settings("[resumption]\nnonce-length = 0\nenabled = false\n", vec![]).warnings().is_empty());
        assert!(settings("", vec![Tep::P256]).warnings()[0].contains("Curve25519"));
    }
}
