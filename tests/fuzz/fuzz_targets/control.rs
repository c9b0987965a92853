//! Requests at the control socket: garbage is refused with a reason, what is understood means the same when it is written
//! and read again, and who is not root changes nothing. The first byte says whether the client is root.
#![no_main]

use enotun::daemon::control::parse;
use enotun::daemon::protocol::{Command, FailureKind, Reply, Request, VERSION};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((who, line)) = bytes.split_first() else { return };
    let privileged = who & 1 == 1;
    match parse(line, privileged) {
        Ok(command) => {
            let changes = matches!(
                command,
                Command::Rekey { .. } | Command::Enable { .. } | Command::Disable { .. } | Command::Down {}
            );
            assert!(privileged || !changes, "{command:?}");
            let again = serde_json::to_vec(&Request { version: VERSION, request: command.clone() }).expect("as JSON");
            let reread: Command = parse(&again, true).expect("it was understood before");
            assert_eq!(reread, command);
        }
        Err(failure) => {
            assert!(!failure.message.is_empty(), "a refusal says why");
            assert!(privileged || failure.kind != FailureKind::Failed, "{failure:?}");
        }
    }
    // The other direction: what a client makes of a daemon that says anything.
    let _ = serde_json::from_slice::<Reply>(line);
});
