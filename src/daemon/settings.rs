//! What a daemon is started with: the command line over the configuration file over the defaults.

use std::path::PathBuf;

use super::config::{ConfigError, File, check_interface};
use super::instance::Instance;
use super::log;
use crate::selector::{Policy, Rule, Selector};
use crate::{engine, linux};

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// The plain side's device.
    pub tun: Option<String>,
    /// The instance.
    pub instance: Option<Instance>,
    /// The policy of what is selected without one.
    pub policy: Option<Policy>,
    /// Interfaces to the hosts for which this one encrypts.
    pub gateway: Vec<String>,
    /// What is protected.
    pub selectors: Vec<Selector>,
}

/// What a daemon is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The configuration file, to be read again on SIGHUP, and what it said.
    pub file: Option<(PathBuf, File)>,
    /// The instance.
    pub instance: Instance,
    /// The policy given on the command line, over any that the file names.
    pub policy_option: Option<Policy>,
    /// The policy of what is selected without one.
    pub policy: Policy,
    /// What is logged.
    pub log: String,
    /// Selectors of the file.
    pub file_rules: Vec<Rule>,
    /// Selectors of the command line.
    pub command_rules: Vec<Rule>,
    /// The engine's bounds and times.
    pub engine: engine::Config,
    /// The plumbing.
    pub host: linux::Settings,
}

/// Why a daemon cannot be started with that.
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
    /// Puts them together.
    ///
    /// # Errors
    /// If the file cannot be read or is wrong, or a name cannot be one.
    pub fn new(options: Options, default_tun: &str) -> Result<Self, SettingsError> {
        let file = match options.config {
            // Whatever the working directory is when it is read again.
            Some(path) => {
                let path = std::path::absolute(&path).unwrap_or(path);
                let file = File::read(&path)?;
                Some((path, file))
            }
            None => None,
        };
        let said = file.as_ref().map(|(_, file)| file.clone()).unwrap_or_default();
        let tun = options.tun.or(said.tun).unwrap_or_else(|| default_tun.to_owned());
        check_interface(&tun).map_err(SettingsError::Usage)?;
        let gateway = if options.gateway.is_empty() { said.gateway } else { options.gateway };
        gateway.iter().try_for_each(|name| check_interface(name)).map_err(SettingsError::Usage)?;
        let instance = match (options.instance, said.instance) {
            (Some(instance), _) => instance,
            (None, named) => {
                named.as_deref().unwrap_or(&tun).parse().map_err(|error| SettingsError::Usage(format!("{error}")))?
            }
        };
        let policy = options.policy.or(said.policy).unwrap_or_default();
        let command_rules = options.selectors.into_iter().map(|selector| Rule::new(selector, policy)).collect();
        Ok(Self {
            policy_option: options.policy,
            policy,
            log: std::env::var("ENOTUN_LOG").ok().or(said.log).unwrap_or_else(|| log::DEFAULT.to_owned()),
            file_rules: said.selectors.rules(),
            command_rules,
            engine: said.limits.engine(),
            host: said.host.settings(&instance, &tun, &gateway),
            instance,
            file,
        })
    }
}
