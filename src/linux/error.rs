//! Errors of the host setup, one line each: what happened, whose fault it is, what to do.

use std::io;
use std::path::PathBuf;

/// Why the host could not be set up, changed or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No CAP_NET_ADMIN in this network namespace.
    #[error("not permitted to change this host's network; run as root (in a container, with CAP_NET_ADMIN)")]
    Permission,
    /// /dev/net/tun cannot be opened because it is not there.
    #[error("no /dev/net/tun; load the `tun` module (modprobe tun), or give the container the device")]
    NoTun,
    /// An interface of that name already exists.
    #[error("an interface named `{0}` already exists; choose another name with --tun, or remove it")]
    TunInUse(String),
    /// The kernel would not accept this name.
    #[error("`{0}` is not a valid interface name; use up to 15 letters, digits, `-`, `_`")]
    TunName(String),
    /// Not a valid file name.
    #[error("`{0}` is not a valid instance name; use letters, digits, `-`, `_`, `.`")]
    InstanceName(String),
    /// A daemon of that name holds the lock.
    #[error("instance `{0}` is already running; stop it with `enotun down --instance {0}`, or choose another name")]
    Running(String),
    /// Another instance is up in this network namespace.
    #[error(
        "instance `{0}` is already up in this network namespace, which takes one at a time (`enotun down --instance {0}`)"
    )]
    NamespaceTaken(String),
    /// The record belongs to another network namespace that still exists.
    #[error("instance `{0}` belongs to another network namespace; run there, or choose another --instance")]
    OtherNamespace(String),
    /// The two marks need two bits.
    #[error("host.mark-mask {0:#x} has fewer than two bits; choose two bits that nothing else on this host uses")]
    MarkMask(u32),
    /// A `--gateway` interface does not exist.
    #[error("this host has no interface `{0}` (given with --gateway)")]
    NoInterface(String),
    /// The nft program is missing.
    #[error("cannot run `nft`: {0}; install nftables")]
    NftMissing(io::Error),
    /// The kernel or nft refused a change.
    #[error("nftables error while {what}: {why}")]
    Nft {
        /// What was being done.
        what: &'static str,
        /// What nft said.
        why: String,
    },
    /// The kernel refused a netlink request.
    #[error("the kernel refused to {what}: {error}")]
    Netlink {
        /// What was requested.
        what: String,
        /// The kernel's errno.
        error: io::Error,
    },
    /// The directory of the record of changes is not writable.
    #[error("cannot keep the record of changes in {}: {error}; run as root, where that directory is writable", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file or sysctl cannot be read or written.
    #[error("{}: {error}{}", path.display(), hint(error))]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The TUN device was refused.
    #[error("cannot create the TUN device `{name}`: {error}")]
    Tun {
        /// Its name.
        name: String,
        /// The kernel's errno.
        error: io::Error,
    },
    /// The record of changes cannot be parsed.
    #[error("{}: {why}; restore the host by hand, then remove the file", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Some changes could not be undone; they are still in the record.
    #[error("could not restore: {0}; `enotun down` tries again")]
    Revert(String),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "; enotun must be able to write there (a container or a service unit may have mounted it read-only)"
        }
        _ => "",
    }
}

// No field is called `source`: the message already includes the underlying error.
impl Error {
    /// An error about the file or sysctl at `path`.
    pub(crate) fn file(path: impl Into<PathBuf>, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM) => Self::Permission,
            _ => Self::File { path: path.into(), error },
        }
    }

    /// An error about a netlink request to do `what`.
    pub(crate) fn netlink(what: impl Into<String>, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Permission,
            _ => Self::Netlink { what: what.into(), error },
        }
    }
}
