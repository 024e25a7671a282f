"""Playbacks that the API named."""

import pytest

from gbgw.base import limits
from gbgw.base.errors import LimitError
from gbgw.playbacks import Playbacks
from gbgw.serve.source import StreamKey

KEY = "34020000001320000001-34020000001310000001-1000-2000"


def key(name: str) -> StreamKey:
    return StreamKey.parse(f"{KEY}-{name}")


def test_one_that_nobody_plays_is_forgotten() -> None:
    playing: set[str] = set()
    playbacks = Playbacks(playing.__contains__)
    made = playbacks.make(key("p2"), 0.0)
    playbacks.make(key("p1"), 0.0)
    assert [each.name for each in playbacks] == ["p1", "p2"]
    playing.add(str(made.key))
    later = limits.PLAYBACK_IDLE_SECONDS
    assert playbacks.get("p1", later) is None
    assert playbacks.get("p2", later) is made
    playing.clear()
    assert playbacks.get("p2", 2 * later - 1) is made
    assert playbacks.get("p2", 2 * later) is None


def test_they_are_dropped_and_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PLAYBACKS", 2)
    playbacks = Playbacks(lambda key: False)
    first = playbacks.make(key("p1"), 0.0)
    playbacks.make(key("p2"), 0.0)
    with pytest.raises(LimitError) as caught:
        playbacks.make(key("p3"), 1.0)
    assert caught.value.code == "playbacks_exhausted"
    assert playbacks.drop("p1") is first
    assert playbacks.drop("p1") is None
    playbacks.make(key("p3"), 1.0)
    playbacks.make(key("p4"), limits.PLAYBACK_IDLE_SECONDS)
    assert [each.name for each in playbacks] == ["p3", "p4"]
