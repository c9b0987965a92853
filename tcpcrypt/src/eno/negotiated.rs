//! The result of the two SYN-form options.

use alloc::vec::Vec;

use super::option::SynOption;
use crate::tep::{Role, Tep};

/// What was negotiated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// This host's role (ENO-7).
    pub role: Role,
    /// The negotiated TEP.
    pub tep: Tep,
    /// The byte that B sent for it, v bit included.
    pub tep_byte: u8,
    /// The negotiation transcript (ENO-17).
    pub transcript: Vec<u8>,
}

impl Negotiated {
    /// This host's option and the peer's, parsed from the transcript.
    #[must_use]
    pub fn options(&self) -> Option<(SynOption<'_>, SynOption<'_>)> {
        let len = self.transcript.get(1).copied().map(usize::from)?;
        let (a, b) = self.transcript.split_at_checked(len)?;
        let (a, b) = (SynOption::parse(a).ok()?, SynOption::parse(b).ok()?);
        Some(match self.role {
            Role::A => (a, b),
            Role::B => (b, a),
        })
    }
}
