//! `enotun enable` and `enotun disable`.

use clap::Args;

use super::client;
use super::common::{CommandError, Common, policy_parser};
use super::output::{print, print_json, table};
use crate::daemon::protocol::Command;
use crate::daemon::selectors::Entry;
use crate::selector::{Policy, Selected};

#[derive(Debug, Args)]
pub(super) struct EnableArguments {
    /// What to do with these connections [default: the daemon's policy]
    #[arg(long, value_name = "POLICY", value_parser = policy_parser())]
    policy: Option<Policy>,
    /// Which connections, with options if any
    #[arg(required = true, value_name = "SELECTOR")]
    selectors: Vec<Selected>,
}

#[derive(Debug, Args)]
pub(super) struct DisableArguments {
    /// Each as it was given; options after it are ignored
    #[arg(required = true, value_name = "SELECTOR")]
    selectors: Vec<Selected>,
}

pub(super) fn enable(common: &Common, arguments: EnableArguments) -> Result<(), CommandError> {
    let EnableArguments { policy, selectors } = arguments;
    change(common, Command::Enable { selectors, policy })
}

pub(super) fn disable(common: &Common, arguments: DisableArguments) -> Result<(), CommandError> {
    let selectors = arguments.selectors.into_iter().map(|selected| selected.selector).collect();
    change(common, Command::Disable { selectors })
}

/// Requests the change and shows what is protected now.
fn change(common: &Common, command: Command) -> Result<(), CommandError> {
    let answer = client::ask(&common.instance()?, command)?;
    if common.json {
        return print_json(&answer);
    }
    let entries: Vec<Entry> = client::decode(answer)?;
    print(&format!("protected now:\n{}", show(&entries)))
}

/// Selectors shown; JSON has all of them.
const SHOWN: usize = 50;

/// The options column, which is present if any selector has options.
const OPTIONS: usize = 2;

/// What is protected, one selector per line.
pub(super) fn show(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "nothing\n".to_owned();
    }
    let row = |entry: &Entry| {
        let source = match entry.source {
            crate::daemon::selectors::Source::File => "file",
            crate::daemon::selectors::Source::Command => "command",
            crate::daemon::selectors::Source::Route => "route",
        };
        let addresses = entry.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let addresses = match entry.selector.name() {
            Some(_) if addresses.is_empty() => "NOT RESOLVED".to_owned(),
            _ => addresses,
        };
        let options = entry.options.words().join(", ");
        let yields = entry.yields_to.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let yields = if yields.is_empty() { yields } else { format!("where both match, yields to {yields}") };
        let more = [addresses, yields].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
        vec![entry.selector.to_string(), entry.policy.to_string(), options, format!("by {source}"), more]
    };
    let mut rows: Vec<Vec<String>> = entries.iter().take(SHOWN).map(row).collect();
    if entries.iter().take(SHOWN).all(|entry| entry.options.is_none()) {
        rows.iter_mut().for_each(|row| drop(row.remove(OPTIONS)));
    }
    let mut text = table(&rows, &[]);
    if let Some(more) = entries.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!("and {more} more: `enotun status --json`\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::selectors::Selectors;
    use crate::selector::Rule;

    #[test]
    fn which_selector_decides_is_said() {
        let rules = [("local:7000", Policy::Required), ("10.1.0.0/24", Policy::Opportunistic)];
        let rules = rules.map(|(text, policy)| Rule::new(text.parse().unwrap(), policy));
        let text = show(&Selectors::new(rules.to_vec(), Vec::new(), Policy::Opportunistic).entries());
        let said = "10.1.0.0/24  opportunistic  by file  where both match, yields to local:7000";
        assert!(text.lines().any(|line| line == said), "{text}");
    }

    #[test]
    fn of_thousands_the_first_are_shown_and_how_many_more_there_are() {
        let shown = |count: u16| {
            let rule = |n: u16| Rule::new(format!("10.0.0.1:{}", n + 1).parse().unwrap(), Policy::Required);
            let selectors = Selectors::new(Vec::new(), (0..count).map(rule).collect(), Policy::Required);
            show(&selectors.entries())
        };
        assert_eq!(shown(0), "nothing\n");
        assert_eq!(shown(50).lines().count(), 50);
        let text = shown(2_050);
        assert_eq!(text.lines().count(), 51);
        assert!(text.ends_with("\nand 2000 more: `enotun status --json`\n"), "{text}");
    }
}
