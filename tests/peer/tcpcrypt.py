"""tcpcrypt (RFC 8548): key exchange messages, key schedule, frames. Written from the RFC text alone."""

import hashlib
import hmac
import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, x448, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NEXTK, SESSID, REKEY, KEY_A, KEY_B, RESUME = (bytes([n]) for n in range(1, 7))
INIT1_MAGIC = bytes.fromhex("15101a0e")
INIT2_MAGIC = bytes.fromhex("097105e0")
P256, P521, X25519, X448 = 0x21, 0x22, 0x23, 0x24
AES128, AES256, CHACHA = 0x0001, 0x0002, 0x0010
KEY_LEN = {AES128: 16, AES256: 32, CHACHA: 32}
CURVES = {P256: (ec.SECP256R1, 33, 32), P521: (ec.SECP521R1, 67, 66)}
RAW_LEN = {X25519: 32, X448: 56}
TAG = 16


class Violation(Exception):
    """The other side broke a rule; the text names it."""


def extract(salt, ikm):
    return hmac.new(salt, ikm, hashlib.sha256).digest()


def cprf(key, const, length):
    out, block, n = b"", b"", 1
    while len(out) < length:
        block = hmac.new(key, block + const + bytes([n]), hashlib.sha256).digest()
        out += block
        n += 1
    return out[:length]


class PrivateKey:
    """An ephemeral key of one of the four schemes (TC-1, TC-2)."""

    def __init__(self, tep, private=None):
        self.tep = tep
        if tep in CURVES:
            curve = CURVES[tep][0]()
            self.key = ec.derive_private_key(int.from_bytes(private, "big"), curve) if private else ec.generate_private_key(curve)
        elif tep == X25519:
            cls = x25519.X25519PrivateKey
            self.key = cls.from_private_bytes(private) if private else cls.generate()
        else:
            cls = x448.X448PrivateKey
            self.key = cls.from_private_bytes(private) if private else cls.generate()

    def public(self):
        if self.tep in CURVES:
            point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
            return struct.pack("!H", len(point) + 2) + point
        return self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def agree(self, pub):
        try:
            if self.tep in CURVES:
                curve, length, size = CURVES[self.tep]
                if pub[0] != 0 or pub[1] not in (length, length + 2) or len(pub) != length + 2:
                    raise Violation("TC-2: length of a NIST point")
                if pub[2] not in (2, 3):
                    raise Violation("TC-1: not a compressed point")
                return self.key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(curve(), pub[2:])).rjust(size, b"\0")
            if len(pub) != RAW_LEN[self.tep]:
                raise Violation("TC-1: length of a public key")
            cls = x25519.X25519PublicKey if self.tep == X25519 else x448.X448PublicKey
            shared = self.key.exchange(cls.from_public_bytes(pub))
            if not any(shared):
                raise Violation("TC-1: all-zero shared secret")
            return shared
        except ValueError as error:
            raise Violation("TC-1: bad public key: %s" % error) from error


def pub_wire_len(tep):
    return CURVES[tep][1] + 2 if tep in CURVES else RAW_LEN[tep]


def init1(tep, ciphers, nonce, pub, ignored=b"", magic=INIT1_MAGIC, message_len=None):
    body = bytes([len(ciphers)]) + b"".join(struct.pack("!H", c) for c in ciphers) + nonce + pub + ignored
    return magic + struct.pack("!I", 8 + len(body) if message_len is None else message_len) + body


def init2(tep, cipher, nonce, pub, ignored=b"", magic=INIT2_MAGIC, message_len=None):
    body = struct.pack("!H", cipher) + nonce + pub + ignored
    return magic + struct.pack("!I", 8 + len(body) if message_len is None else message_len) + body


def init_len(buf):
    """message_len once 8 bytes are there, else None."""
    return struct.unpack("!I", buf[4:8])[0] if len(buf) >= 8 else None


def parse_init(tep, which, msg, strict=True):
    """(ciphers, nonce, pub) of a whole Init1 (which = 1) or Init2; `strict`: nothing after the key (TC-3)."""
    magic = INIT1_MAGIC if which == 1 else INIT2_MAGIC
    if msg[:4] != magic:
        raise Violation("TC-3: Init%d magic is %s" % (which, msg[:4].hex()))
    if which == 1:
        count = msg[8]
        at = 9 + 2 * count
        ciphers = [struct.unpack("!H", msg[9 + 2 * i : 11 + 2 * i])[0] for i in range(count)]
    else:
        at = 10
        ciphers = [struct.unpack("!H", msg[8:10])[0]]
    nonce = msg[at : at + 32]
    at += 32
    pub = msg[at : at + pub_wire_len(tep)]
    if len(pub) != pub_wire_len(tep):
        raise Violation("TC-3: Init%d too short" % which)
    if strict and at + len(pub) != len(msg):
        raise Violation("TC-3: Init%d has %d bytes after the public key" % (which, len(msg) - at - len(pub)))
    if strict and tep in CURVES and struct.unpack("!H", pub[:2])[0] != len(pub):
        raise Violation("TC-2: length before the NIST point is %s" % pub[:2].hex())
    return ciphers, nonce, pub


def frame_nonce(nr, offset):
    return bytes(x ^ y for x, y in zip(nr, offset.to_bytes(12, "big")))


class Keys:
    """Key schedule from one session secret (TC-7 .. TC-10)."""

    def __init__(self, ss, aead, sn=b"", tep_byte=None):
        self.ss, self.aead, self.sn, self.tep_byte = ss, aead, sn, tep_byte
        self.masters = [cprf(ss, REKEY + sn, 32)]
        self.ciphers = {}

    @staticmethod
    def prk(nonce_a, transcript, msg1, msg2, es):
        return extract(nonce_a, transcript + msg1 + msg2 + es)

    def session_id(self):
        return bytes([self.tep_byte]) + cprf(self.ss, SESSID + self.sn, 32)

    def next_secret(self):
        return cprf(self.ss, NEXTK, 32)

    def resume(self):
        return cprf(self.ss, RESUME, 18)

    def master(self, generation):
        while len(self.masters) <= generation:
            self.masters.append(cprf(self.masters[-1], REKEY, 32))
        return self.masters[generation]

    def traffic(self, direction, generation):
        const = KEY_A if direction == "ab" else KEY_B
        return cprf(self.master(generation), const, KEY_LEN[self.aead] + 12)

    def cipher(self, direction, generation):
        """(AEAD object, nonce randomizer)"""
        found = self.ciphers.get((direction, generation))
        if found is None:
            key = self.traffic(direction, generation)
            split = KEY_LEN[self.aead]
            cls = ChaCha20Poly1305 if self.aead == CHACHA else AESGCM
            found = self.ciphers[direction, generation] = (cls(key[:split]), key[split:])
        return found

    def seal(self, direction, generation, offset, plaintext, control=0):
        aead, nr = self.cipher(direction, generation)
        header = struct.pack("!BH", control, len(plaintext) + TAG)
        return header + aead.encrypt(frame_nonce(nr, offset), plaintext, header)

    def open(self, direction, generation, offset, frame):
        """Plaintext, or None if the tag does not verify."""
        aead, nr = self.cipher(direction, generation)
        try:
            return aead.decrypt(frame_nonce(nr, offset), bytes(frame[3:]), bytes(frame[:3]))
        except InvalidTag:
            return None


def plaintext(data=b"", fin=False, urgent=None, reserved=0):
    flags = (1 if fin else 0) | (2 if urgent is not None else 0) | reserved
    return bytes([flags]) + (struct.pack("!H", urgent) if urgent is not None else b"") + data


def fresh_nonce():
    return os.urandom(32)
