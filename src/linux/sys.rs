//! System calls that no crate in use wraps: TUN ioctls and the cookie of the network namespace.

use std::ffi::{c_int, c_short, c_uint, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

// <linux/if_tun.h>
const TUNSETIFF: c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: c_ulong = 0x4004_54d8;
pub(super) const IFF_TUN: c_short = 0x0001;
pub(super) const IFF_MULTI_QUEUE: c_short = 0x0100;
pub(super) const IFF_NO_PI: c_short = 0x1000;
pub(super) const IFF_VNET_HDR: c_short = 0x4000;
/// Fail instead of attaching to an existing device.
pub(super) const IFF_TUN_EXCL: c_short = i16::MIN;
pub(super) const TUN_F_CSUM: c_uint = 0x01;
pub(super) const TUN_F_TSO4: c_uint = 0x02;
pub(super) const TUN_F_TSO6: c_uint = 0x04;
pub(super) const TUN_F_TSO_ECN: c_uint = 0x08;

// <asm-generic/socket.h>
const SO_NETNS_COOKIE: c_int = 71;

/// `struct ifreq` as TUNSETIFF reads it: a name, flags, padding.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: c_short,
    padding: [u8; 22],
}

/// Makes `fd` (an open /dev/net/tun) a queue of the device `name`.
pub(super) fn tun_attach(fd: BorrowedFd<'_>, name: &str, flags: c_short) -> io::Result<()> {
    let mut request = InterfaceRequest { name: [0; libc::IFNAMSIZ], flags, padding: [0; 22] };
    let room = request.name.get_mut(..name.len()).filter(|_| name.len() < libc::IFNAMSIZ);
    room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, 40 bytes, which `request` is and outlives the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF, &raw mut request) };
    check(result)
}

/// Sets the length of the virtio header before each packet.
pub(super) fn tun_set_header_len(fd: BorrowedFd<'_>, len: c_int) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one int through the pointer, which is valid for the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETVNETHDRSZ, &raw const len) };
    check(result)
}

/// Sets which offloads the reader of the device can handle (TUN_F_* bits).
pub(super) fn tun_set_offload(fd: BorrowedFd<'_>, bits: c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETOFFLOAD, c_ulong::from(bits)) };
    check(result)
}

/// The cookie of the network namespace of `socket`. Unlike the inode of /proc/self/ns/net it is never reused while
/// the kernel runs.
pub(super) fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut len: libc::socklen_t = 8;
    // SAFETY: the kernel writes at most `len` = 8 bytes to `cookie`, and the length to `len`; both outlive the call.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut len)
    };
    check(result).map(|()| cookie)
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
