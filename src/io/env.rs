//! The engine's surroundings on a real host: the only place with a clock and the system's randomness.

use std::fs::File;
use std::net::SocketAddr;

use hkdf::Hkdf;
use rustix::io::{Errno, pread};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_gettime};
use sha2::Sha256;
use tcpcrypt::stack;
use zeroize::{Zeroize, Zeroizing};

use super::device::Device;
use super::keylog::KeyLog;
use super::sys;
use crate::engine::{ConnectionKeys, Env, RandomFor, Side};
use crate::time::Instant;
use crate::wire::{Offload, Outgoing};

/// The time since the host booted. It continues while the host sleeps, as the peers' clocks do.
#[must_use]
pub fn now() -> Instant {
    Instant::from_micros(nanos(ClockId::Boottime) / 1000)
}

/// A clock's time in nanoseconds.
pub(super) fn nanos(clock: ClockId) -> u64 {
    let t = clock_gettime(clock);
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    seconds.wrapping_mul(1_000_000_000).wrapping_add(u64::try_from(t.tv_nsec).unwrap_or(0))
}

/// The two devices and the host's randomness.
#[derive(Debug)]
pub struct HostEnv {
    plain: Device,
    wire: Device,
    random: Random,
    keys: Option<KeyLog>,
}

impl HostEnv {
    /// Surroundings with these two devices, and the key log if keys are exported.
    #[must_use]
    pub fn new(plain: Device, wire: Device, keys: Option<KeyLog>) -> Self {
        Self { plain, wire, random: Random::new(), keys }
    }

    /// The device of one side.
    #[must_use]
    pub fn device(&self, side: Side) -> &Device {
        match side {
            Side::Plain => &self.plain,
            Side::Wire => &self.wire,
        }
    }

    /// The device of one side.
    pub fn device_mut(&mut self, side: Side) -> &mut Device {
        match side {
            Side::Plain => &mut self.plain,
            Side::Wire => &mut self.wire,
        }
    }
}

impl Env for HostEnv {
    fn emit(&mut self, side: Side, packet: &Outgoing<'_>) {
        self.device_mut(side).write(packet.header, packet.payload, packet.offload);
    }

    fn forward(&mut self, side: Side, offload: Offload, bytes: &[u8]) {
        self.device_mut(side).write_whole(offload, bytes);
    }

    fn random(&mut self, wanted: &RandomFor<'_>, out: &mut [u8]) {
        self.random.fill(wanted, out);
    }

    fn random_is_ready(&self) -> bool {
        self.random.is_ready()
    }

    fn export_keys(&mut self, keys: &ConnectionKeys<'_>) {
        if let Some(log) = &mut self.keys {
            log.write(keys);
        }
    }
}

/// Random bytes that do not repeat in a machine that was cloned or rolled back, as long as any one of many inputs
/// differs (TC-14): see [`Inputs`].
#[derive(Debug)]
struct Random {
    /// Requests so far.
    count: u64,
    boot_id: [u8; 36],
    generation: Option<File>,
    ready: std::cell::Cell<bool>,
}

/// The VM clock device, through which a hypervisor reports clones cheaply enough to be read with every request: its
/// page holds a marker that changes with every disruption, and a generation counter.
const GENERATION: &str = "/dev/vmclock0";

impl Random {
    fn new() -> Self {
        let mut boot_id = [0; 36];
        if let Ok(file) = File::open("/proc/sys/kernel/random/boot_id") {
            // A boot ID that cannot be read is one source fewer.
            let _ = pread(&file, &mut boot_id[..], 0);
        }
        Self { count: 0, boot_id, generation: File::open(GENERATION).ok(), ready: false.into() }
    }

    fn is_ready(&self) -> bool {
        if !self.ready.get() {
            let mut byte = [0; 1];
            self.ready.set(matches!(getrandom(&mut byte[..], GetRandomFlags::NONBLOCK), Ok(1)));
        }
        self.ready.get()
    }

    fn fill(&mut self, wanted: &RandomFor<'_>, out: &mut [u8]) {
        for part in out.chunks_mut(MIX_MAX) {
            self.count = self.count.wrapping_add(1);
            // Anyone who learns the inputs could compute the output.
            stack::wiped_shallow(|| mix(&self.gather(), wanted, part));
        }
    }

    fn gather(&self) -> Inputs {
        let mut generation = [0; 128];
        if let Some(file) = &self.generation {
            // One that cannot be read is one source fewer.
            let _ = pread(file, &mut generation[..], 0);
        }
        Inputs {
            system: system_random(),
            hardware: sys::random(),
            clocks: [ClockId::Monotonic, ClockId::Realtime, ClockId::Boottime].map(nanos),
            cycles: sys::cycles(),
            boot_id: self.boot_id,
            generation,
            process: rustix::process::getpid().as_raw_nonzero().get(),
            thread: rustix::thread::gettid().as_raw_nonzero().get(),
            count: self.count,
        }
    }
}

/// 32 bytes from the kernel's generator, which reseeds itself when the hypervisor reports a new VM generation.
///
/// # Panics
/// If the kernel provides none. Nothing may be encrypted then, as [`Env::random_is_ready`] has said before.
fn system_random() -> [u8; 32] {
    let mut out = [0; 32];
    loop {
        match getrandom(&mut out[..], GetRandomFlags::empty()) {
            Ok(32) => return out,
            // A signal arrived while the generator was not ready yet.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("the kernel provides no random bytes: {error}"),
        }
    }
}

/// The inputs of random bytes. Each alone may repeat in a clone; the output repeats only if all of them do, and the
/// purpose, too.
#[derive(Clone, Zeroize)]
#[zeroize(drop)]
struct Inputs {
    system: [u8; 32],
    hardware: Option<[u8; 32]>,
    /// Monotonic, wall, since boot, in nanoseconds.
    clocks: [u64; 3],
    cycles: u64,
    boot_id: [u8; 36],
    generation: [u8; 128],
    process: i32,
    thread: i32,
    count: u64,
}

/// Length of [`Inputs::material`].
const MATERIAL: usize = 32 + 1 + 32 + 5 * 8 + 2 * 4 + 36 + 128;

impl Inputs {
    /// All of them concatenated; every field has a fixed length, so different inputs are different bytes.
    fn material(&self) -> Zeroizing<Vec<u8>> {
        let mut all = Zeroizing::new(Vec::with_capacity(MATERIAL));
        all.extend_from_slice(&self.system);
        all.push(u8::from(self.hardware.is_some()));
        all.extend_from_slice(self.hardware.as_ref().unwrap_or(&[0; 32]));
        for number in self.clocks.into_iter().chain([self.cycles, self.count]) {
            all.extend_from_slice(&number.to_be_bytes());
        }
        for number in [self.process, self.thread] {
            all.extend_from_slice(&number.to_be_bytes());
        }
        all.extend_from_slice(&self.boot_id);
        all.extend_from_slice(&self.generation);
        debug_assert_eq!(all.len(), MATERIAL, "one that grows would leave a copy where it was");
        all
    }
}

/// Maximum output of one HKDF-Expand (RFC 5869, section 2.3).
const MIX_MAX: usize = 255 * 32;

/// HKDF over `inputs`, with the purpose of the bytes as its context. `out` is at most [`MIX_MAX`] long.
fn mix(inputs: &Inputs, wanted: &RandomFor<'_>, out: &mut [u8]) {
    let address = |a: SocketAddr| match a {
        SocketAddr::V4(a) => (a.ip().to_ipv6_mapped().octets(), a.port().to_be_bytes(), 4),
        SocketAddr::V6(a) => (a.ip().octets(), a.port().to_be_bytes(), 6),
    };
    let (local_ip, local_port, local_version) = address(wanted.local);
    let (remote_ip, remote_port, remote_version) = address(wanted.remote);
    let hkdf = Hkdf::<Sha256>::new(Some(b"enotun random bytes"), &inputs.material());
    // The only variable-length part before the last is preceded by its length.
    let info = [
        &(wanted.purpose.len() as u64).to_be_bytes()[..],
        wanted.purpose.as_bytes(),
        &[local_version, remote_version],
        &local_ip,
        &local_port,
        &remote_ip,
        &remote_port,
        wanted.context,
    ];
    if hkdf.expand_multi_info(&info, out).is_err() {
        unreachable!("requests are cut into parts of at most {MIX_MAX} bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> Inputs {
        Inputs {
            system: [1; 32],
            hardware: Some([2; 32]),
            clocks: [3, 4, 5],
            cycles: 6,
            boot_id: [7; 36],
            generation: [8; 128],
            process: 9,
            thread: 10,
            count: 11,
        }
    }

    fn wanted() -> RandomFor<'static> {
        RandomFor {
            purpose: "resumption nonce",
            local: "10.0.0.1:1000".parse().unwrap(),
            remote: "10.0.0.2:2000".parse().unwrap(),
            context: b"isn",
        }
    }

    fn mixed(inputs: &Inputs, wanted: &RandomFor<'_>) -> [u8; 32] {
        let mut out = [0; 32];
        mix(inputs, wanted, &mut out);
        out
    }

    #[test]
    fn tc_14_a_repeated_generator_state_with_another_connection_gives_other_bytes() {
        let same = mixed(&inputs(), &wanted());
        assert_eq!(mixed(&inputs(), &wanted()), same);
        let others = [
            RandomFor { purpose: "ephemeral key", ..wanted() },
            RandomFor { local: "10.0.0.3:1000".parse().unwrap(), ..wanted() },
            RandomFor { local: "[::ffff:10.0.0.1]:1000".parse().unwrap(), ..wanted() },
            RandomFor { local: "10.0.0.1:1001".parse().unwrap(), ..wanted() },
            RandomFor { remote: "10.0.0.3:2000".parse().unwrap(), ..wanted() },
            RandomFor { remote: "10.0.0.2:2001".parse().unwrap(), ..wanted() },
            RandomFor { context: b"ism", ..wanted() },
            RandomFor { context: b"", ..wanted() },
        ];
        let mut seen = vec![same];
        for other in others {
            let got = mixed(&inputs(), &other);
            assert!(!seen.contains(&got), "{other:?}");
            seen.push(got);
        }
    }

    #[test]
    fn tc_14_one_source_that_differs_is_enough() {
        let change: [fn(&mut Inputs); 12] = [
            |i| i.system[31] ^= 1,
            |i| i.hardware = None,
            |i| i.hardware = Some([0; 32]),
            |i| i.clocks[0] += 1,
            |i| i.clocks[1] += 1,
            |i| i.clocks[2] += 1,
            |i| i.cycles += 1,
            |i| i.boot_id[0] ^= 1,
            |i| i.generation[127] ^= 1,
            |i| i.process += 1,
            |i| i.thread += 1,
            |i| i.count += 1,
        ];
        let mut seen = vec![mixed(&inputs(), &wanted())];
        for (n, change) in change.into_iter().enumerate() {
            let mut changed = inputs();
            change(&mut changed);
            let got = mixed(&changed, &wanted());
            assert!(!seen.contains(&got), "change {n}");
            seen.push(got);
        }
    }

    #[test]
    fn the_host_gives_other_bytes_every_time_and_any_number_of_them() {
        let mut random = Random::new();
        assert!(random.is_ready());
        let mut long = vec![0; 2 * MIX_MAX + 1];
        random.fill(&wanted(), &mut long);
        assert_ne!(long[..32], long[MIX_MAX..MIX_MAX + 32]);
        assert_ne!(long[..32], mixed(&random.gather(), &wanted()));
        assert_eq!(random.count, 3);
        random.fill(&wanted(), &mut []);
        assert_ne!(random.boot_id, [0; 36]);
    }

    #[test]
    fn time_goes_on() {
        let start = now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(now() > start);
        assert!(start > Instant::ZERO);
    }
}
