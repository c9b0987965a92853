//! Notifications to systemd (`Type=notify`). Without systemd, nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;

/// Ready: connections are protected now.
pub(super) fn ready() {
    send(&[NotifyState::Ready]);
}

/// The daemon is shutting down.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`.
pub(super) fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// Tells the watchdog that all is well.
pub(super) fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// How often [`alive`] must be called, if at all: half of the watchdog's timeout.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|allowed| allowed / 2)
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("cannot notify systemd: {error}");
    }
}
