"""Golden vectors: bytes made by hand from the standards' tables, and what they mean (tests/vectors/NAME/README.md)."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gbgw import _ps, _rtp
from gbgw.sip.digest import Authorization, ha1, response_digest
from gbgw.sip.message import Request
from gbgw.sip.parse import parse
from tests.model import ps_model, rtp_model

VECTORS = Path(__file__).parents[1] / "vectors"


def load(name: str) -> tuple[bytes, Any]:
    folder = VECTORS / name
    assert (folder / "README.md").read_text(encoding="utf-8").startswith(f"# {name}\n")
    return (folder / "input.bin").read_bytes(), json.loads((folder / "expect.json").read_text(encoding="utf-8"))


def test_every_vector_is_run() -> None:
    assert {path.name for path in VECTORS.iterdir()} == {"program_stream_key_frame", "digest_register"}


@pytest.mark.parametrize("cut", [1, 7, 1_400])
@pytest.mark.parametrize(("rtp", "ps"), [(_rtp, _ps), (rtp_model, ps_model)], ids=["core", "model"])
def test_program_stream_key_frame(rtp: Any, ps: Any, cut: int) -> None:
    data, expect = load("program_stream_key_frame")
    framer, demuxer = rtp.Framer(), ps.Demuxer()
    frames = [frame for at in range(0, len(data), cut) for frame in framer.push(data[at : at + cut])]
    assert len(frames) == 1
    packet = rtp.parse(frames[0])
    fields = {name: getattr(packet, name) for name in expect["rtp"] if name != "payload_bytes"}
    assert fields | {"payload_bytes": len(packet.payload)} == expect["rtp"]
    payload = bytes(packet.payload)
    units = [unit for at in range(0, len(payload), cut) for unit in demuxer.push(payload[at : at + cut], 0.0)]
    units += demuxer.flush()
    found = [
        {"codec": unit.codec.name, "pts": unit.pts, "is_keyframe": unit.is_keyframe, "data": bytes(unit).hex()}
        for unit in units
    ]
    assert sorted(found, key=lambda unit: unit["codec"]) == expect["units"]
    assert demuxer.counts["ps.maps"] == 1
    assert demuxer.counts["ps.malformed"] == 0


def test_digest_register() -> None:
    data, expect = load("digest_register")
    request = parse(data)
    assert isinstance(request, Request)
    given = Authorization.parse(request.headers.get("Authorization") or "")
    assert (given.username, given.realm) == (expect["username"], expect["realm"])
    by_hand = hashlib.md5(":".join((expect["username"], expect["realm"], expect["password"])).encode()).hexdigest()
    assert ha1(given.username, given.realm, expect["password"]) == by_hand == expect["ha1"]
    for case in expect["responses"]:
        asked = replace(given, algorithm=case["algorithm"], qop=case["qop"] or "")
        secret = ha1(given.username, given.realm, expect["password"], case["algorithm"])
        assert response_digest(secret, request.method, asked) == case["response"]
    assert given.response == expect["responses"][1]["response"]
