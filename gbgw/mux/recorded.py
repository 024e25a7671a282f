"""A second of the test pattern as it was recorded at a moment of the past, with that moment burnt in: date and time in
digits, and in the cells of the strip the picture's number since 1970, modulo 65536 (43 minutes at 25 a second).
"""

from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache

from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import AAC
from gbgw.base.ticks import HZ
from gbgw.mux.loop import encode_sound, make_loop
from gbgw.mux.pattern import BITS, PatternSpec, encode_pictures, tone


def picture_number(second: int, index: int, frame_rate: int) -> int:
    """Return the number burnt into picture `index` of a Unix second."""
    return (second * frame_rate + index) % (1 << BITS)


@lru_cache(maxsize=128)  # of 20 kB each: two minutes, for several who look at the same
def recorded_second(spec: PatternSpec, second: int) -> tuple[AccessUnit, ...]:
    """Draw and encode one second, its times from 0 on, a key frame first. Takes some 20 ms: call it off the loop.

    Sound in AAC does not fit into a second, and is left out.
    """
    rate = spec.frame_rate
    one = replace(spec, seconds=1, gop=rate, b_frames=0, audio=None if spec.audio is AAC else spec.audio)
    moment = datetime.fromtimestamp(second, UTC)
    drawn = [
        (
            picture_number(second, index, rate),
            f"{moment:%Y-%m-%d %H:%M:%S}.{index * 1_000 // rate:03}",
        )
        for index in range(rate)
    ]
    sound = encode_sound(tone(one), one.audio) if one.audio is not None else []
    return make_loop(
        one.video,
        encode_pictures(one, drawn),
        sound,
        audio=one.audio,
        duration=HZ,
        size=(one.width, one.height),
        frame_rate=rate,
    ).units
