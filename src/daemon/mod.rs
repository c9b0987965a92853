//! The daemon: configuration, control socket and life cycle. This is the control plane, on a single-threaded runtime;
//! packets are handled by the worker thread in [`crate::io`].

mod alerts;
pub mod config;
pub mod control;
pub mod diagnosis;
pub mod instance;
mod life;
pub mod log;
mod notify;
mod probe;
pub mod protocol;
mod requests;
mod resolve;
pub mod selectors;
pub mod settings;
mod state;
pub mod status;

use anyhow::Context as _;
use settings::Settings;

use crate::io::KeyLog;
use crate::io::memory::{Swapping, keep_off_disk};

/// Runs the daemon until it is told to stop, with the cryptography of `provider`.
///
/// # Errors
/// Why it did not come up (all changes are undone then), or why it ended.
pub fn run(settings: Settings, provider: &'static dyn tcpcrypt::Provider) -> anyhow::Result<()> {
    let log = log::Log::start(&settings.log).map_err(anyhow::Error::msg)?;
    // Before there are any secrets.
    if let Swapping::Possible(why) = keep_off_disk().context("cannot disable core dumps, which would contain keys")?
        && KeyLog::may_be_swapped()
    {
        tracing::warn!("keys may be swapped to disk: memory is not locked, {why}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(life::live(settings, log, provider));
    // A name lookup may still hang in its thread; do not wait for it.
    runtime.shutdown_background();
    result
}
