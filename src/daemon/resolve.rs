//! Host names in selectors.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::selector::leaves_host;

/// How long one look-up may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Addresses of one name, at most.
const ADDRESSES_MAX: usize = 256;

/// Names and what they stand for outside of this host; empty where that could not be found out.
pub(super) type Resolved = Vec<(String, BTreeSet<IpAddr>)>;

/// Looks all `names` up, at the same time.
pub(super) async fn resolve(names: impl IntoIterator<Item = String>) -> Resolved {
    let mut lookups = JoinSet::new();
    for name in names {
        lookups.spawn(async move {
            let found = timeout(PATIENCE, lookup_host((name.clone(), 0))).await;
            let addresses = match found {
                // Many a host's own name stands for 127.0.1.1.
                Ok(Ok(addresses)) => addresses
                    .map(|address| address.ip().to_canonical())
                    .filter(|address| leaves_host(IpNet::from(*address)))
                    .take(ADDRESSES_MAX)
                    .collect(),
                Ok(Err(error)) => {
                    tracing::debug!("{name}: {error}");
                    BTreeSet::new()
                }
                Err(_) => BTreeSet::new(),
            };
            (name, addresses)
        });
    }
    lookups.join_all().await
}
