//! enotun that ENCRYPTS NOTHING, for scripts/bench: the whole command line and daemon, the same path, copies, frames and key
//! exchange, only that plaintext stands where the ciphertext belongs and a constant where the tag does. What enotun
//! costs without its cipher, and so what its cipher costs.
//!
//! It is an example program, so that no build of enotun has it in itself. `status` and the log say what it is. An enotun
//! refuses its frames as forged, and it those of an enotun.

use std::process::ExitCode;

use tcpcrypt::aead::{AeadId, AeadKey, NotAuthentic};
use tcpcrypt::constants::{AEAD_NONCE_LEN, TAG_LEN};
use tcpcrypt::kex::PrivateKey;
use tcpcrypt::{Error, Misuse, Provider, Tep};

const TAG: [u8; TAG_LEN] = *b"--NOT ENCRYPTED!";

struct PassThrough;

impl Provider for PassThrough {
    fn name(&self) -> &'static str {
        "NOBODY: A PASS-THROUGH FOR MEASURING, NOTHING IS ENCRYPTED"
    }

    fn aead(&self, id: AeadId, key: &[u8]) -> Result<Box<dyn AeadKey>, Error> {
        if key.len() != id.key_len() {
            return Err(Misuse::KeyLength.into());
        }
        Ok(Box::new(NoCipher))
    }

    fn private_key(&self, tep: Tep, bytes: &[u8]) -> Result<Option<Box<dyn PrivateKey>>, Error> {
        enotun::crypto::provider().private_key(tep, bytes)
    }
}

struct NoCipher;

impl AeadKey for NoCipher {
    // In place, as the trait has it: the copies are the caller's.
    fn seal(&self, _: &[u8; AEAD_NONCE_LEN], _: &[u8], _: &mut [u8]) -> [u8; TAG_LEN] {
        TAG
    }

    fn open(&self, _: &[u8; AEAD_NONCE_LEN], _: &[u8], _: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), NotAuthentic> {
        if *tag == TAG { Ok(()) } else { Err(NotAuthentic) }
    }
}

fn main() -> ExitCode {
    eprintln!("passthrough: for measuring; it ENCRYPTS NOTHING");
    enotun::cli::main_with(&PassThrough)
}
