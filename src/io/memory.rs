//! The process's memory, in which keys are: it goes to no disk, neither in a core dump nor by swapping (TC-21), and what is not
//! needed is given back.

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

/// Sees to it that a crash writes no core dump, and that memory is not swapped, if that is allowed.
///
/// A process that is not dumpable has no core dump, whoever would take it: a file, or a program that `core_pattern` pipes it to, which
/// limits do not keep from getting one. So no page need be marked as not to be dumped (MADV_DONTDUMP). Other processes of the same user
/// can neither trace it nor read its memory.
///
/// # Errors
/// If core dumps cannot be turned off.
pub fn keep_off_disk() -> io::Result<Swapping> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let locked = may_lock().and_then(|()| lock());
    LOCKED.store(locked.is_ok(), Ordering::Relaxed);
    Ok(locked.map_or_else(Swapping::Possible, |()| Swapping::Never))
}

/// With a limit, the memory that is needed later could not be had.
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

/// Locks what there is and what will be, each page once it is touched: the stacks of threads are mostly untouched.
fn lock() -> io::Result<()> {
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
}

/// Gives freed memory back to the kernel, page by page, wherever it is. The kernel takes no locked pages, so they are not for that
/// moment.
pub fn trim_heap() {
    let locked = LOCKED.load(Ordering::Relaxed) && munlockall().is_ok();
    sys::trim_heap();
    if locked && let Err(error) = lock() {
        LOCKED.store(false, Ordering::Relaxed);
        tracing::warn!("memory is no longer locked, and may be swapped: {error}");
    }
}
