//! Opening the TUN devices.
//!
//! The ioctls are our own because neither crate fits: `tun` 0.8 has neither multi-queue nor TUNSETOFFLOAD, `tun-rs`
//! 2.8 cannot adopt a descriptor with a virtio header, which handing descriptors to another process needs.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::{Error, sys};

/// What the kernel leaves to us on a device (and takes from us).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Partial checksums.
    pub checksum: bool,
    /// TCP super-packets over IPv4.
    pub tso4: bool,
    /// TCP super-packets over IPv6.
    pub tso6: bool,
    /// Super-packets may have CWR set.
    pub ecn: bool,
}

/// Bytes of the virtio header before each packet.
pub const VIRTIO_HEADER_LEN: usize = 10;

/// Creates the device `name`, which must not exist, with `queues` queues. Each descriptor is non-blocking; the device
/// is down, and disappears when the last descriptor is closed.
pub(super) fn open(name: &str, queues: u16) -> Result<(Vec<OwnedFd>, Offloads), Error> {
    if !is_interface_name(name) {
        return Err(Error::TunName(name.to_owned()));
    }
    let mut flags = sys::IFF_TUN | sys::IFF_NO_PI | sys::IFF_VNET_HDR;
    if queues > 1 {
        flags |= sys::IFF_MULTI_QUEUE;
    }
    let mut descriptors = Vec::new();
    let mut offloads = Offloads::default();
    for queue in 0..queues.max(1) {
        let fd = open_clone_device()?;
        let exclusive = if queue == 0 { sys::IFF_TUN_EXCL } else { 0 };
        sys::tun_attach(fd.as_fd(), name, flags | exclusive).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => Error::TunInUse(name.to_owned()),
            Some(libc::EPERM) => Error::Permission,
            _ => Error::Tun { name: name.to_owned(), error },
        })?;
        let refused = |error| Error::Tun { name: name.to_owned(), error };
        sys::tun_set_header_len(fd.as_fd(), VIRTIO_HEADER_LEN as i32).map_err(refused)?;
        // The offloads belong to the device, not to the queue.
        if queue == 0 {
            offloads = ask_for_offloads(&fd);
        }
        descriptors.push(fd);
    }
    Ok((descriptors, offloads))
}

fn open_clone_device() -> Result<OwnedFd, Error> {
    let path = "/dev/net/tun";
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    match file {
        Ok(file) => Ok(file.into()),
        Err(source) => match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => Err(Error::NoTun),
            Some(libc::EPERM | libc::EACCES) => Err(Error::Permission),
            _ => Err(Error::file(path, source)),
        },
    }
}

/// The most the kernel grants: all, all but ECN, checksums only, nothing.
fn ask_for_offloads(fd: &OwnedFd) -> Offloads {
    let tcp = sys::TUN_F_CSUM | sys::TUN_F_TSO4 | sys::TUN_F_TSO6;
    let granted = [tcp | sys::TUN_F_TSO_ECN, tcp, sys::TUN_F_CSUM]
        .into_iter()
        .find(|bits| sys::tun_set_offload(fd.as_fd(), *bits).is_ok())
        .unwrap_or(0);
    Offloads {
        checksum: granted & sys::TUN_F_CSUM != 0,
        tso4: granted & sys::TUN_F_TSO4 != 0,
        tso6: granted & sys::TUN_F_TSO6 != 0,
        ecn: granted & sys::TUN_F_TSO_ECN != 0,
    }
}

/// What the kernel's dev_valid_name accepts, except what would need quoting somewhere.
pub(crate) fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Whether /dev/net/tun can be opened.
pub(super) fn is_available() -> Result<(), Error> {
    open_clone_device().map(drop)
}
