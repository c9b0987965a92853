//! `enotun rekey`.

use serde_json::json;

use super::client;
use super::common::{CommandError, Common, Connection};
use super::flows::Flow;
use super::output::{print, print_json};
use crate::daemon::protocol::Command;

pub(super) fn run(common: &Common, connection: &Connection) -> Result<(), CommandError> {
    let Connection { local, remote } = *connection;
    let answer = client::ask(&common.instance()?, Command::Rekey { local, remote })?;
    let flow: Flow = client::decode(answer)?;
    if common.json {
        return print_json(&json!({
            "local": flow.local,
            "remote": flow.remote,
            "generation_local": flow.generation_local,
        }));
    }
    let generation = flow
        .generation_local
        .map_or(String::new(), |generation| format!("; it sends with generation {generation} now"));
    print(&format!("rekeying {local} - {remote}{generation}\n"))
}
