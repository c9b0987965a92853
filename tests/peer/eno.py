"""The TCP-ENO option (RFC 8547): parsing, and what two options negotiate.

Written from the RFC text alone. `ENO-n` and `TC-n` are the numbered requirements used in this project.
"""

from dataclasses import dataclass, field

KIND = 69
TEPS = (0x21, 0x22, 0x23, 0x24)


class IllFormed(Exception):
    """A SYN-form option that ENO-5 calls ill-formed."""


@dataclass
class Option:
    """A parsed SYN-form option (ENO-2 .. ENO-6)."""

    glob: int = 0
    globals_seen: int = 0
    subs: list = field(default_factory=list)  # (tep, v, data)

    @property
    def a(self):
        return (self.glob >> 1) & 1

    @property
    def b(self):
        return self.glob & 1

    @property
    def vacuous(self):
        return not self.subs


def parse(contents):
    """Contents of a SYN-form option, without kind and length."""
    out = Option()
    i = 0
    while i < len(contents):
        byte = contents[i]
        i += 1
        if byte < 0x20:
            if out.globals_seen == 0:
                out.glob = byte
            out.globals_seen += 1
        elif 0x80 <= byte <= 0x9F:
            length = (byte & 0x1F) + 1
            if i >= len(contents):
                raise IllFormed("length byte at the end")
            sub = contents[i]
            i += 1
            if sub < 0xA0:
                raise IllFormed("length byte before 0x%02x" % sub)
            if i + length > len(contents):
                raise IllFormed("length byte reaches past the end")
            out.subs.append((sub & 0x7F, 1, bytes(contents[i : i + length])))
            i += length
        elif byte < 0x80:
            out.subs.append((byte, 0, b""))
        else:
            out.subs.append((byte & 0x7F, 1, bytes(contents[i:])))
            i = len(contents)
    return out


def from_area(area):
    """(result, contents) of the whole option area of a SYN.

    result: "ok", "no-eno", "duplicate" (ENO-3), "malformed-area" or "ill-formed"."""
    found = []
    i = 0
    while i < len(area):
        kind = area[i]
        if kind == 0:
            break
        if kind == 1:
            i += 1
            continue
        if i + 1 >= len(area):
            return "malformed-area", None
        length = area[i + 1]
        if length < 2 or i + length > len(area):
            return "malformed-area", None
        if kind == KIND:
            found.append(bytes(area[i + 2 : i + length]))
        i += length
    if not found:
        return "no-eno", None
    if len(found) > 1:
        return "duplicate", None
    try:
        parse(found[0])
    except IllFormed:
        return "ill-formed", found[0]
    return "ok", found[0]


def wire(contents):
    return bytes([KIND, len(contents) + 2]) + contents


@dataclass
class Secret:
    """A cached session secret, for resumption."""

    tep: int
    aead: int
    orig_role: str
    ss: bytes
    resume: bytes

    def own_half(self):
        return self.resume[:9] if self.orig_role == "A" else self.resume[9:]

    def other_half(self):
        return self.resume[9:] if self.orig_role == "A" else self.resume[:9]


@dataclass
class Outcome:
    result: str  # plain, fresh, resumed
    role: str = None
    tep: int = None
    tep_byte: int = None
    transcript: bytes = None
    sn: bytes = None
    why: str = ""


def _once(subs):
    count = {}
    for tep, _, _ in subs:
        count[tep] = count.get(tep, 0) + 1
    return {t for t, n in count.items() if n == 1}


def negotiate(own, theirs, active, simultaneous=False, secret=None, enabled=True,
              mandatory_aware=False, teps=TEPS, **_):
    """What a host concludes from the option it sent and the one it got (contents or None): ENO-7 .. ENO-10,
    and for a resumption TC-12 .. TC-18."""

    def plain(why):
        return Outcome("plain", why=why)

    if not enabled or own is None or theirs is None:
        return plain("no option")
    try:
        mine, peer = parse(own), parse(theirs)
    except IllFormed as error:
        return plain("ill-formed: %s" % error)
    if mandatory_aware and not peer.a:
        return plain("peer not application-aware")
    if mine.b == peer.b:
        return plain("same b")
    role = "B" if mine.b else "A"
    a, b = (peer, mine) if role == "B" else (mine, peer)
    valid = _once(a.subs) & _once(b.subs) & set(teps)
    offered = {t: (v, d) for t, v, d in a.subs}
    for tep, v, data in reversed(b.subs):
        if tep not in valid:
            continue
        # TC-17 and reading 14: v = 1 with too little for a resumption is v = 0, whoever sends it.
        resume = v == 1 and len(data) >= 9
        peer_sub = (data if role == "A" else offered[tep][1]) if resume else b""
        if resume:
            own_data = offered[tep][1] if role == "A" else data
            if secret is None or secret.tep != tep or len(own_data) < 9 or len(peer_sub) < 9:
                continue
            if own_data[:9] != secret.own_half() or peer_sub[:9] != secret.other_half():
                continue
            if len(own_data) > 17 or len(peer_sub) > 17:
                continue
            own_nonce, peer_nonce = own_data[9:], peer_sub[9:]
            sn = own_nonce + peer_nonce if secret.orig_role == "A" else peer_nonce + own_nonce
        transcript = wire(own) + wire(theirs) if role == "A" else wire(theirs) + wire(own)
        return Outcome("resumed" if resume else "fresh", role, tep, tep | (v << 7), transcript, sn if resume else None)
    return plain("no common TEP")


def reply(syn, cache=(), nonce=b"", enabled=True, resume=True, aware=False, mandatory_aware=False, teps=TEPS,
          nonce_len=8, **_):
    """What a passive opener answers to a SYN: (contents or None, resumed secret or None)."""
    if not enabled or syn is None:
        return None, None
    glob = 0x03 if aware or mandatory_aware else 0x01
    try:
        offer = parse(syn)
    except IllFormed:
        return None, None
    if offer.vacuous:
        return bytes([glob]), None
    if offer.b or (mandatory_aware and not offer.a):
        return None, None
    once = _once(offer.subs)
    if resume:
        for tep, v, data in offer.subs:
            if tep not in once or tep not in teps or not v or not 9 <= len(data) <= 17:
                continue
            for secret in cache:
                if secret.tep == tep and secret.other_half() == data[:9]:
                    return bytes([glob, tep | 0x80]) + secret.own_half() + nonce[:nonce_len], secret
    for tep in reversed(teps):
        if tep in once:
            return bytes([glob, tep]), None
    return None, None
