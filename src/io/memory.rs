//! The process's memory, which holds keys: it never reaches a disk, neither in a core dump nor by swapping (TC-21).
//! Freed memory is returned to the kernel.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mm::{MlockAllFlags, mlockall, munlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::sys;

/// Whether [`keep_off_disk`] has locked the memory.
static LOCKED: AtomicBool = AtomicBool::new(false);

/// Whether the kernel may move the process's memory to a swap device.
#[derive(Debug)]
pub enum Swapping {
    /// It may not: the memory is locked.
    Never,
    /// It may, if there is a swap device.
    Possible(io::Error),
}

/// Makes sure that a crash writes no core dump, and that memory is not swapped, if locking is permitted.
///
/// A process that is not dumpable has no core dump, whoever would collect it: a file, or a program that
/// `core_pattern` pipes it to and that ignores limits. So no page needs MADV_DONTDUMP. Other processes of the same
/// user can neither trace it nor read its memory.
///
/// # Errors
/// If core dumps cannot be disabled.
pub fn keep_off_disk() -> io::Result<Swapping> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let locked = may_lock().and_then(|()| lock());
    LOCKED.store(locked.is_ok(), Ordering::Relaxed);
    Ok(locked.map_or_else(Swapping::Possible, |()| Swapping::Never))
}

/// With a limit, later allocations would fail.
fn may_lock() -> io::Result<()> {
    let unlimited = getrlimit(Resource::Memlock).current.is_none();
    if unlimited || capabilities(None)?.effective.contains(CapabilitySet::IPC_LOCK) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "neither CAP_IPC_LOCK nor an unlimited RLIMIT_MEMLOCK (LimitMEMLOCK=infinity)",
    ))
}

/// Locks current and future memory, each page on first touch: the stacks of threads are mostly untouched.
fn lock() -> io::Result<()> {
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
}

/// Returns freed memory to the kernel, page by page, wherever it is. The kernel does not take locked pages, so memory
/// is unlocked for that moment.
pub fn trim_heap() {
    let locked = LOCKED.load(Ordering::Relaxed) && munlockall().is_ok();
    sys::trim_heap();
    if locked && let Err(error) = lock() {
        LOCKED.store(false, Ordering::Relaxed);
        tracing::warn!("memory is no longer locked, and may be swapped: {error}");
    }
}
