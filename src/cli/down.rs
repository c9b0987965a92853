//! `enotun down`.

use std::time::{Duration, Instant};

use serde_json::json;

use super::client::{Client, ConnectError};
use super::common::{CommandError, Common};
use super::output::{print, print_json};
use crate::daemon::instance::Instance;
use crate::daemon::protocol::Command;
use crate::linux;

/// How long a daemon that holds the lock but has no socket yet (or no longer) may take.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn run(common: &Common) -> Result<(), CommandError> {
    let instance = common.instance()?;
    let stopped = match Client::connect(&instance) {
        Ok(mut client) => {
            client.ask(Command::Down {})?;
            client.wait_for_end()?;
            true
        }
        Err(ConnectError::NotRunning { .. }) => false,
        Err(error) => return Err(CommandError::new(error)),
    };
    let cleaned = clean_up(&instance)?;
    if !stopped && Client::connect(&instance).is_err() {
        // A dead daemon's. Before the directory, which goes with its last file.
        instance
            .remove_socket()
            .map_err(|error| CommandError::new(format!("cannot remove the control socket: {error}")))?;
    }
    if !stopped && !cleaned {
        return Err(CommandError::new(format!(
            "no daemon runs as instance `{instance}`, and there is nothing to clean up"
        )));
    }
    if common.json {
        return print_json(&json!({ "stopped": stopped, "cleaned_up": cleaned }));
    }
    print(if stopped {
        "stopped; the host is as it was before\n"
    } else {
        "no daemon was running; cleaned up after one that had died\n"
    })
}

/// Undoes the changes of a dead daemon; false if there are none. Waits for one that is just stopping or starting.
fn clean_up(instance: &Instance) -> Result<bool, CommandError> {
    let settings = linux::HostSettings { instance: instance.to_string(), ..Default::default() };
    let end = Instant::now() + TIMEOUT;
    let mut entered = false;
    loop {
        match linux::down(&settings) {
            Err(linux::Error::Running(_)) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            Err(linux::Error::Running(_)) => {
                let message = format!(
                    "a daemon of instance `{instance}` runs but does not answer; kill it by its process ID and run this again"
                );
                return Err(CommandError::new(message));
            }
            // Instance names are machine-wide: the record tells the namespace.
            Err(linux::Error::OtherNamespace(_)) if !entered => {
                linux::enter_namespace(&settings).map_err(CommandError::new)?;
                entered = true;
            }
            result => return result.map_err(CommandError::new),
        }
    }
}
