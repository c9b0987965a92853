//! Applying and reverting single changes. Both may be repeated: "already so" and "already gone" are success.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::Error;
use super::change::Change;
use super::facts::{list_chain, nft_error, read_sysctl};
use super::netlink::Netlink;
use super::nft::{self, Ruleset};
use super::record::remove_if_there;

/// Applies `change`.
pub(super) fn apply(netlink: &mut Netlink, change: &Change, ruleset: &Ruleset) -> Result<(), Error> {
    match change {
        Change::NftTable { .. } => replace_table("creating our table", ruleset),
        Change::Directory { path } => fs::create_dir_all(path).map_err(|source| Error::file(path, source)),
        Change::File { path, content, .. } => write_if_different(path, content),
        // Always written on our own devices: a sysctl that was never written follows later changes of `default`.
        Change::Sysctl { path, value, old, .. } => match read_sysctl(path) {
            Some(current) if current == *value && old.is_some() => Ok(()),
            _ => write_sysctl(path, value),
        },
        Change::Route { family, table, target, metric } => netlink.add_default_route(*family, *table, target, *metric),
        Change::Rule { family, preference, mark, mask, table } => {
            netlink.add_mark_rule(*family, *preference, *mark, *mask, *table)
        }
        Change::LocalRule { family, from, to } => {
            netlink.add_local_rule(*family, *to)?;
            netlink.delete_local_rule(*family, *from)
        }
        Change::ForeignPass { family, table, chain, passes, comment } => {
            let place = (family.as_str(), table.as_str(), chain.as_str());
            let mut commands = delete_commented(place, comment)?;
            commands.extend(nft::insert_passes(place, passes, comment));
            run_nft("accepting our packets in another table's forward chain", &json!({"nftables": commands}))
        }
    }
}

/// Reverts `change`. `shared` says whether another instance also needs a file.
pub(super) fn revert(netlink: &mut Netlink, change: &Change, shared: impl Fn(&Path) -> bool) -> Result<(), Error> {
    match change {
        Change::NftTable { table } => {
            run_nft("removing our table", &nft::delete_table(&super::settings::stand_in(table)))?;
            run_nft("removing our table", &nft::delete_table(table))
        }
        // It was never created, if that failed.
        Change::Directory { path } if !path.exists() => Ok(()),
        Change::Directory { path } => match fs::remove_dir(path) {
            // It is gone, or somebody else has put something there.
            Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                Err(Error::file(path, e))
            }
            _ => Ok(()),
        },
        Change::File { path, .. } if shared(path) => Ok(()),
        Change::File { path, content, old } => match (fs::read_to_string(path), old) {
            (Ok(current), Some(old)) if current == *content => write_if_different(path, old),
            (Ok(current), None) if current == *content => remove_if_there(path),
            _ => Ok(()),
        },
        Change::Sysctl { old: None, .. } => Ok(()),
        Change::Sysctl { path, value, old: Some(old), along } => {
            // Somebody else has changed it since: it is theirs now.
            if read_sysctl(path).is_none_or(|current| current != *value) {
                return Ok(());
            }
            write_sysctl(path, old)?;
            for (path, old) in along {
                if read_sysctl(path).is_some_and(|current| current != *old) {
                    write_sysctl(path, old)?;
                }
            }
            Ok(())
        }
        Change::Route { family, table, target, metric } => {
            netlink.delete_default_route(*family, *table, target, *metric)
        }
        Change::Rule { family, preference, mark, mask, table } => {
            netlink.delete_mark_rule(*family, *preference, *mark, *mask, *table)
        }
        Change::LocalRule { family, from, to } => {
            netlink.add_local_rule(*family, *from)?;
            netlink.delete_local_rule(*family, *to)
        }
        Change::ForeignPass { family, table, chain, comment, .. } => {
            match delete_commented((family, table, chain), comment) {
                Ok(commands) if commands.is_empty() => Ok(()),
                Ok(commands) => run_nft("removing our rules from a forward chain", &json!({"nftables": commands})),
                Err(Error::Nft { why, .. }) if why.contains("No such file or directory") => Ok(()),
                Err(error) => Err(error),
            }
        }
    }
}

/// Replaces our table. If that fails, the old one stays in force.
pub(super) fn replace_table(what: &'static str, ruleset: &Ruleset) -> Result<(), Error> {
    let [stand_in, table, end] = ruleset.replacement();
    let made = run_nft(what, &stand_in).and_then(|()| run_nft(what, &table));
    made.and(run_nft(what, &end))
}

/// Runs one transaction.
pub(super) fn run_nft(what: &'static str, transaction: &Value) -> Result<(), Error> {
    use nftables::helper::{DEFAULT_ARGS, DEFAULT_NFT, apply_ruleset_raw};
    // nft's own error output goes straight to our stderr: the crate does not capture it.
    apply_ruleset_raw(&transaction.to_string(), DEFAULT_NFT, DEFAULT_ARGS).map(drop).map_err(|e| nft_error(what, e))
}

/// Commands that delete the rules with our comment from another table's chain.
fn delete_commented((family, table, chain): (&str, &str, &str), comment: &str) -> Result<Vec<Value>, Error> {
    let listing = list_chain(family, table, chain)?;
    let objects = listing.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let ours = objects
        .filter_map(|object| object.get("rule"))
        .filter(|rule| rule.get("comment").and_then(Value::as_str) == Some(comment))
        .filter_map(|rule| rule.get("handle"));
    let delete = |handle: &Value| json!({"delete": {"rule": {"family": family, "table": table, "chain": chain, "handle": handle}}});
    Ok(ours.map(delete).collect())
}

fn write_if_different(path: &Path, content: &str) -> Result<(), Error> {
    if fs::read_to_string(path).is_ok_and(|current| current == content) {
        return Ok(());
    }
    fs::write(path, content).map_err(|source| Error::file(path, source))
}

/// The sysctls of an interface disappear with it.
fn write_sysctl(path: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(path);
    match fs::OpenOptions::new().write(true).open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(Error::Permission),
        opened => {
            let write = |mut file: fs::File| io::Write::write_all(&mut file, value.as_bytes());
            opened.and_then(write).map_err(|source| Error::file(path, source))
        }
    }
}
