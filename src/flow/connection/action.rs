//! The effects of a packet or a timer, as values: the sender, the receiver and the connection record them, and
//! [`super::emit`] carries them out once the state is decided. The list also shows, while a packet is handled,
//! whether the peer or the kernel will get a segment anyway.

use crate::wire::{C, Flags, Offset, P};

/// The size of the segments that something is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The size that the path takes according to the kernel's super-packets.
    Path,
    /// This many bytes of payload, if the peer's MSS allows.
    At(usize),
}

/// The sequence number of a segment without data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bare {
    /// One that its receiver accepts.
    Next,
    /// One from before what it has acknowledged, so that it answers (RFC 9293, section 3.8.4).
    Probe,
}

/// SACK blocks in the kernel's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SackBlocks {
    blocks: [(u32, u32); 4],
    len: usize,
}

impl SackBlocks {
    /// Adds a block, if there is room for one.
    pub(super) fn push(&mut self, block: (u32, u32)) {
        if let Some(slot) = self.blocks.get_mut(self.len) {
            *slot = block;
            self.len += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn as_slice(&self) -> &[(u32, u32)] {
        &self.blocks[..self.len]
    }
}

/// One action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Bytes of the stream to the peer, and the FIN if the range has it.
    Send { from: Offset<C>, to: Offset<C>, cut: Cut, flags: Flags },
    /// A segment without data for the peer.
    TellPeer { bare: Bare, flags: Flags },
    /// A RST for the peer.
    ResetPeer,
    /// Plaintext for the local kernel, and the FIN if the range has it. `congested`: a router has marked what it came in.
    Deliver { from: Offset<P>, to: Offset<P>, flags: Flags, congested: bool },
    /// A segment without data for the local kernel.
    TellKernel { bare: Bare, flags: Flags, sack: SackBlocks },
    /// A RST for the local kernel.
    ResetKernel,
}

impl Action {
    /// The local kernel is told what is acknowledged, and its window.
    pub(super) const ACKNOWLEDGE_KERNEL: Self =
        Self::TellKernel { bare: Bare::Next, flags: Flags(0), sack: SackBlocks { blocks: [(0, 0); 4], len: 0 } };
    /// The local kernel is asked what it has, and whether it is there.
    pub(super) const PROBE_KERNEL: Self =
        Self::TellKernel { bare: Bare::Probe, flags: Flags(0), sack: SackBlocks { blocks: [(0, 0); 4], len: 0 } };
    /// The peer is told what is acknowledged, and its window.
    pub(super) const ACKNOWLEDGE_PEER: Self = Self::TellPeer { bare: Bare::Next, flags: Flags(0) };

    /// Whether it is a segment without data that has the number of what its receiver gets next.
    pub(super) fn is_bare(&self) -> bool {
        matches!(self, Self::TellPeer { bare: Bare::Next, .. } | Self::TellKernel { bare: Bare::Next, .. })
    }

    /// The peer is asked what it has, and whether it is there.
    pub(super) fn probe_peer(flags: Flags) -> Self {
        Self::TellPeer { bare: Bare::Probe, flags: flags.without(Flags::PSH) }
    }
}

/// All effects of one packet or timer, in order.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    list: Vec<Action>,
    /// The peer must be told what is acknowledged, unless another segment does so.
    owed: bool,
}

impl Actions {
    /// Whether nothing is to be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty() && !self.owed
    }

    pub(super) fn push(&mut self, action: Action) {
        self.list.push(action);
    }

    /// Notes that the peer has to hear what is acknowledged: with what goes to it anyway, or alone.
    pub(super) fn owe_acknowledgement(&mut self) {
        self.owed = true;
    }

    /// Whether the peer has to hear what is acknowledged and nothing tells it. A probe is answered, and nothing else in it
    /// believed.
    pub(super) fn acknowledgement_is_owed(&self) -> bool {
        self.owed && !self.tells_peer()
    }

    /// Whether something tells the peer what is acknowledged.
    pub(super) fn tells_peer(&self) -> bool {
        self.list.iter().any(|action| matches!(action, Action::Send { .. } | Action::TellPeer { bare: Bare::Next, .. }))
    }

    /// Whether something tells the local kernel what is acknowledged.
    pub(super) fn tells_kernel(&self) -> bool {
        self.list.iter().any(|action| matches!(action, Action::Deliver { .. } | Action::TellKernel { .. }))
    }

    /// The list, to be carried out; [`Self::give_back`] is to follow.
    pub(super) fn take(&mut self) -> Vec<Action> {
        self.owed = false;
        std::mem::take(&mut self.list)
    }

    /// Takes the memory of a list that was carried out.
    pub(super) fn give_back(&mut self, mut list: Vec<Action>) {
        list.clear();
        self.list = list;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEND: Action = Action::Send { from: Offset::START, to: Offset::START, cut: Cut::Path, flags: Flags(0) };

    #[test]
    fn an_acknowledgement_that_is_owed_goes_with_what_tells_the_peer_anyway() {
        let mut actions = Actions::default();
        assert!(!actions.acknowledgement_is_owed());
        actions.owe_acknowledgement();
        assert!(actions.acknowledgement_is_owed());
        actions.push(Action::probe_peer(Flags::default()));
        actions.push(Action::ACKNOWLEDGE_KERNEL);
        assert!(actions.acknowledgement_is_owed(), "a probe tells the peer nothing");
        for telling in [SEND, Action::ACKNOWLEDGE_PEER] {
            let mut actions = Actions::default();
            actions.owe_acknowledgement();
            actions.push(telling);
            assert!(!actions.acknowledgement_is_owed(), "{telling:?}");
        }
    }

    #[test]
    fn what_tells_the_kernel_is_known_from_the_list() {
        let deliver = Action::Deliver { from: Offset::START, to: Offset::START, flags: Flags(0), congested: false };
        for (action, tells) in [(SEND, false), (Action::ACKNOWLEDGE_KERNEL, true), (deliver, true)] {
            let mut actions = Actions::default();
            actions.push(action);
            assert_eq!(actions.tells_kernel(), tells, "{action:?}");
        }
    }

    #[test]
    fn a_list_that_was_carried_out_leaves_nothing_but_its_memory() {
        let mut actions = Actions::default();
        actions.owe_acknowledgement();
        actions.push(SEND);
        let list = actions.take();
        let memory = list.as_ptr();
        assert_eq!(list, [SEND]);
        actions.give_back(list);
        assert!(!actions.acknowledgement_is_owed() && !actions.tells_peer());
        actions.push(Action::ACKNOWLEDGE_PEER);
        let list = actions.take();
        assert_eq!(list.as_ptr(), memory);
    }

    #[test]
    fn no_more_sack_blocks_are_kept_than_fit_an_option() {
        let mut sack = SackBlocks::default();
        assert!(sack.is_empty());
        (0..9).for_each(|n| sack.push((n, n + 1)));
        assert_eq!(sack.as_slice(), [(0, 1), (1, 2), (2, 3), (3, 4)]);
    }
}
