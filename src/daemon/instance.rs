//! The name of an instance and the place of its control socket. [`crate::linux::Host::up`] makes sure that each name
//! is used once.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;

use crate::linux;

/// The longest instance name, in bytes: the control socket's path has to fit into 108 bytes.
const NAME_MAX: usize = 64;

/// The name of an instance: one daemon in one network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance(String);

/// Why a text cannot be an instance's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot name an instance; use 1 to 64 letters, digits, `-`, `_` and `.`, not starting with `.`")]
pub struct InvalidName(String);

impl FromStr for Instance {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let good = (1..=NAME_MAX).contains(&text.len())
            && !text.starts_with('.')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if good { Ok(Self(text.to_owned())) } else { Err(InvalidName(text.to_owned())) }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Instance {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The control socket's path, beside the record of changes.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        linux::HostSettings::default().state_dir.join(format!("{self}.sock"))
    }

    /// Names of other instances on this machine whose daemon accepts connections, in order.
    #[must_use]
    pub fn others_running(&self) -> Vec<String> {
        let entries = fs::read_dir(linux::HostSettings::default().state_dir).into_iter().flatten().flatten();
        let sockets = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "sock"));
        let running = sockets.filter(|path| UnixStream::connect(path).is_ok());
        let mut names: Vec<String> = running
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .filter(|name| *name != self.0)
            .collect();
        names.sort_unstable();
        names
    }

    /// Removes the control socket's file, if it exists. Only for the instance's own daemon, and after one that died.
    ///
    /// # Errors
    /// If it exists and cannot be removed.
    pub fn remove_socket(&self) -> io::Result<()> {
        match fs::remove_file(self.socket()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "a b", ".hidden", "tun\0", &"x".repeat(65)] {
            assert!(bad.parse::<Instance>().is_err(), "{bad:?}");
        }
        for good in ["tun0", "cli-a", "a.b_c", &"x".repeat(64)] {
            assert_eq!(good.parse::<Instance>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
    }
}
