//! The option area of a SYN: parsing it, answering it, concluding from it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tcpcrypt::NegotiationConfig;
use tcpcrypt::eno::negotiate::{active_option, conclude, passive_reply};
use tcpcrypt::eno::option::{SynArea, SynOption, find_syn, has_eno};

fuzz_target!(|area: &[u8]| {
    // The whole as an option, and as an area with options in it.
    if let Ok(option) = SynOption::parse(area) {
        assert_eq!(option.raw(), area);
        let _ = (option.b(), option.aware(), option.is_vacuous(), option.suboptions().count());
    }
    let found = find_syn(area);
    if matches!(found, SynArea::Option(_)) {
        assert!(has_eno(area));
    }
    let settings = NegotiationConfig::default();
    let reply = passive_reply(&settings, &found, 21, &[7; 8], |_, _| None);
    if let Some(option) = &reply.option {
        // What this host sends is well-formed, and says that it is B (ENO-7).
        assert!(SynOption::parse(option).is_ok_and(|o| o.b()), "{option:02x?}");
    }
    let _ = conclude(&settings, reply.option.as_deref(), None, &found);
    let own = active_option(&settings, None, 21).map(|o| o.bytes);
    let _ = conclude(&settings, own.as_deref(), None, &found);
    // The same area as it comes with other segments.
    let _ = enotun::wire::options::SynOptions::parse(area);
    let _ = enotun::wire::options::SegmentOptions::parse(area).sack().len();
    assert!(enotun::wire::options::walk(area).map(|(_, o)| o.len()).sum::<usize>() <= area.len());
});
