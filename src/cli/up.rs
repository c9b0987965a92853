//! `enotun up`.

use std::path::PathBuf;

use clap::Args;
use tcpcrypt::{AeadId, Tep};

use super::common::{CommandError, Common, DEFAULT_TUN, policy_parser};
use super::output::{print, print_json};
use crate::daemon;
use crate::daemon::config::{ConfigError, parse_aead, parse_tep};
use crate::daemon::selectors::Selectors;
use crate::daemon::settings::{Options, Settings, SettingsError};
use crate::linux;
use crate::selector::{Policy, Selected};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Read this configuration file (TOML); the command line overrides it, and adds to its selectors
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of the plain side's TUN device; the wire side's is its first 13 characters plus `-w` [default: tun0]
    #[arg(long, value_name = "NAME")]
    tun: Option<String>,
    /// Policy of selectors given without one [default: opportunistic]
    ///
    /// `opportunistic` encrypts if the peer can, and falls back to plain TCP; `required` refuses what cannot be encrypted;
    /// `off` leaves connections alone.
    #[arg(long, value_name = "POLICY", value_parser = policy_parser())]
    policy: Option<Policy>,
    /// Encrypt for the hosts behind this interface too, as their gateway; may be repeated, or be a
    /// comma-separated list
    #[arg(long, value_name = "IFACE", value_delimiter = ',')]
    gateway: Vec<String>,
    /// Key agreements to offer and accept, in order of increasing preference: the last one that both sides have is taken
    /// [default: P256,Curve25519; P521 and Curve448 are also supported]
    #[arg(long = "tep", value_name = "TEP", value_delimiter = ',', value_parser = parse_tep)]
    teps: Vec<Tep>,
    /// Ciphers to offer and accept, in order of increasing preference
    /// [default: ChaCha20-Poly1305,AES-256-GCM,AES-128-GCM]
    #[arg(long = "aead", value_name = "AEAD", value_delimiter = ',', value_parser = parse_aead)]
    aeads: Vec<AeadId>,
    /// For debugging: write the keys of every connection to this new file, to decrypt captures
    ///
    /// Whoever can read the file can read the traffic. It must be on a tmpfs (/dev/shm, /run): keys never go to disk.
    #[arg(long, value_name = "FILE")]
    export_keys: Option<PathBuf>,
    /// Print every device, rule, route, sysctl, chain and file that would be set up, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Which connections to protect; add more with `enotun enable`, or by routes:
    /// `ip route add 10.9.0.0/16 dev tun0 table enotun`
    #[arg(value_name = "SELECTOR")]
    selectors: Vec<Selected>,
}

pub(super) fn run(
    common: &Common,
    arguments: Arguments,
    provider: &'static dyn tcpcrypt::Provider,
) -> Result<(), CommandError> {
    let Arguments { config, tun, policy, gateway, teps, aeads, export_keys, dry_run, selectors } = arguments;
    let instance = common.instance.clone();
    let options = Options { config, tun, instance, policy, gateway, selectors, teps, aeads, export_keys };
    let settings = Settings::new(options, DEFAULT_TUN).map_err(|error| match error {
        SettingsError::Config(ConfigError::Read { .. }) => CommandError::new(error),
        _ => CommandError::usage(error),
    })?;
    if dry_run {
        return show(common, &settings);
    }
    if common.json {
        return Err(CommandError::usage("up prints JSON with --dry-run only"));
    }
    daemon::run(settings, provider).map_err(|error| CommandError::new(format!("{error:#}")))
}

/// Prints what would be set up. Host names are not resolved.
fn show(common: &Common, settings: &Settings) -> Result<(), CommandError> {
    let selectors = Selectors::new(settings.file_rules.clone(), settings.command_rules.clone(), settings.policy);
    let steps = linux::dry_run(&settings.host, &selectors.rules()).map_err(CommandError::new)?;
    if common.json {
        return print_json(&steps);
    }
    let mut text: String = steps.iter().map(|step| format!("{step}\n")).collect();
    for name in selectors.names() {
        text.push_str(&format!("# and the same for each address of {name} as for an address given above\n"));
    }
    print(&text)
}

#[cfg(test)]
mod tests {
    use super::DEFAULT_TUN;
    use crate::selector::Policy;
    use clap::CommandFactory as _;

    #[test]
    fn the_defaults_in_the_help_are_those_of_the_engine() {
        let help = crate::cli::Cli::command().find_subcommand_mut("up").unwrap().render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let default = crate::engine::Config::default();
        let teps = default.negotiation.teps.iter().map(|tep| tep.short_name()).collect::<Vec<_>>().join(",");
        let aeads = default.ciphers.iter().map(|aead| aead.short_name()).collect::<Vec<_>>().join(",");
        for words in [teps.as_str(), &aeads, &Policy::default().to_string(), DEFAULT_TUN] {
            assert!(help.contains(&format!("[default: {words}")), "{words}: {help}");
        }
    }
}
