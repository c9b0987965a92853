//! The exit of an encrypted connection's packets: the only place that carries out [`Action`]s, once the state is
//! decided.

use tcpcrypt::eno::option::NON_SYN_OPTION;
use tcpcrypt::{Acceptable, AckPhase};

use super::action::{Action, Bare, Cut, SackBlocks};
use super::outcome::{AbortReason, Outcome};
use super::portion::Portion;
use super::receiver::Receiver;
use super::sender::Sender;
use crate::flow::clocks::Clocks;
use crate::flow::context::Context;
use crate::flow::env::{Env, Side};
use crate::flow::frames::MAX_PIECES;
use crate::flow::link::Link;
use crate::time::Instant;
use crate::wire::build::TcpFields;
use crate::wire::options::{OptionBuf, Timestamps};
use crate::wire::{C, Flags, Offset, P, Segment};

/// Properties of all packets of a connection.
pub(super) struct Emitter {
    link: Link,
    clocks: Option<Clocks>,
    phase: AckPhase,
    /// Both ends permit SACK.
    sack: bool,
}

impl Emitter {
    pub(super) fn new(link: Link, clocks: Option<Clocks>, phase: AckPhase, sack: bool) -> Self {
        Self { link, clocks, phase, sack }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn clocks(&self) -> Option<&Clocks> {
        self.clocks.as_ref()
    }

    /// Notes what a packet from `side` looks like.
    pub(super) fn learn<S>(&mut self, side: Side, segment: &Segment<'_, S>) {
        self.link.learn(side, segment);
    }

    /// Takes in the timestamps of the local kernel.
    pub(super) fn note_kernel(&mut self, timestamps: Option<Timestamps>, now: Instant) {
        if let (Some(clocks), Some(ts)) = (&mut self.clocks, timestamps) {
            clocks.from_kernel(ts, now);
        }
    }

    /// Takes in timestamps and ENO option of an acceptable segment of the peer's; `in_order`: it begins at or before the last
    /// acknowledgement.
    pub(super) fn note_peer(&mut self, timestamps: Option<Timestamps>, eno: bool, in_order: bool, now: Instant) {
        let _ = self.phase.received(Acceptable::non_syn(eno));
        if let (Some(clocks), Some(ts)) = (&mut self.clocks, timestamps) {
            clocks.from_peer(ts, in_order, now);
        }
    }

    /// Bytes of TCP options in a segment with data to the peer.
    pub(super) fn options_len(&self) -> usize {
        self.wire_options().padded().len()
    }

    /// The options of a segment to the wire: ENO where it must be (ENO-12), and timestamps.
    fn wire_options(&self) -> OptionBuf {
        let mut options = OptionBuf::default();
        let mut fits = true;
        if let Some(clocks) = self.clocks {
            fits &= options.push_timestamps(clocks.to_wire());
        }
        if self.phase.must_carry() {
            fits &= options.push(&NON_SYN_OPTION);
        }
        debug_assert!(fits, "timestamps and an empty ENO option are 14 bytes");
        options
    }

    /// The options of a segment to the local kernel.
    fn plain_options(&self) -> OptionBuf {
        let mut options = OptionBuf::default();
        if let Some(clocks) = self.clocks {
            let fits = options.push_timestamps(clocks.to_plain());
            debug_assert!(fits, "timestamps are 12 bytes");
        }
        options
    }

    fn push_sack(&self, options: &mut OptionBuf, sack: &SackBlocks) {
        if self.sack {
            options.push_sack(sack.as_slice());
        }
    }

    /// Carries out what is noted in `cx`, in order but for bare segments, and acknowledges what is owed an acknowledgement and has none.
    pub(super) fn carry_out(&mut self, cx: &mut Context<'_>, tx: &mut Sender, rx: &mut Receiver) -> Outcome {
        if cx.actions.acknowledgement_is_owed() {
            cx.counters.own_segments += 1;
            cx.actions.push(Action::ACKNOWLEDGE_PEER);
        }
        let actions = cx.actions.take();
        let mut outcome = Ok(());
        // A bare segment has the number of what comes next, so that it leaves behind what is sent.
        for bare in [false, true] {
            for action in actions.iter().filter(|action| action.is_bare() == bare) {
                outcome = outcome.and(self.carry_out_one(cx.env, action, tx, rx));
            }
        }
        cx.actions.give_back(actions);
        outcome
    }

    fn carry_out_one(&mut self, env: &mut dyn Env, action: &Action, tx: &mut Sender, rx: &mut Receiver) -> Outcome {
        match *action {
            Action::Send { from, to, cut, flags } => return self.send(env, tx, rx, (from, to), cut, flags),
            Action::TellPeer { bare, flags } => self.tell_peer(env, tx, rx, bare, flags),
            Action::ResetPeer => self.tell_peer(env, tx, rx, Bare::Next, Flags::RST),
            Action::Deliver { from, to, flags, congested } => {
                if congested {
                    self.link.mark_congested();
                }
                return self.deliver(env, tx, rx, (from, to), flags);
            }
            Action::TellKernel { bare, flags, sack } => self.tell_kernel(env, tx, rx, bare, flags, &sack),
            Action::ResetKernel => self.tell_kernel(env, tx, rx, Bare::Next, Flags::RST, &SackBlocks::default()),
        }
        Ok(())
    }

    /// Sends a segment without data to the peer.
    fn tell_peer(&mut self, env: &mut dyn Env, tx: &Sender, rx: &mut Receiver, bare: Bare, flags: Flags) {
        let mut options = self.wire_options();
        let sack = rx.take_sack();
        if !flags.any(Flags::RST) {
            self.push_sack(&mut options, &sack);
        }
        let (ack, window) = rx.advertise();
        let seq = match bare {
            Bare::Next => tx.acceptable_seq(),
            Bare::Probe => tx.probe_seq(),
        };
        let tcp =
            TcpFields { seq: seq.0, ack, flags: flags.with(Flags::ACK), window, urgent: 0, options: options.padded() };
        self.link.emit(env, Side::Wire, &tcp, &[], None);
        self.phase.sent_ack();
    }

    /// Sends a segment without data to the local kernel.
    fn tell_kernel(
        &mut self,
        env: &mut dyn Env,
        tx: &mut Sender,
        rx: &Receiver,
        bare: Bare,
        flags: Flags,
        sack: &SackBlocks,
    ) {
        let mut options = self.plain_options();
        self.push_sack(&mut options, sack);
        let (ack, window) = tx.advertise();
        let seq = match bare {
            Bare::Next => rx.acceptable_seq(),
            Bare::Probe => rx.probe_seq(),
        };
        let tcp =
            TcpFields { seq: seq.0, ack, flags: flags.with(Flags::ACK), window, urgent: 0, options: options.padded() };
        self.link.emit(env, Side::Plain, &tcp, &[], None);
    }

    /// Sends bytes of the stream to the peer, and the FIN if the range has it.
    fn send(
        &mut self,
        env: &mut dyn Env,
        tx: &Sender,
        rx: &mut Receiver,
        (from, to): (Offset<C>, Offset<C>),
        cut: Cut,
        flags: Flags,
    ) -> Outcome {
        let (ack, window) = rx.advertise();
        let options = self.wire_options();
        let options = options.padded();
        let max = self.link.max_payload(options.len());
        // Both ends may announce a larger MSS than a packet can have.
        let segment = tx.segment(cut, options.len()).min(max);
        let max = max / segment * segment;
        let gso = u16::try_from(segment).ok();
        let mut at = from;
        while at < to {
            let mut slices = [&[][..]; MAX_PIECES];
            let portion = tx.portion((at, to), max, flags, &mut slices).ok_or_else(nothing_there)?;
            let Portion { seq, mut flags, urgent, data, next } = portion;
            if at > from {
                flags = flags.without(Flags::CWR);
            }
            let tcp = TcpFields { seq: seq.0, ack, flags, window, urgent, options };
            self.link.emit(env, Side::Wire, &tcp, data, gso);
            at = next;
        }
        self.phase.sent_ack();
        Ok(())
    }

    /// Sends plaintext to the local kernel, and the FIN if the range has it.
    fn deliver(
        &mut self,
        env: &mut dyn Env,
        tx: &mut Sender,
        rx: &Receiver,
        (from, to): (Offset<P>, Offset<P>),
        flags: Flags,
    ) -> Outcome {
        let (ack, window) = tx.advertise();
        let options = self.plain_options();
        let options = options.padded();
        let max = self.link.max_payload(options.len());
        let mut at = from;
        while at < to {
            let mut slices = [&[][..]; MAX_PIECES];
            let portion = rx.portion((at, to), max, flags, &mut slices).ok_or_else(nothing_there)?;
            let Portion { seq, flags, urgent, data, next } = portion;
            let tcp = TcpFields { seq: seq.0, ack, flags, window, urgent, options };
            self.link.emit(env, Side::Plain, &tcp, data, Some(rx.segment()));
            at = next;
        }
        Ok(())
    }
}

/// What is to be sent is not there.
fn nothing_there() -> AbortReason {
    debug_assert!(false, "what is to be sent is stored");
    AbortReason::Internal
}
