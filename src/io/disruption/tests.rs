use super::*;

const SECOND: u64 = 1_000_000_000;

fn clocks() -> Clocks {
    Clocks { boot: 100 * SECOND, monotonic: 90 * SECOND, wall: 1_700_000_000 * SECOND }
}

/// What the clocks report after `ran`, `slept` and a step of the wall clock by `stepped` seconds.
fn after(ran: f64, slept: f64, stepped: f64) -> Option<Disruption> {
    let add = |clock: u64, seconds: f64| clock.wrapping_add_signed((seconds * 1e9) as i64);
    let before = clocks();
    let now = Clocks {
        boot: add(before.boot, ran + slept),
        monotonic: add(before.monotonic, ran),
        wall: add(before.wall, ran + slept + stepped),
    };
    before.changed(&now)
}

#[test]
fn tc_14_clocks_tell_of_sleep_steps_and_stops() {
    for (ran, slept, stepped, sign) in [
        (0.001, 0.0, 0.0, None),
        (10.0, 0.0, 0.0, None),
        (59.0, 0.0, 0.0, None),
        (61.0, 0.0, 0.0, Some(Disruption::Stop)),
        (1.0, 0.5, 0.0, None),
        (1.0, 1.5, 0.0, Some(Disruption::Suspend)),
        (1.0, 86_400.0, 0.0, Some(Disruption::Suspend)),
        // The board's clock is only read to the second.
        (1.0, 30.0, 0.9, Some(Disruption::Suspend)),
        (1.0, 0.0, 3.0, Some(Disruption::ClockStep)),
        (1.0, 0.0, -3.0, Some(Disruption::ClockStep)),
        // Back to before the machine was started, and to before 1970.
        (1.0, 0.0, -1_600_000_000.0, Some(Disruption::ClockStep)),
        (1.0, 0.0, 1e9, Some(Disruption::ClockStep)),
    ] {
        assert_eq!(after(ran, slept, stepped), sign, "ran {ran}, slept {slept}, stepped {stepped}");
    }
}

#[test]
fn what_time_services_do_is_no_sign() {
    // ntpd steps from 128 ms on, systemd-timesyncd from 400 ms, and a leap second is one.
    for stepped in [0.005, 0.128, 0.4, 1.0, -0.4, -1.0, 1.9] {
        assert_eq!(after(1.0, 0.0, stepped), None, "{stepped}");
    }
}

#[test]
fn an_event_of_a_new_generation_is_known_by_its_field() {
    let event = |fields: &[&str]| fields.join("\0").into_bytes();
    let real = ["change@/devices/platform/QEMUVGID:00", "ACTION=change", "NEW_VMGENID=1", "SEQNUM=917", ""];
    assert!(is_generation_uevent(&event(&real)));
    for other in [
        &["change@/devices/x", "ACTION=change", "NEW_VMGENID=10"][..],
        &["change@/devices/x", "SYNTH_ARG_NEW_VMGENID=1"],
        &["add@/devices/NEW_VMGENID=1", "ACTION=add"],
        &["libudev", "NEW_VMGENID=1"],
        &[],
    ] {
        assert!(!is_generation_uevent(&event(other)), "{other:?}");
    }
}

#[test]
fn only_the_kernels_own_word_in_its_log_counts() {
    let text = "random: crng reseeded due to virtual machine fork";
    assert!(is_generation_record(format!("5,741,1320484,-;{text}\n").as_bytes()));
    assert!(is_generation_record(format!("5,741,1320484,-,caller=T1;{text}\n SUBSYSTEM=acpi\n").as_bytes()));
    for other in [
        // Written to /dev/kmsg by a program: facility 1 (user) and 3 (daemon).
        format!("13,741,1320484,-;{text}\n"),
        format!("29,741,1320484,-;{text}\n"),
        format!("5,741,1320484,-;he said: {text}\n"),
        format!("5,741,1320484,-;{text}!\n"),
        format!("5,741,1320484,-;x\n{text}\n"),
        text.to_owned(),
        String::new(),
    ] {
        assert!(!is_generation_record(other.as_bytes()), "{other}");
    }
}

fn page(count: u32, marker: u64, flags: u64, generation: u64) -> Vec<u8> {
    let mut bytes = vec![0; VmClock::LEN];
    bytes[..4].copy_from_slice(b"VCLK");
    bytes[12..16].copy_from_slice(&count.to_le_bytes());
    bytes[16..24].copy_from_slice(&marker.to_le_bytes());
    bytes[24..32].copy_from_slice(&flags.to_le_bytes());
    bytes[104..].copy_from_slice(&generation.to_le_bytes());
    bytes
}

#[test]
fn the_vm_clock_tells_a_copy_from_a_move_where_it_can() {
    let read = |bytes: &[u8]| VmClock::parse(bytes).unwrap();
    let before = read(&page(2, 7, 1 << 8, 3));
    assert_eq!(before.changed(&read(&page(4, 7, 1 << 8, 3))), None);
    assert_eq!(before.changed(&read(&page(4, 8, 1 << 8, 3))), None, "moved, not copied");
    assert_eq!(before.changed(&read(&page(4, 8, 1 << 8, 4))), Some(Disruption::VmGeneration));
    let before = read(&page(2, 7, 0, 0));
    assert_eq!(before.changed(&read(&page(2, 7, 0, 9))), None, "what is not said to be there is not looked at");
    assert_eq!(before.changed(&read(&page(4, 8, 0, 0))), Some(Disruption::Moved));
    // In the middle of a change, another page, a short one.
    assert_eq!(VmClock::parse(&page(3, 7, 0, 0)), None);
    assert_eq!(VmClock::parse(&[0; VmClock::LEN]), None);
    assert_eq!(VmClock::parse(&page(2, 7, 0, 0)[..20]), None);
    assert_eq!(VmClock::parse(&page(2, 7, 1 << 8, 0)[..100]), None);
    assert!(VmClock::parse(&page(2, 7, 0, 0)[..32]).is_some(), "older pages are shorter");
}

/// Without any of the system's sources.
fn without_sources() -> DisruptionMonitor {
    DisruptionMonitor {
        epoll: None,
        uevents: None,
        log: None,
        clock_set: None,
        vmclock: None,
        page: None,
        clocks: Clocks::read(),
        generations: [0; 3],
        acted_on: 0,
    }
}

#[test]
fn sources_that_tell_of_one_generation_are_one_sign() {
    let mut monitor = without_sources();
    let mut ask = |told: [u64; 3]| {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &page(2, 7, 1 << 8, told[2])).unwrap();
        monitor.vmclock = Some(file);
        [monitor.generations[0], monitor.generations[1]] = [told[0], told[1]];
        monitor.poll(false)
    };
    assert_eq!(ask([0, 0, 0]), None);
    assert_eq!(ask([0, 0, 1]), Some(Disruption::VmGeneration));
    // The log and the event are late.
    assert_eq!(ask([0, 1, 1]), None);
    assert_eq!(ask([1, 1, 1]), None);
    // The second time another source is first, and one reports nothing.
    assert_eq!(ask([1, 2, 1]), Some(Disruption::VmGeneration));
    assert_eq!(ask([2, 2, 1]), None);
    assert_eq!(ask([2, 2, 1]), None);
}

#[test]
fn a_quiet_host_gives_no_sign_and_is_not_awake_all_the_time() {
    let mut monitor = DisruptionMonitor::new();
    assert!(monitor.epoll.is_some() && monitor.uevents.is_some() && monitor.clock_set.is_some());
    for _ in 0..3 {
        // Other kernel events are read and discarded.
        assert_eq!(monitor.poll(true), None);
    }
    assert!(monitor.uevents.is_some() && monitor.clock_set.is_some(), "an empty source stays open");
}
