//! What no safe interface provides: the cycle counter, the processor's own random numbers, the C library's heap
//! settings.

/// Makes the C library keep up to 64 MiB of freed memory for the next packets. By default it returns everything above
/// 128 KiB to the kernel at once and gets it back zeroed, page fault by page fault: with frames kept until they are
/// acknowledged, 40 % of an encrypting worker's time.
pub(super) fn disable_heap_trim() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt only sets numbers under the allocator's own lock.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
            // Setting either of them stops the automatic adjustment of this one, which would map every larger block
            // anew.
            libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
        }
    }
}

/// Returns freed memory to the kernel, page by page, wherever it is.
pub(super) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim works on what is free, under the allocator's own locks.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// The cycle counter, 0 where none can be read.
#[must_use]
pub(super) fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: RDTSC exists on every x86-64 processor and touches nothing but its result.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(target_arch = "aarch64")]
    {
        let count: u64;
        // SAFETY: Linux lets user space read the virtual counter; the instruction touches nothing but its result.
        unsafe { core::arch::asm!("mrs {}, cntvct_el0", out(reg) count, options(nomem, nostack, preserves_flags)) };
        count
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    0
}

/// 32 bytes of the processor's random numbers; `None` if it has no such instruction, or it fails.
#[must_use]
pub(super) fn random() -> Option<[u8; 32]> {
    #[cfg(target_arch = "x86_64")]
    {
        let word: fn() -> Option<u64> = if std::is_x86_feature_detected!("rdseed") {
            // The seed source may be exhausted for a while; the generator behind RDRAND stands in.
            || rdseed().or_else(rdrand)
        } else {
            rdrand
        };
        let mut out = [0; 32];
        for part in out.chunks_exact_mut(8) {
            part.copy_from_slice(&word()?.to_ne_bytes());
        }
        Some(out)
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

#[cfg(target_arch = "x86_64")]
fn rdseed() -> Option<u64> {
    if !std::is_x86_feature_detected!("rdseed") {
        return None;
    }
    let mut value = 0;
    // SAFETY: the processor has RDSEED, checked above; it writes to `value` only.
    (0..4).any(|_| unsafe { core::arch::x86_64::_rdseed64_step(&mut value) } == 1).then_some(value)
}

#[cfg(target_arch = "x86_64")]
fn rdrand() -> Option<u64> {
    if !std::is_x86_feature_detected!("rdrand") {
        return None;
    }
    let mut value = 0;
    // SAFETY: the processor has RDRAND, checked above; it writes to `value` only. Ten tries as Intel recommends.
    let got = (0..10).any(|_| unsafe { core::arch::x86_64::_rdrand64_step(&mut value) } == 1);
    // Some AMD processors return all ones after a suspend, and report success.
    (got && value != u64::MAX).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_does_not_repeat_itself() {
        match (random(), random()) {
            (Some(a), Some(b)) => assert_ne!(a, b),
            (a, b) => assert_eq!(a, b, "it either has random numbers or it has not"),
        }
        #[cfg(target_arch = "x86_64")]
        assert_ne!(cycles(), cycles());
    }
}
