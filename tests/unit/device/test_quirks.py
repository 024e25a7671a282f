"""Quirk rows: names, combinations."""

import pytest

from gbgw.base.codec import H264, H265, PCMA
from gbgw.base.errors import ConfigError
from gbgw.device.quirks import BY_NAME, BY_THE_BOOK, QUIRKS, behaviour
from gbgw.mux.ps import HIKVISION, PLAIN

REQUIRED = {
    "no-psm", "own-ssrc", "no-y", "zero-length-pes", "psm-lies-about-audio", "late-audio", "tcp-garbage", "b-frames",
    "no-media", "wrong-codec", "ssrc-change", "restart-mid-stream", "double-answer", "no-answer", "reject-486",
    "silent-after",
}  # fmt: skip


def test_names_are_unique_and_complete() -> None:
    assert len(BY_NAME) == len(QUIRKS)
    assert set(BY_NAME) >= REQUIRED
    assert all(quirk.description for quirk in QUIRKS)


def test_rows_combine_in_any_order() -> None:
    one = behaviour(["no-psm", "pes-per-nal", "late-audio"])
    assert one == behaviour(["late-audio", "pes-per-nal", "no-psm"])
    assert one.style.pes_per_nal
    assert not one.style.program_map
    assert one.audio_after == 2.0
    assert behaviour([]) == BY_THE_BOOK


def test_lies_follow_from_the_codec() -> None:
    assert behaviour(["wrong-codec"]).style_for(H264).declared_video is H265
    assert behaviour(["wrong-codec"]).style_for(H265).declared_video is H264
    assert behaviour(["psm-lies-about-audio"]).style_for(H264).promised_audio is PCMA
    assert behaviour(["aac-as-g711"]).style_for(H264).declared_audio is PCMA
    assert behaviour(["pes-per-nal"]).style_for(H264) == HIKVISION
    assert BY_THE_BOOK.style_for(H264) == PLAIN


def test_an_unknown_name_is_refused_with_a_remedy() -> None:
    with pytest.raises(ConfigError, match="no quirk is called nonsense") as caught:
        behaviour(["no-psm", "nonsense"])
    assert "--quirk list" in caught.value.remedy
