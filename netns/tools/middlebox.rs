//! What a middlebox does to packets that nftables cannot do.

use std::collections::HashMap;

/// The TCP-ENO option kind.
const ENO: u8 = 69;
const FIN: u8 = 1;
const SYN: u8 = 2;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// The kinds of middlebox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// SYN-ACKs get the ENO option of the SYN that they answer in place of their own.
    Echo,
    /// Segments with data are cut in two, wherever.
    Resegment,
}

impl Kind {
    pub(crate) fn parse(word: &str) -> Option<Self> {
        match word {
            "echo" => Some(Self::Echo),
            "resegment" => Some(Self::Resegment),
            _ => None,
        }
    }
}

pub(crate) struct Middlebox {
    kind: Kind,
    /// ENO options of SYNs, by the addresses and ports of whom answers.
    syns: HashMap<Vec<u8>, Vec<u8>>,
    cut: usize,
}

/// A TCP packet's parts.
struct Parts<'a> {
    ip: &'a [u8],
    tcp: &'a [u8; 20],
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(packet: &'a [u8]) -> Option<Self> {
        let at = match (packet.first()? >> 4, packet.get(9)?, packet.get(6)?) {
            (4, 6, _) => usize::from(packet[0] & 15) * 4,
            (6, _, 6) => 40,
            _ => return None,
        };
        let (ip, rest) = packet.split_at_checked(at)?;
        let (tcp, _) = rest.split_first_chunk::<20>()?;
        let end = usize::from(tcp[12] >> 4) * 4;
        Some(Self { ip, tcp, options: rest.get(20..end)?, payload: rest.get(end..)? })
    }

    fn addresses(&self) -> (&[u8], &[u8]) {
        if self.ip[0] >> 4 == 4 { self.ip[12..20].split_at(4) } else { self.ip[8..40].split_at(16) }
    }

    /// Source and destination, or the other way round.
    fn key(&self, back: bool) -> Vec<u8> {
        let (src, dst) = self.addresses();
        let (sport, dport) = (&self.tcp[..2], &self.tcp[2..4]);
        if back { [dst, dport, src, sport].concat() } else { [src, sport, dst, dport].concat() }
    }

    /// A packet with these headers, lengths and checksums made right.
    fn build(&self, seq: u32, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut tcp = self.tcp.to_vec();
        tcp[4..8].copy_from_slice(&seq.to_be_bytes());
        tcp[12] = ((20 + options.len()) as u8 / 4) << 4;
        tcp[13] = flags;
        tcp[16..18].fill(0);
        tcp.extend_from_slice(&options);
        tcp.extend_from_slice(payload);
        let (src, dst) = self.addresses();
        let pseudo = [src, dst, &(tcp.len() as u32).to_be_bytes(), &[0, 0, 0, 6]].concat();
        let sum = checksum(&[&pseudo, &tcp]);
        tcp[16..18].copy_from_slice(&sum);
        let mut ip = self.ip.to_vec();
        if ip[0] >> 4 == 4 {
            let length = ((ip.len() + tcp.len()) as u16).to_be_bytes();
            ip[2..4].copy_from_slice(&length);
            ip[10..12].fill(0);
            let sum = checksum(&[&ip]);
            ip[10..12].copy_from_slice(&sum);
        } else {
            ip[4..6].copy_from_slice(&(tcp.len() as u16).to_be_bytes());
        }
        [ip, tcp].concat()
    }
}

fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    // Only the last part may be of odd length.
    let pairs = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = pairs.map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// The options of an area, without padding.
fn walk(mut area: &[u8]) -> Vec<&[u8]> {
    let mut options = Vec::new();
    while let [kind, rest @ ..] = area {
        match kind {
            0 => break,
            1 => area = rest,
            _ => {
                let Some(option) = rest.first().and_then(|len| area.get(..usize::from(*len))) else { break };
                if option.len() < 2 {
                    break;
                }
                options.push(option);
                area = &area[option.len()..];
            }
        }
    }
    options
}

impl Middlebox {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, syns: HashMap::new(), cut: 0 }
    }

    /// What becomes of a packet.
    pub(crate) fn pass(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let unchanged = || vec![packet.to_vec()];
        let Some(parts) = Parts::of(packet) else { return unchanged() };
        let (seq, flags) =
            (u32::from_be_bytes([parts.tcp[4], parts.tcp[5], parts.tcp[6], parts.tcp[7]]), parts.tcp[13]);
        match (self.kind, flags & (SYN | ACK)) {
            (Kind::Echo, SYN) => {
                if let Some(eno) = walk(parts.options).into_iter().find(|option| option[0] == ENO) {
                    self.syns.insert(parts.key(false), eno.to_vec());
                }
                unchanged()
            }
            (Kind::Echo, both) if both == SYN | ACK => {
                let Some(eno) = self.syns.get(&parts.key(true)) else { return unchanged() };
                let own = walk(parts.options).into_iter().filter(|option| option[0] != ENO);
                let options: Vec<&[u8]> = own.chain([&eno[..]]).collect();
                vec![parts.build(seq, flags, &options.concat(), parts.payload)]
            }
            (Kind::Resegment, ACK) if parts.payload.len() > 1 => {
                // From one byte up to all but one, not the same twice in a row.
                self.cut = (self.cut + 389) % (parts.payload.len() - 1);
                let (first, second) = parts.payload.split_at(self.cut + 1);
                let next = seq.wrapping_add(first.len() as u32);
                vec![
                    parts.build(seq, flags & !(FIN | PSH), parts.options, first),
                    parts.build(next, flags, parts.options, second),
                ]
            }
            _ => unchanged(),
        }
    }
}
