//! What the local kernel sees of the peer's SYN or SYN-ACK: no ENO, and an MSS that leaves room for what a frame
//! adds.

use tcpcrypt::frame::OVERHEAD;

use crate::wire::Flags;
use crate::wire::mss::payload_room;
use crate::wire::options::{self, OptionBuf, kind};

/// The largest MSS that this host's own packets can have: what fits the network, and what the local kernel announces
/// of its own link, if it has said so.
pub(super) fn largest_mss(is_v6: bool, wire_mtu: Option<u16>, by_kernel: Option<u16>) -> u16 {
    let headers = if is_v6 { 60 } else { 40 };
    let by_mtu = wire_mtu.map_or(u16::MAX, |mtu| mtu.saturating_sub(headers));
    by_mtu.min(by_kernel.unwrap_or(u16::MAX))
}

/// The MSS of an end that names none (RFC 9293, section 3.7.1).
pub(super) fn default_mss(is_v6: bool) -> u16 {
    if is_v6 { 1220 } else { 536 }
}

/// The peer's options `area` as the local kernel gets to see them: without ENO, the MSS lowered by what a frame adds. `most`: see
/// [`largest_mss`]. The kernel would fill its own interface, with no room for frames, if the peer's takes more.
pub(super) fn for_kernel(area: &[u8], is_v6: bool, most: u16) -> OptionBuf {
    #[expect(clippy::cast_possible_truncation, reason = "20 bytes")]
    let lowered = |mss: u16| (payload_room(mss.min(most).into(), OVERHEAD) as u16).to_be_bytes();
    let mut options = OptionBuf::default();
    let mut has_mss = false;
    let mut fits = true;
    for (k, option) in options::walk(area) {
        match k {
            kind::MSS => {
                // Of another length it is none, as kernels see it.
                if let &[_, _, high, low] = option {
                    let [high, low] = lowered(u16::from_be_bytes([high, low]));
                    fits &= options.push(&[kind::MSS, 4, high, low]);
                    has_mss = true;
                }
            }
            k if does_not_go_beside_eno(k, option) => {}
            _ => fits &= options.push(option),
        }
    }
    debug_assert!(fits, "nothing longer was put in than was taken out");
    if !has_mss {
        let [high, low] = lowered(default_mss(is_v6));
        // A SYN that is full with an ENO option of three bytes has no room for it. The kernel then sends more than fits
        // into a frame's segment, which is cut.
        let _ = options.push(&[kind::MSS, 4, high, low]);
    }
    options
}

/// Whether it is ENO's, its predecessor's, or Fast Open's (ENO-16, ENO-20).
fn does_not_go_beside_eno(kind: u8, option: &[u8]) -> bool {
    options::is_fast_open(kind, option) || options::is_eno_or_its_predecessor(kind, option)
}

/// The options of a TCP header without padding, and without what does not go beside ENO (ENO-16, ENO-20).
pub(crate) fn strip_eno(area: &[u8]) -> OptionBuf {
    let mut rest = OptionBuf::default();
    let kept = options::walk(area).filter(|(k, option)| !does_not_go_beside_eno(*k, option));
    let fits = kept.fold(true, |fits, (_, option)| fits & rest.push(option));
    debug_assert!(fits, "a part of an option area fits one");
    rest
}

/// The flags of a peer's SYN or SYN-ACK as the local kernel gets to see them on a connection with ENO: no AccECN (RFC 9768),
/// whose counters of packets and bytes would not be those of the kernel's own segments. A SYN then asks for ECN as in RFC
/// 3168; a SYN-ACK that grants AccECN grants nothing, and the peer sees a counter of zero, which it takes for none (section 3.2.2.4).
pub(super) fn without_accurate_ecn(flags: Flags) -> Flags {
    let classic = flags.without(Flags::AE);
    let grants = flags.any(Flags::ACK) && flags.any(Flags::CWR.with(Flags::AE));
    if grants { classic.without(Flags::ECE.with(Flags::CWR)) } else { classic }
}
