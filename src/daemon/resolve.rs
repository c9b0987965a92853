//! Host names in selectors.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::selector::leaves_host;

/// Timeout of one lookup.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of addresses of a name.
const ADDRESSES_MAX: usize = 256;

/// Names and their addresses outside this host; empty if they could not be resolved.
pub(super) type Resolved = Vec<(String, BTreeSet<IpAddr>)>;

/// Resolves all `names` concurrently.
pub(super) async fn resolve(names: impl IntoIterator<Item = String>) -> Resolved {
    let mut lookups = JoinSet::new();
    for name in names {
        lookups.spawn(async move {
            let found = timeout(TIMEOUT, lookup_host((name.clone(), 0))).await;
            let addresses = match found {
                // Many a host's own name resolves to 127.0.1.1.
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
