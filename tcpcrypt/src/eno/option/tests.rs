use alloc::vec::Vec;

use super::*;

fn option(area: &[u8]) -> SynOption<'_> {
    match find_syn(area) {
        SynArea::Option(option) => option,
        other => panic!("{other:?}"),
    }
}

fn suboptions<'a>(option: &SynOption<'a>) -> Vec<(u8, bool, &'a [u8])> {
    option.suboptions().map(|s| (s.tep, s.v, s.data)).collect()
}

#[test]
fn eno_1_non_syn_form_is_recognised_whatever_it_contains() {
    assert!(has_eno(&NON_SYN_OPTION));
    assert!(has_eno(&[1, 1, 69, 5, 0x80, 0x80, 0x80]));
    assert!(!has_eno(&[]));
    assert!(!has_eno(&[1, 1, 8, 10, 69, 2, 69, 2, 69, 2, 69, 2]));
    assert!(!has_eno(&[0, 69, 2]), "behind end-of-list");
    assert!(!has_eno(&[5, 1, 69, 2]), "behind a broken option");
}

#[test]
fn eno_2_every_first_byte_has_its_meaning() {
    for byte in 0..=u8::MAX {
        let raw = [69, 3, byte];
        match (byte, SynOption::parse(&raw)) {
            (0x00..=0x1f, Ok(option)) => assert!(option.global() == byte && option.is_vacuous()),
            (0x20..=0x7f, Ok(option)) => assert_eq!(suboptions(&option), [(byte, false, &[][..])]),
            (0x80..=0x9f, Err(why)) => assert_eq!(why, IllFormed::PastEnd),
            (0xa0..=0xff, Ok(option)) => assert_eq!(suboptions(&option), [(byte & 0x7f, true, &[][..])]),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn eno_3_two_options_are_as_none() {
    assert_eq!(find_syn(&[69, 3, 0x23, 69, 3, 0x23]), SynArea::Duplicate);
    assert_eq!(find_syn(&[69, 3, 0x80, 2, 4, 5, 180, 69, 2]), SynArea::Duplicate);
}

#[test]
fn eno_4_first_global_suboption_counts_with_its_z_bits_ignored() {
    let area = [69, 6, 0x1d, 0x23, 0x02, 0x00];
    let option = option(&area);
    assert_eq!(option.global(), 0x1d);
    assert!(option.b());
    assert!(!option.aware());
}

#[test]
fn eno_5_length_byte_past_end_is_ill_formed() {
    assert_eq!(find_syn(&[69, 6, 0x82, 0xa3, 1, 2]), SynArea::IllFormed(IllFormed::PastEnd));
    assert_eq!(find_syn(&[69, 4, 0x23, 0x80]), SynArea::IllFormed(IllFormed::PastEnd));
}

#[test]
fn eno_5_length_byte_before_a_suboption_without_data_is_ill_formed() {
    for next in [0x00, 0x1f, 0x20, 0x7f, 0x80, 0x9f] {
        let area = [69, 6, 0x80, next, 1, 2];
        assert_eq!(find_syn(&area), SynArea::IllFormed(IllFormed::NoDataAllowed), "{next:02x}");
    }
}

#[test]
fn eno_5_a_length_byte_goes_before_the_lowest_identifier_with_data_too() {
    for byte in [0xa0, 0xff] {
        let area = [69, 5, 0x80, byte, 7];
        assert_eq!(suboptions(&option(&area)), [(byte & 0x7f, true, &[7][..])]);
    }
}

#[test]
fn eno_5_what_is_ill_formed_is_told_apart() {
    let [one, other] = [IllFormed::PastEnd, IllFormed::NoDataAllowed].map(|why| alloc::format!("{why}"));
    assert!(!one.is_empty() && !other.is_empty() && one != other);
}

#[test]
fn eno_6_only_the_last_suboption_goes_without_a_length_byte() {
    let mut area = [0x55; 40];
    area[..7].copy_from_slice(&[69, 40, 0x81, 0xa1, 7, 8, 0xa3]);
    let found = option(&area);
    assert_eq!(suboptions(&found), [(0x21, true, &[7, 8][..]), (0x23, true, &[0x55; 33][..])]);
}

#[test]
fn eno_9_repeated_tep_is_no_valid_one() {
    let area = [69, 6, 0x23, 0x24, 0xa3, 0x01];
    let option = option(&area);
    assert_eq!(option.only(0x23), None);
    assert_eq!(option.only(0xa4).map(|s| s.byte()), Some(0x24));
    assert_eq!(option.only(0x21), None);
}

#[test]
fn eno_16_data_is_discarded_with_any_eno_option() {
    assert!(!find_syn(&[2, 4, 5, 180]).discards_data());
    assert!(find_syn(&[69, 2]).discards_data());
    assert!(find_syn(&[69, 3, 0x80]).discards_data());
    assert!(find_syn(&[69, 2, 69, 2]).discards_data());
}

#[test]
fn eno_16_data_is_discarded_where_the_area_is_broken_at_or_behind_the_option() {
    for area in [&[69, 3, 0x23, 2, 0][..], &[69, 2, 8], &[2, 4, 5, 180, 69, 3, 0x23, 3, 77], &[69, 40, 0x23], &[69]] {
        assert!(find_syn(area).discards_data(), "{area:?}");
    }
    assert!(!find_syn(&[2, 0, 69, 2]).discards_data(), "no option is to be seen behind what is broken");
}

#[test]
fn eno_20_several_options_in_a_non_syn_segment_count_as_one() {
    assert!(has_eno(&[69, 2, 69, 4, 1, 2, 69, 2]));
}

#[test]
fn eno_20_reserved_teps_are_none_that_could_be_agreed_on() {
    for tep in 0x70..=0x7f {
        assert_eq!(crate::Tep::from_id(tep), None);
        let area = [69, 4, tep, 0x23];
        assert_eq!(suboptions(&option(&area)), [(tep, false, &[][..]), (0x23, false, &[][..])]);
    }
}

#[test]
fn option_areas_that_cannot_be_are_told_from_ones_without_eno() {
    for area in [&[69, 0][..], &[69, 1], &[69, 3], &[69], &[2, 0, 69, 2], &[2, 255, 1]] {
        let eno = area[0] == KIND;
        assert_eq!(find_syn(area), SynArea::MalformedArea { eno }, "{area:?}");
    }
    assert_eq!(find_syn(&[0, 69, 0]), SynArea::None);
}

#[test]
fn what_is_not_one_whole_option_is_ill_formed() {
    for raw in [&[][..], &[69], &[69, 3], &[69, 2, 0x23], &[68, 3, 0x23]] {
        assert!(SynOption::parse(raw).is_err(), "{raw:?}");
    }
}
