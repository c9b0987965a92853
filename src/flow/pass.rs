//! Packets that are passed on unchanged, with one exception: data in a SYN with an ENO option is removed, even where
//! nothing is encrypted (ENO-16).

use tcpcrypt::eno::option::find_syn;

use super::env::{Env, Side};
use super::link::Link;
use super::opening::strip_eno;
use crate::wire::FlowKey;
use crate::wire::build::TcpFields;
use crate::wire::{Flags, Segment};

/// Sends a packet that was read on `from` on the other side.
pub(crate) fn pass_on<S>(env: &mut dyn Env, from: Side, packet: &Segment<'_, S>) {
    let has_syn_data = from == Side::Wire && packet.flags.any(Flags::SYN) && !packet.payload.is_empty();
    if !has_syn_data || !find_syn(packet.options()).discards_data() {
        env.forward(from.other(), packet.offload(), packet.bytes());
        return;
    }
    let mut link = Link::new(FlowKey::new(packet.dst, packet.src));
    link.learn(from, packet);
    let options = strip_eno(packet.options());
    let tcp = TcpFields {
        seq: packet.seq.0,
        ack: packet.ack.0,
        flags: packet.flags,
        window: packet.window,
        urgent: 0,
        options: options.padded(),
    };
    link.emit(env, from.other(), &tcp, &[], None);
}
