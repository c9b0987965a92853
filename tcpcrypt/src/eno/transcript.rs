//! The negotiation transcript (ENO-17, RFC 8547, section 4.8).

use alloc::vec::Vec;

use crate::tep::Role;

/// A's SYN-form option followed by B's, both with kind and length, as they were sent. `own` is the option of
/// the host that has `role`.
#[must_use]
pub fn transcript(role: Role, own: &[u8], peer: &[u8]) -> Vec<u8> {
    match role {
        Role::A => [own, peer].concat(),
        Role::B => [peer, own].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eno_17_a_comes_first_whoever_asks() {
        assert_eq!(transcript(Role::A, &[69, 3, 0x23], &[69, 4, 1, 0x23]), [69, 3, 0x23, 69, 4, 1, 0x23]);
        assert_eq!(transcript(Role::B, &[69, 4, 1, 0x23], &[69, 3, 0x23]), [69, 3, 0x23, 69, 4, 1, 0x23]);
    }
}
