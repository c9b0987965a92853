//! The timers of an encrypted connection.

use std::time::Duration;

use super::{Activity, Encrypted};
use crate::flow::connection::action::Action;
use crate::flow::connection::outcome::{AbortReason, Next, Outcome};
use crate::flow::connection::timer::Timer;
use crate::flow::context::Context;
use crate::time::Instant;

/// A connection without packets for this long is idle: a short time, so that few of many newly opened ones are large.
const REST_AFTER: Duration = Duration::from_millis(250);

/// After this long without packets the local kernel is queried whether it still knows the connection (as long as
/// Linux waits before its own keep-alives).
const ASK_AFTER: Duration = Duration::from_secs(2 * 3600);

impl Encrypted {
    /// The table of deadlines.
    fn deadline(&self, timer: Timer) -> Option<Instant> {
        match timer {
            Timer::KeyExchange => self.keys.deadline(),
            Timer::Idle => match self.activity {
                Activity::Busy { since } => Some(since + REST_AFTER),
                Activity::Idle { .. } => None,
            },
            Timer::KernelLiveness => match self.activity {
                Activity::Busy { .. } => None,
                Activity::Idle { ask_at } => Some(ask_at),
            },
            Timer::OwnFrames => self.sender.retransmit_at(),
            Timer::PartialFrame => self.receiver.acknowledge_part_at(),
            Timer::Held => self.receiver.held_until(),
            Timer::Redeliver => self.receiver.redeliver_at(),
        }
    }

    /// When [`Self::handle_timeout`] should be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        Timer::ALL.into_iter().filter_map(|timer| self.deadline(timer)).min()
    }

    /// Handles what is due.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) -> Next {
        let outcome = self.handle_timers(cx);
        self.conclude(cx, outcome.map(|()| Next::Stay))
    }

    fn handle_timers(&mut self, cx: &mut Context<'_>) -> Outcome {
        for timer in Timer::ALL {
            if self.deadline(timer).is_none_or(|due| due > cx.now) {
                continue;
            }
            match timer {
                Timer::KeyExchange => return Err(AbortReason::Timeout),
                Timer::Idle => self.rest(),
                Timer::KernelLiveness => self.ask_kernel(cx),
                Timer::OwnFrames => self.sender.handle_timeout(cx)?,
                Timer::PartialFrame => self.receiver.handle_partial_frame(cx),
                Timer::Held => self.receiver.expire_waiting(cx),
                Timer::Redeliver => self.receiver.handle_redelivery(cx)?,
            }
        }
        Ok(())
    }

    /// Releases memory that only a busy connection needs: most of many connections are idle.
    fn rest(&mut self) {
        if let Activity::Busy { since } = self.activity {
            self.activity = Activity::Idle { ask_at: since + ASK_AFTER };
        }
        self.keys.rest();
        self.sender.shrink();
        self.receiver.shrink();
    }

    /// Sockets can vanish silently: the kernel is queried, and answers with a RST if it has none.
    fn ask_kernel(&mut self, cx: &mut Context<'_>) {
        self.activity = Activity::Idle { ask_at: cx.now + ASK_AFTER };
        cx.counters.own_segments += 1;
        cx.actions.push(Action::PROBE_KERNEL);
    }
}
