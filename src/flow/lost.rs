//! What one end tells the other in a RST, when they do not agree whether the connection is encrypted.

/// Which of the peer's ENO options was lost on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LostOption {
    /// The peer's SYN came without an ENO option, and yet it takes one for agreed.
    Syn,
    /// The peer's first acknowledgement came without it.
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

    /// What a RST with this payload says. It is as easily forged as the RST.
    pub(crate) fn said(payload: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|lost| lost.text() == payload)
    }
}
