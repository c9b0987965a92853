//! What systemd is told (`Type=notify`). Without systemd all of this does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// Says that connections are protected now.
pub(super) fn ready() {
    send(&[NotifyState::Ready]);
}

/// Says that the daemon is coming down.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`.
pub(super) fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// Says that all is well, to the watchdog.
pub(super) fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// How often [`alive`] is expected, if it is: half of what the watchdog allows.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|allowed| allowed / 2)
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("cannot notify systemd: {error}");
    }
}
