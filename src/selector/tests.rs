//! What selectors match, and how they are written.

use super::*;

fn selector(text: &str) -> Selector {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn table(rules: &[(&str, Policy)]) -> PolicyTable {
    PolicyTable::new(rules.iter().map(|(text, policy)| Rule::new(selector(text), *policy)))
}

fn policy(table: &PolicyTable, remote: &str, remote_port: u16, local: u16) -> Option<Policy> {
    table.lookup(remote.parse().expect("address"), remote_port, local).map(|rule| rule.policy)
}

#[test]
fn every_form_survives_printing_and_parsing() {
    for text in [
        "10.0.0.0/8",
        "10.1.2.3",
        "10.1.2.3:22",
        "10.0.0.0/8:8000-8100",
        "db.example",
        "db.example:5432",
        "2001:db8::/32",
        "2001:db8::1",
        "[2001:db8::/32]:443",
        "[2001:db8::1]:443",
        ":5432",
        "local:22",
        "local:8000-8100",
        "0.0.0.0/0",
        "::/0",
    ] {
        assert_eq!(selector(text).to_string(), text);
        let json = serde_json::to_string(&selector(text)).expect("serialises");
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Selector>(&json).expect("parses"), selector(text));
    }
    assert_eq!(selector("[2001:db8::1]"), selector("2001:db8::1"));
    assert_eq!(selector("::ffff:10.1.2.3"), selector("10.1.2.3"));
    assert_eq!(selector("::ffff:10.1.0.0/112"), selector("10.1.0.0/16"));
    assert_eq!(selector("[::ffff:0:0/96]:80"), selector("0.0.0.0/0:80"));
    assert_eq!(selector("DB.Example."), selector("db.example."));
    assert_eq!(selector("LOCAL:22"), selector("local:22"));
}

#[test]
fn what_selects_nothing_is_an_error() {
    for text in [
        "",
        " ",
        ":",
        "local:",
        "local:0",
        ":0",
        ":70000",
        "10.0.0.1:",
        "10.0.0.1:+80",
        "10.0.0.1:90-80",
        "10.0.0",
        "300.1.1.1",
        "10.0.0.0/33",
        "10.0.0.1/8",
        "[10.0.0.1",
        "[::1]:80",
        "[fe80::1]80",
        "127.0.0.0/8",
        "::1",
        "224.0.0.0/4",
        "ff02::/16",
        "a b",
        "-x.example",
        "x..y",
        "0.0.0.0",
        "2001:db8::zz",
        "[db.example]:80",
        "::",
    ] {
        assert!(text.parse::<Selector>().is_err(), "{text:?} was accepted");
    }
    assert_eq!(
        "10.0.0.1/8".parse::<Selector>().expect_err("host bits").to_string(),
        "`10.0.0.1/8` has bits set behind the prefix; did you mean `10.0.0.0/8`?"
    );
}

#[test]
fn names_resolve_to_one_selector_per_address() {
    let addresses = |name: &str| {
        assert_eq!(name, "db.example");
        vec!["10.0.0.1".parse().expect("v4"), "2001:db8::1".parse().expect("v6")]
    };
    assert_eq!(
        selector("db.example:5432").resolved(addresses),
        [selector("10.0.0.1:5432"), selector("[2001:db8::1]:5432")]
    );
    assert_eq!(selector(":80").resolved(|_| unreachable!()), [selector(":80")]);
}

#[test]
fn the_longest_prefix_wins_then_the_fewest_ports_then_the_latest() {
    use Policy::{Off, Opportunistic, Required};
    let table = table(&[
        ("10.1.0.0/16", Required),
        ("10.0.0.0/8", Opportunistic),
        ("10.1.2.3:22", Off),
        ("10.0.0.0/8:8000-8100", Off),
        ("10.0.0.0/8:8050", Required),
        (":5432", Required),
        ("2001:db8::/32", Opportunistic),
    ]);
    assert_eq!(policy(&table, "10.9.9.9", 80, 40000), Some(Opportunistic));
    assert_eq!(policy(&table, "10.1.9.9", 80, 40000), Some(Required));
    assert_eq!(policy(&table, "10.1.2.3", 22, 40000), Some(Off));
    assert_eq!(policy(&table, "10.1.2.3", 23, 40000), Some(Required));
    assert_eq!(policy(&table, "10.2.0.1", 8000, 40000), Some(Off));
    assert_eq!(policy(&table, "10.2.0.1", 8100, 40000), Some(Off));
    assert_eq!(policy(&table, "10.2.0.1", 8050, 40000), Some(Required));
    assert_eq!(policy(&table, "10.2.0.1", 5432, 40000), Some(Opportunistic));
    assert_eq!(policy(&table, "192.0.2.1", 5432, 40000), Some(Required));
    assert_eq!(policy(&table, "192.0.2.1", 80, 40000), None);
    assert_eq!(policy(&table, "2001:db8::7", 80, 40000), Some(Opportunistic));
    assert_eq!(policy(&table, "2001:db9::7", 80, 40000), None);
    assert_eq!(policy(&table, "::ffff:10.1.9.9", 80, 1), Some(Required));
}

#[test]
fn a_local_port_ranks_below_any_remote_prefix() {
    use Policy::{Off, Opportunistic, Required};
    let table =
        table(&[("local:22", Required), ("10.0.0.0/8", Off), ("local:1-1024", Opportunistic), (":1-65535", Off)]);
    assert_eq!(policy(&table, "192.0.2.1", 40000, 22), Some(Required));
    assert_eq!(policy(&table, "192.0.2.1", 40000, 80), Some(Opportunistic));
    assert_eq!(policy(&table, "10.0.0.1", 40000, 22), Some(Off));
    assert_eq!(policy(&table, "192.0.2.1", 40000, 8080), Some(Off));
}

#[test]
fn enabling_again_changes_the_policy_and_disabling_takes_it_away() {
    let mut table = PolicyTable::default();
    let rule = |policy| Rule::new(selector("10.0.0.0/8"), policy);
    table.enable(rule(Policy::Opportunistic));
    table.enable(rule(Policy::Required));
    assert_eq!(table.rules(), [rule(Policy::Required)]);
    assert_eq!(policy(&table, "10.0.0.1", 1, 1), Some(Policy::Required));
    assert!(table.disable(&selector("10.0.0.0/8")));
    assert!(!table.disable(&selector("10.0.0.0/8")));
    assert_eq!(policy(&table, "10.0.0.1", 1, 1), None);
}
