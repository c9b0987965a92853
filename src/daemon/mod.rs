//! The daemon: its configuration, its control socket and its life. Packets are not handled here but by the worker
//! thread that [`crate::io`] runs; this is the control plane, on a runtime of one thread.

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

/// Runs the daemon until it is told to end, with the cryptography of `provider`.
///
/// # Errors
/// What kept it from coming up (nothing is left changed then), or why it ended.
pub fn run(settings: Settings, provider: &'static dyn tcpcrypt::Provider) -> anyhow::Result<()> {
    let log = log::Log::start(&settings.log).map_err(anyhow::Error::msg)?;
    // Before there is anything secret.
    if let Swapping::Possible(why) = keep_off_disk().context("cannot disable core dumps, which would contain keys")?
        && KeyLog::may_be_swapped()
    {
        tracing::warn!("keys may be swapped to disk: memory is not locked, {why}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(life::live(settings, log, provider));
    // A look-up of a host name may still hang in a thread of its own; do not wait for it.
    runtime.shutdown_background();
    result
}
