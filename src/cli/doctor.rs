//! `enotun doctor`.

use super::client::{Client, ConnectError, decode};
use super::common::{CommandError, Common, DEFAULT_TUN};
use super::output::{print, print_json};
use crate::daemon::instance::Instance;
use crate::daemon::protocol::Command;
use crate::daemon::status::Status;
use crate::linux::{self, Check, HostSettings, Level};
use crate::selector::Policy;

pub(super) fn run(common: &Common) -> Result<(), CommandError> {
    let instance = common.instance()?;
    let status = status(&instance);
    // The daemon knows the names of its devices; without a daemon they are those of a plain `enotun up`.
    let plain = status.as_ref().ok().and_then(|status| status.devices.first()).map(|device| device.name.clone());
    let tun = plain.unwrap_or_else(|| DEFAULT_TUN.to_owned());
    let mut checks = daemon(&status);
    checks.extend(linux::doctor(&HostSettings { instance: instance.to_string(), tun, ..Default::default() }));

    let failed = checks.iter().any(|check| check.level == Level::Fail);
    if common.json {
        print_json(&checks)?;
    } else {
        // The worst comes last, where it is noticed.
        checks.sort_by_key(|check| check.level);
        print(&checks.iter().map(|check| format!("{check}\n")).collect::<String>())?;
    }
    // The problems were printed already.
    if failed { Err(CommandError { status: 1, message: String::new() }) } else { Ok(()) }
}

fn status(instance: &Instance) -> Result<Status, Check> {
    let fail = |what: String, todo: &str| Check { level: Level::Fail, what, todo: todo.to_owned() };
    let answer = match Client::connect(instance) {
        Ok(mut client) => client.ask(Command::Status {}).and_then(decode),
        Err(ConnectError::NotRunning { .. }) => {
            let what = format!("no daemon of instance {instance} answers");
            return Err(Check { level: Level::Ok, what, todo: String::new() });
        }
        Err(error) => return Err(fail(error.to_string(), "run this as root")),
    };
    answer.map_err(|failed| fail(failed.message, "see its log"))
}

/// What the daemon reports about itself.
fn daemon(status: &Result<Status, Check>) -> Vec<Check> {
    let status = match status {
        Ok(status) => status,
        Err(check) => return vec![check.clone()],
    };
    let mut checks = Vec::new();
    let mut add = |level, what: String, todo: &str| checks.push(Check { level, what, todo: todo.to_owned() });
    add(Level::Ok, format!("the daemon answers (pid {}, up since {})", status.pid, status.up_since), "");
    for entry in status.selectors.iter().filter(|entry| entry.selector.name().is_some() && entry.addresses.is_empty()) {
        add(
            Level::Fail,
            format!("the host name of selector {} has no address: its connections are not protected", entry.selector),
            "check the name and name resolution; it is retried every few seconds",
        );
    }
    for entry in status.selectors.iter().filter(|entry| entry.policy == Policy::Off && !entry.yields_to.is_empty()) {
        let others: Vec<String> = entry.yields_to.iter().map(ToString::to_string).collect();
        add(
            Level::Warn,
            format!("selector {} is off only in part: where both match, {} decides", entry.selector, others.join(", ")),
            "exceptions to `required` must be addresses or networks inside the required one",
        );
    }
    for device in status.devices.iter().filter(|device| !device.offloads) {
        let what = format!("{}: the kernel refuses offloads, so segments are handled one by one", device.name);
        add(Level::Warn, what, "use a newer kernel for speed");
    }
    if status.selectors.is_empty() {
        add(Level::Warn, "nothing is selected, so nothing is protected".to_owned(), "enotun enable SELECTOR");
    }
    let limits: Vec<&str> = status
        .counters
        .iter()
        .filter(|(name, count)| super::status::is_limit(name) && **count > 0)
        .map(|(name, _)| name.as_str())
        .collect();
    if !limits.is_empty() {
        let what = format!("limits were reached since the start: {}", limits.join(", "));
        add(Level::Warn, what, "look for a flood, or raise them in [limits] of the configuration");
    }
    checks
}
