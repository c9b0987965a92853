//! What one end tells the other in a RST when they disagree whether the connection is encrypted.

/// Which of the peer's ENO options was lost in transit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LostOption {
    /// The peer's SYN arrived without an ENO option, and yet it assumes an agreement.
    Syn,
    /// The peer's first acknowledgement arrived without it.
    Ack,
}

impl LostOption {
    const ALL: [Self; 2] = [Self::Syn, Self::Ack];

    pub(super) fn text(self) -> &'static [u8] {
        match self {
            Self::Syn => b"tcpcrypt: your SYN came without ENO",
            Self::Ack => b"tcpcrypt: your ACK came without ENO",
        }
    }

    /// The meaning of a RST's payload. It is as easily forged as the RST.
    pub(crate) fn said(payload: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|lost| lost.text() == payload)
    }
}
