//! Configuration files: whatever is in them is taken or refused with a reason, and what is taken can be used.
#![no_main]

use enotun::daemon::config::File;
use enotun::selector::PolicyTable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match File::parse(text) {
        Ok(file) => {
            let engine = file.limits.engine();
            assert!(engine.max_flows > 0 && engine.max_half_open > 0, "nothing could be encrypted: {engine:?}");
            let table = PolicyTable::new(file.selectors.rules());
            let (given, kept) = (file.selectors.rules().len(), table.rules().len());
            assert_eq!(given, kept, "no rule is lost");
        }
        Err((line, message)) => {
            assert!(!message.trim().is_empty(), "a refusal says why");
            assert!(!message.contains('\n'), "in one line: {message:?}");
            assert!(line.is_none_or(|line| line >= 1 && line <= text.matches('\n').count() + 1), "line {line:?}");
        }
    }
});
