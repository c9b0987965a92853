//! Every number that RFC 8547 and RFC 8548 fix, and the bounds that this implementation chose.

/// TCP option kind of ENO (ENO-1).
pub const ENO_KIND: u8 = 69;
/// First bytes of Init1 (TC-3).
pub const INIT1_MAGIC: u32 = 0x1510_1a0e;
/// First bytes of Init2 (TC-3).
pub const INIT2_MAGIC: u32 = 0x0971_05e0;

/// Derives the next session secret (TC-7).
pub(crate) const CONST_NEXTK: u8 = 0x01;
/// Derives the session ID (TC-10).
pub(crate) const CONST_SESSID: u8 = 0x02;
/// Derives a master key from its predecessor (TC-8).
pub(crate) const CONST_REKEY: u8 = 0x03;
/// Derives the keys that the original A encrypts with (TC-9).
pub(crate) const CONST_KEY_A: u8 = 0x04;
/// Derives the keys that the original B encrypts with (TC-9).
pub(crate) const CONST_KEY_B: u8 = 0x05;
/// Derives the resumption identifier (TC-12).
pub(crate) const CONST_RESUME: u8 = 0x06;

/// Length of N_A and N_B in Init messages.
pub const NONCE_LEN: usize = 32;
/// Length of every secret in the key schedule (K_LEN, and the PRK of HMAC-SHA256).
pub const SECRET_LEN: usize = 32;
/// Length of a session ID: the TEP byte and K_LEN bytes (TC-10).
pub const SESSION_ID_LEN: usize = 33;
/// Length of one host's half of a resumption identifier (TC-12).
pub const RESUME_HALF_LEN: usize = 9;
/// Longest nonce in a resumption suboption (TC-13).
pub const RESUME_NONCE_MAX: usize = 8;
/// Length of the nonce of every AEAD here.
pub const AEAD_NONCE_LEN: usize = 12;
/// Length of the tag of every AEAD here.
pub const TAG_LEN: usize = 16;
/// Length of a [`KeyFingerprint`](crate::schedule::KeyFingerprint).
pub const FINGERPRINT_LEN: usize = 16;
/// Longest key of an AEAD here.
pub const AEAD_KEY_MAX: usize = 32;

/// Chosen here: the longest Init message that is accepted (docs/readings.md, reading 10).
pub const MAX_INIT_LEN: usize = 64 * 1024;
