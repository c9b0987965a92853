//! The ENO option (RFC 8547, sections 4.1, 4.2 and 4.4; ENO-1 to ENO-6): finding it in a TCP option area, and parsing
//! its suboptions. The option area is walked here as raw bytes, because an ill-formed ENO option, an absent one and a
//! broken option area mean different things.

use core::fmt;

pub use crate::constants::ENO_KIND as KIND;

/// The option as sent in every non-SYN segment (ENO-1).
pub const NON_SYN_OPTION: [u8; 2] = [KIND, 2];

/// Bit of the global suboption: this host is B (ENO-7).
pub const GLOBAL_B: u8 = 0x01;
/// Bit of the global suboption: application-aware (ENO-8).
pub const GLOBAL_A: u8 = 0x02;

const KIND_END: u8 = 0;
const KIND_NOP: u8 = 1;

/// What a SYN's option area says about ENO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SynArea<'a> {
    /// There is no ENO option.
    None,
    /// Two or more ENO options: as if there were none (ENO-3).
    Duplicate,
    /// An option length is impossible; nothing in the area can be trusted.
    MalformedArea {
        /// An ENO option precedes the broken part, or is the broken part.
        eno: bool,
    },
    /// One ENO option that is ill-formed (ENO-5).
    IllFormed(IllFormed),
    /// One well-formed ENO option.
    Option(SynOption<'a>),
}

impl SynArea<'_> {
    /// Whether data in this SYN must be discarded and not acknowledged (ENO-16), even where ENO is off.
    #[must_use]
    pub fn discards_data(&self) -> bool {
        matches!(self, Self::Duplicate | Self::IllFormed(_) | Self::Option(_) | Self::MalformedArea { eno: true })
    }
}

/// Why a SYN-form option is ill-formed (ENO-5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IllFormed {
    /// A length byte announces more data than the option has, or nothing follows it.
    PastEnd,
    /// A length byte is followed by a suboption that takes no data.
    NoDataAllowed,
}

impl fmt::Display for IllFormed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PastEnd => "suboption data past the end of the option",
            Self::NoDataAllowed => "length byte before a suboption without data",
        })
    }
}

/// A well-formed SYN-form option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SynOption<'a> {
    raw: &'a [u8],
    global: u8,
}

impl<'a> SynOption<'a> {
    /// Parses a whole option, kind and length included.
    ///
    /// # Errors
    /// Why it is ill-formed; this includes bytes that are not exactly one ENO option.
    pub fn parse(raw: &'a [u8]) -> Result<Self, IllFormed> {
        match raw {
            [KIND, len, contents @ ..] if usize::from(*len) == raw.len() => {
                let mut global = None;
                for item in Items(contents) {
                    if let Item::Global(byte) = item? {
                        // ENO-4: only the first one counts.
                        global.get_or_insert(byte);
                    }
                }
                Ok(Self { raw, global: global.unwrap_or(0) })
            }
            _ => Err(IllFormed::PastEnd),
        }
    }

    /// The option as sent, kind and length included.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The global suboption that counts, 0 if there is none (ENO-4). Its z bits are as received.
    #[must_use]
    pub fn global(&self) -> u8 {
        self.global
    }

    /// The b bit (ENO-7).
    #[must_use]
    pub fn b(&self) -> bool {
        self.global & GLOBAL_B != 0
    }

    /// The a bit (ENO-8).
    #[must_use]
    pub fn aware(&self) -> bool {
        self.global & GLOBAL_A != 0
    }

    /// The TEP suboptions in order, known and unknown.
    pub fn suboptions(&self) -> impl Iterator<Item = Suboption<'a>> + use<'a> {
        Items(self.raw.get(2..).unwrap_or_default()).filter_map(|item| match item {
            Ok(Item::Tep(suboption)) => Some(suboption),
            _ => None,
        })
    }

    /// The suboption of this TEP, if there is exactly one: repetition makes the TEP invalid (ENO-9; docs/readings.md,
    /// reading 5).
    #[must_use]
    pub fn only(&self, tep: u8) -> Option<Suboption<'a>> {
        let mut found = self.suboptions().filter(|s| s.tep == tep & 0x7f);
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// Whether the option has no TEP: "supported, not wanted" (ENO-11).
    #[must_use]
    pub fn is_vacuous(&self) -> bool {
        self.suboptions().next().is_none()
    }
}

/// A TEP suboption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suboption<'a> {
    /// The TEP identifier, seven bits.
    pub tep: u8,
    /// The v bit: data follows.
    pub v: bool,
    /// The data; empty if `v` is not set.
    pub data: &'a [u8],
}

impl Suboption<'_> {
    /// The suboption's first byte: v bit and identifier.
    #[must_use]
    pub fn byte(&self) -> u8 {
        self.tep | u8::from(self.v) << 7
    }
}

enum Item<'a> {
    Global(u8),
    Tep(Suboption<'a>),
}

/// The suboptions in an option's contents; ends after the first error.
struct Items<'a>(&'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, IllFormed>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(match byte {
            0x00..=0x1f => Ok(Item::Global(byte)),
            0x80..=0x9f => self.with_length(usize::from(byte & 0x1f) + 1),
            0x20..=0x7f => Ok(Item::Tep(Suboption { tep: byte, v: false, data: &[] })),
            // ENO-6: without a length byte the data is the rest of the option, however long.
            0xa0..=0xff => {
                let data = core::mem::take(&mut self.0);
                Ok(Item::Tep(Suboption { tep: byte & 0x7f, v: true, data }))
            }
        })
    }
}

impl<'a> Items<'a> {
    /// The suboption after a length byte that announces `len` bytes of data (ENO-2, ENO-5).
    fn with_length(&mut self, len: usize) -> Result<Item<'a>, IllFormed> {
        let rest = core::mem::take(&mut self.0);
        let (&byte, rest) = rest.split_first().ok_or(IllFormed::PastEnd)?;
        if byte < 0xa0 {
            return Err(IllFormed::NoDataAllowed);
        }
        let (data, rest) = rest.split_at_checked(len).ok_or(IllFormed::PastEnd)?;
        self.0 = rest;
        Ok(Item::Tep(Suboption { tep: byte & 0x7f, v: true, data }))
    }
}

/// The TCP options of any kind but NOP, each with kind and length; an `Err` ends the walk.
struct TcpOptions<'a>(&'a [u8]);

/// An impossible option length, of an option of this kind.
struct BadLength(u8);

impl<'a> Iterator for TcpOptions<'a> {
    type Item = Result<&'a [u8], BadLength>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match *self.0 {
                [] | [KIND_END, ..] => return None,
                [KIND_NOP, ref rest @ ..] => self.0 = rest,
                [_, len, ..] if len >= 2 && usize::from(len) <= self.0.len() => {
                    let (option, rest) = self.0.split_at(usize::from(len));
                    self.0 = rest;
                    return Some(Ok(option));
                }
                [kind, ..] => {
                    self.0 = &[];
                    return Some(Err(BadLength(kind)));
                }
            }
        }
    }
}

/// Finds the ENO option in the option area of a SYN or SYN-ACK.
#[must_use]
pub fn find_syn(option_area: &[u8]) -> SynArea<'_> {
    let mut found = None;
    let mut duplicate = false;
    for option in TcpOptions(option_area) {
        match option {
            Err(BadLength(kind)) => return SynArea::MalformedArea { eno: kind == KIND || found.is_some() },
            Ok(option @ [KIND, ..]) => {
                duplicate |= found.is_some();
                found = Some(option);
            }
            Ok(_) => {}
        }
    }
    match found {
        _ if duplicate => SynArea::Duplicate,
        None => SynArea::None,
        Some(raw) => match SynOption::parse(raw) {
            Ok(option) => SynArea::Option(option),
            Err(why) => SynArea::IllFormed(why),
        },
    }
}

/// Whether the option area of a non-SYN segment has an ENO option, whatever its contents (ENO-1).
#[must_use]
pub fn has_eno(option_area: &[u8]) -> bool {
    TcpOptions(option_area).any(|option| matches!(option, Ok([KIND, ..])))
}

#[cfg(test)]
mod tests;
