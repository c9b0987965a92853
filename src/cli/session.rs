//! `enotun session`: what an application (or a person) compares or signs to authenticate a connection (ENO-19).

use serde_json::json;

use super::flows::Flow;
use super::output::{NOT_AUTHENTICATED, print, print_json};
use super::{Common, Connection, Failed, client};
use crate::daemon::protocol::Command;

pub(super) fn run(common: &Common, connection: &Connection) -> Result<(), Failed> {
    let Connection { local, remote } = *connection;
    let answer = client::ask(&common.instance()?, Command::Flow { local, remote })?;
    let flow: Flow = client::decode(answer)?;
    let (Some(session_id), Some(role)) = (&flow.session_id, flow.role) else {
        let why = flow.reason.map_or(String::new(), |reason| format!(" ({reason})"));
        return Err(Failed::new(format!(
            "the connection {local} - {remote} is {}{why} and has no session ID",
            flow.state
        )));
    };
    if common.json {
        return print_json(&json!({
            "local": flow.local,
            "remote": flow.remote,
            "session_id": session_id,
            "role": role,
            "resumed": flow.resumed,
            "authenticated": flow.authenticated,
        }));
    }
    let mut text = format!("session ID  {session_id}\nrole        {role}\n");
    if !flow.authenticated {
        text.push('\n');
        text.push_str(NOT_AUTHENTICATED);
        text.push('\n');
    }
    print(&text)
}
