//! The key log: a file with the keys of each encrypted connection, to decrypt captures while debugging. Only on
//! explicit request, and only in memory: session secrets never go to non-volatile storage (TC-21). docs/debugging.md
//! has the format.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fstatfs};
use zeroize::Zeroizing;

use crate::engine::ConnectionKeys;

/// `f_type` of file systems that live in memory (linux/magic.h): tmpfs, ramfs.
const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];

/// Why there is no key log.
#[derive(Debug, thiserror::Error)]
pub enum KeyLogError {
    /// The file cannot be created.
    #[error("cannot create the key log {}: {error}{}", path.display(), hint(error))]
    Create {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It would be on a disk.
    #[error(
        "{} is not in memory, and keys never go to non-volatile storage (TC-21); name a file on a tmpfs, such as /dev/shm or /run",
        .0.display()
    )]
    NotInMemory(PathBuf),
}

fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AlreadyExists { "; remove it first, or name another" } else { "" }
}

/// An open key log, readable by its owner only.
#[derive(Debug)]
pub struct KeyLog {
    path: PathBuf,
    /// `None` after an error: a gap in the log must not go unnoticed.
    file: Option<File>,
    written: bool,
}

impl Drop for KeyLog {
    /// A daemon that did not come up leaves nothing behind.
    fn drop(&mut self) {
        if !self.written {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl KeyLog {
    /// Creates a new file at `path`.
    ///
    /// # Errors
    /// If it exists already, cannot be created, or would not be in memory. Nothing is left behind then.
    pub fn create(path: &Path) -> Result<Self, KeyLogError> {
        let failed = |error| KeyLogError::Create { path: path.to_owned(), error };
        #[expect(clippy::cast_possible_wrap, reason = "open flags as std takes them")]
        let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits() as i32;
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)
            .map_err(failed)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of 32 bits in any type")]
        let kind = fstatfs(&file).map(|facts| facts.f_type as u32);
        match kind {
            Ok(kind) if IN_MEMORY.contains(&kind) => {
                Ok(Self { path: path.to_owned(), file: Some(file), written: false })
            }
            looked => {
                // Nothing was written to it.
                let _ = fs::remove_file(path);
                Err(looked.map_or_else(|error| failed(error.into()), |_| KeyLogError::NotInMemory(path.to_owned())))
            }
        }
    }

    /// Whether the kernel may move the file's pages to a swap device.
    #[must_use]
    pub fn may_be_swapped() -> bool {
        fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
    }

    /// Appends one connection.
    pub fn write(&mut self, keys: &ConnectionKeys<'_>) {
        let Some(file) = &mut self.file else { return };
        self.written = true;
        let mut line = Zeroizing::new(Vec::with_capacity(512));
        if let Err(error) = put(&mut line, keys).and_then(|()| file.write_all(&line)) {
            tracing::error!("cannot write to the key log {}, which ends here: {error}", self.path.display());
            self.file = None;
        }
    }
}

fn put(line: &mut Vec<u8>, keys: &ConnectionKeys<'_>) -> io::Result<()> {
    write!(
        line,
        r#"{{"version":1,"local":"{}","remote":"{}","local_isn":{},"remote_isn":{},"role":"{}","original_role":"{}","#,
        keys.local,
        keys.remote,
        keys.local_isn,
        keys.remote_isn,
        keys.role.letter(),
        keys.original_role.letter()
    )?;
    write!(
        line,
        r#""aead":{},"resumed":{},"session_id":"{}","master_key":""#,
        keys.aead.id(),
        keys.resumed,
        keys.session_id
    )?;
    for byte in keys.master_key.expose() {
        write!(line, "{byte:02x}")?;
    }
    line.extend_from_slice(b"\"}\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use tcpcrypt::resume::SessionNonce;
    use tcpcrypt::schedule::SessionSecret;
    use tcpcrypt::{AeadId, Role};

    fn in_memory(name: &str) -> PathBuf {
        Path::new("/dev/shm").join(format!("enotun-test-{}-{name}", std::process::id()))
    }

    #[test]
    fn tc_21_a_key_log_is_refused_on_a_disk_and_nothing_is_left_there() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("keys");
        let error = KeyLog::create(&path).unwrap_err();
        assert!(matches!(error, KeyLogError::NotInMemory(_)), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn tc_21_a_key_log_is_its_owners_and_never_an_old_file() {
        let path = in_memory("owner");
        let secret = SessionSecret::from_bytes(&[7; 32]);
        let sn = SessionNonce::default();
        let mut log = KeyLog::create(&path).unwrap();
        let keys = ConnectionKeys {
            local: "10.0.0.1:40000".parse().unwrap(),
            remote: "[2001:db8::1]:443".parse().unwrap(),
            local_isn: 1,
            remote_isn: u32::MAX,
            role: Role::B,
            original_role: Role::A,
            aead: AeadId::Aes128Gcm,
            resumed: true,
            session_id: secret.session_id(0xa3, &sn),
            master_key: &secret.master_key(&sn),
        };
        log.write(&keys);
        log.write(&keys);
        let text = fs::read_to_string(&path).unwrap();
        drop(log);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        let again = KeyLog::create(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(again, Err(KeyLogError::Create { .. })));
        drop(KeyLog::create(&path).unwrap());
        assert!(!path.exists(), "an empty log is not left behind");
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["remote"], "[2001:db8::1]:443");
        assert_eq!(lines[0]["original_role"], "A");
        assert_eq!(lines[0]["aead"], 1);
        assert_eq!(lines[0]["master_key"].as_str().unwrap().len(), 64);
        assert_eq!(lines[0]["session_id"].as_str().unwrap().len(), 66);
    }
}
