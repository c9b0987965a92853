"""Checks eno.py and tcpcrypt.py against a directory of test vectors (see its README)."""

import hashlib
import json
import os

import eno
import tcpcrypt as tc


def _load(directory, name):
    with open(os.path.join(directory, name), encoding="ascii") as file:
        return json.load(file)


def _secret(spec):
    if not spec:
        return None
    return eno.Secret(spec["tep"], spec["aead"], spec["orig_role"], bytes.fromhex(spec["ss"]), bytes.fromhex(spec["resume"]))


def _unhex(text):
    return None if text is None else bytes.fromhex(text)


def check(directory):
    """Returns (number checked, list of what differs)."""
    bad, count = [], 0

    def same(label, got, want):
        nonlocal count
        count += 1
        if got != want:
            bad.append("%s: got %r, want %r" % (label, got, want))

    def option_fields(label, opt, spec):
        same(label, (opt.glob, opt.a, opt.b, opt.vacuous, [{"tep": t, "v": v, "data": d.hex()} for t, v, d in opt.subs]),
             (spec["global"], spec["a"], spec["b"], spec["vacuous"], spec["suboptions"]))

    options = _load(directory, "eno_options.json")
    for spec in options["contents"]:
        try:
            opt = eno.parse(bytes.fromhex(spec["contents"]))
        except eno.IllFormed:
            same(spec["name"], "ill-formed", spec["result"])
        else:
            same(spec["name"], "ok", spec["result"])
            if spec["result"] == "ok":
                option_fields(spec["name"], opt, spec)
    for spec in options["areas"]:
        result, contents = eno.from_area(bytes.fromhex(spec["area"]))
        same(spec["name"], result, spec["result"])
        if result == "ok" == spec["result"]:
            option_fields(spec["name"], eno.parse(contents), spec)

    negotiation = _load(directory, "negotiation.json")
    for spec in negotiation["negotiations"]:
        for me, other in (("active", "passive"), ("passive", "active")):
            host = spec[me]
            out = eno.negotiate(_unhex(host["option"]), _unhex(spec[other]["option"]), me == "active",
                                simultaneous=spec.get("simultaneous"), secret=_secret(host.get("secret")), **host.get("settings", {}))
            want = host["outcome"]
            got = {"result": out.result}
            if out.result != "plain":
                got.update(role=out.role, tep=out.tep, tep_byte=out.tep_byte, transcript=out.transcript.hex())
                if out.result == "resumed":
                    got["sn"] = out.sn.hex()
            same("%s/%s" % (spec["name"], me), {k: v for k, v in got.items()}, {k: want.get(k) for k in got} | {"result": want["result"]})
    for spec in negotiation["replies"]:
        contents, secret = eno.reply(_unhex(spec["syn"]), [_secret(s) for s in spec["cache"]], _unhex(spec["nonce"]), **spec["settings"])
        nothing = spec["reply"] in (None, "01", "03") and not spec["resumes"]
        got = None if contents is None else contents.hex()
        if nothing and got in (None, "01", "03") and spec["syn"] is not None and spec["settings"].get("enabled", True):
            got = spec["reply"]  # ENO-11: both are allowed
        same("reply %s" % spec["name"], (got, secret is not None), (spec["reply"], spec["resumes"]))

    schedule = _load(directory, "key_schedule.json")
    for case in schedule["cases"]:
        name, tep = case["name"], case["tep"]
        keys = {r: tc.PrivateKey(tep, bytes.fromhex(case["private_" + r])) for r in "ab"}
        for r in "ab":
            same(name + " pub", keys[r].public().hex(), case["pub_" + r])
        es = keys["a"].agree(bytes.fromhex(case["pub_b"]))
        same(name + " es", (es.hex(), keys["b"].agree(bytes.fromhex(case["pub_a"])).hex()), (case["es"], case["es"]))
        msg1, msg2 = bytes.fromhex(case["init1"]), bytes.fromhex(case["init2"])
        ciphers, n_a, pub_a = tc.parse_init(tep, 1, msg1, strict=False)
        same(name + " init1", (ciphers, n_a.hex(), pub_a.hex()), (case["ciphers"], case["n_a"], case["pub_a"]))
        chosen, n_b, pub_b = tc.parse_init(tep, 2, msg2, strict=False)
        same(name + " init2", (chosen, n_b.hex(), pub_b.hex()), ([case["aead"]], case["n_b"], case["pub_b"]))
        prk = tc.Keys.prk(n_a, bytes.fromhex(case["transcript"]), msg1, msg2, es)
        same(name + " prk", prk.hex(), case["prk"])
        ss = prk
        for session in case["sessions"]:
            label = "%s session %d" % (name, session["i"])
            k = tc.Keys(ss, case["aead"], bytes.fromhex(session["sn"]), tep | (0x80 if session["i"] else 0))
            same(label, (k.ss.hex(), k.session_id().hex()), (session["ss"], session["session_id"]))
            for j in range(3):
                same(label, (k.master(j).hex(), k.traffic("ab", j).hex(), k.traffic("ba", j).hex()),
                     (session["mk"][j], session["k_ab"][j], session["k_ba"][j]))
            if session.get("resume"):
                same(label, k.resume().hex(), session["resume"])
            ss = k.next_secret()
    for spec in schedule["bad_keys"]:
        try:
            es = tc.PrivateKey(spec["tep"], bytes.fromhex(spec["private"])).agree(bytes.fromhex(spec["pub"])).hex()
        except tc.Violation:
            same(spec["name"], False, spec["valid"])
        else:
            same(spec["name"], (True, es), (spec["valid"], spec.get("es")))

    frames = _load(directory, "frames.json")
    for spec in frames["valid"]:
        k = tc.Keys(bytes.fromhex(spec["ss"]), spec["aead"], bytes.fromhex(spec["sn"]))
        data = bytes((spec["data_seed"] + 7 * i + i // 251) % 256 for i in range(spec["data_len"]))
        urgent = spec["urgent"]
        plain = bytes([spec["flags"]]) + (urgent.to_bytes(2, "big") if urgent is not None else b"") + data
        frame = k.seal(spec["direction"], spec["generation"], spec["offset"], plain, spec["control"])
        if spec.get("frame"):
            same(spec["name"], frame.hex(), spec["frame"])
        else:
            same(spec["name"], (len(frame), hashlib.sha256(frame).hexdigest(), frame[:67].hex(), frame[-16:].hex()),
                 (spec["frame_len"], spec["frame_sha256"], spec["frame_head"], spec["frame_tag"]))
        same(spec["name"], k.open(spec["direction"], spec["generation"], spec["offset"], frame), plain)
    for spec in frames["invalid"]:
        k = tc.Keys(bytes.fromhex(spec["ss"]), spec["aead"], bytes.fromhex(spec["sn"]))
        frame = bytes.fromhex(spec["frame"])
        whole = len(frame) >= 19 and int.from_bytes(frame[1:3], "big") == len(frame) - 3
        same(spec["name"], k.open(spec["direction"], spec["generation"], spec["offset"], frame) if whole else None, None)
    return count, bad
