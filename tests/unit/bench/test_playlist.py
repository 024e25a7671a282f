import pytest

from gbgw.bench.playlist import parse

MEDIA = """#EXTM3U
#EXT-X-VERSION:9
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.6
#EXT-X-PART-INF:PART-TARGET=0.2
#EXT-X-MEDIA-SEQUENCE:7
#EXT-X-MAP:URI="init-1.mp4"
#EXTINF:2.0,
7.m4s
#EXT-X-GAP
#EXTINF:2.0,
8.m4s
#EXT-X-PART:DURATION=0.2,URI="9.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.2,URI="9.1.m4s"
#EXTINF:2.0,
9.m4s
#EXT-X-PART:DURATION=0.2,INDEPENDENT=YES,URI="10.0.m4s"
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="10.1.m4s"
"""


def test_media_playlist() -> None:
    found = parse(MEDIA)
    assert (found.target_seconds, found.init, found.blocks, found.ended) == (2.0, "init-1.mp4", True, False)
    assert found.segments == {7: "7.m4s", 9: "9.m4s"}
    assert found.parts == {(9, 0): "9.0.m4s", (9, 1): "9.1.m4s", (10, 0): "10.0.m4s"}
    assert found.edge == (10, 1)


def test_delta_update_and_end() -> None:
    text = "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:10\n#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n#EXTINF:1,\nx\n#EXT-X-ENDLIST"
    found = parse(text)
    assert found.segments == {13: "x"}
    assert found.edge == (14, 0)
    assert found.ended


def test_multivariant() -> None:
    found = parse("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nmedia.m3u8?s=1\n")
    assert (found.variants, found.segments) == (["media.m3u8?s=1"], {})


@pytest.mark.parametrize("text", ["", "<html>", '#EXTM3U\n#EXT-X-MAP:FILE="x"'])
def test_what_is_no_playlist(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)
