//! The key exchange on an open connection, and the first segments.

use super::Encrypted;
use crate::flow::connection::action::{Action, Cut, SackBlocks};
use crate::flow::connection::keys::{Identity, NoKeys};
use crate::flow::connection::outcome::{AbortReason, Exchange, Next, Outcome};
use crate::flow::context::Context;
use crate::wire::{Flags, P, Segment};

impl Encrypted {
    /// Processes the kernel's first segment after its SYN, with which the connection begins. If it begins with Init1,
    /// the kernel's acknowledgement of the SYN-ACK goes out with that.
    pub(crate) fn begin_with(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, P>) -> Next {
        if !self.keys.awaits_init2() {
            return self.from_kernel(cx, segment);
        }
        let _nothing_was_delivered = self.receiver.note_kernel(cx, segment.ack, segment.window);
        self.begin_sending(cx)
    }

    /// Both SYNs of a simultaneous open are acknowledged. The kernel's SYN-ACK may be lost, and is not retransmitted.
    pub(crate) fn begin_crossed(&mut self, cx: &mut Context<'_>) -> Next {
        cx.actions.push(Action::ACKNOWLEDGE_KERNEL);
        self.begin_sending(cx)
    }

    /// Sends what there is, or else an acknowledgement.
    fn begin_sending(&mut self, cx: &mut Context<'_>) -> Next {
        cx.actions.owe_acknowledgement();
        let outcome = self.sender.flush(cx, self.keys.record(), Cut::Path, Flags::PSH);
        self.conclude(cx, outcome.map(|()| Next::Stay))
    }

    /// Exchanges keys, now that it is this connection's turn, and opens what came after the peer's Init message.
    pub(crate) fn exchange_keys(&mut self, cx: &mut Context<'_>) -> Next {
        self.exchange = Exchange::None;
        let Some(message) = self.receiver.init_message(self.keys.negotiated().role.other()) else { return Next::Stay };
        let before = self.before();
        let outcome = self.make_keys(cx, &message).and_then(|()| {
            self.pass_on(cx, &before, SackBlocks::default(), false, Flags::default())?;
            Ok(Next::Stay)
        });
        self.conclude(cx, outcome)
    }

    /// Makes keys with the peer's Init message.
    fn make_keys(&mut self, cx: &mut Context<'_>, message: &[u8]) -> Outcome {
        let identity = Identity { key: self.key(), local_isn: self.sender.isn(), peer_isn: self.receiver.isn() };
        match self.keys.finish(cx, &identity, message) {
            Ok(init2) => {
                if let Some(init2) = init2 {
                    self.sender.push_own(init2);
                    cx.counters.own_segments += 1;
                }
                // The kernel was told a window of zero until now.
                self.sender.keys_are_there();
                cx.actions.push(Action::ACKNOWLEDGE_KERNEL);
                self.receiver.note_init(message.len());
                self.receiver.take_waiting(cx, self.keys.opener())
            }
            Err(NoKeys::Refused(why)) => {
                let progress = self.receiver.reject_init(cx, why, message.len())?;
                self.receiver.settle(cx, progress);
                Ok(())
            }
            Err(NoKeys::Failed(why)) => Err(AbortReason::KeyExchange(why)),
            Err(NoKeys::Unasked) => Ok(()),
        }
    }
}
