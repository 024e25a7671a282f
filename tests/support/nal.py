"""Write parameter sets bit by bit, from the syntax tables of H.264 and H.265, so that the parser is judged by another
hand than its own.
"""

from dataclasses import dataclass, field


@dataclass
class BitWriter:
    bits: list[str] = field(default_factory=list)

    def u(self, value: int, width: int) -> "BitWriter":
        self.bits.append(f"{value:0{width}b}")
        return self

    def ue(self, *values: int) -> "BitWriter":
        for value in values:
            code = f"{value + 1:b}"
            self.bits.append("0" * (len(code) - 1) + code)
        return self

    def se(self, value: int) -> "BitWriter":
        return self.ue(2 * value - 1 if value > 0 else -2 * value)

    def payload(self) -> bytes:
        """With rbsp_trailing_bits."""
        text = "".join(self.bits) + "1"
        text += "0" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big")


def escape(header: bytes, rbsp: bytes) -> bytes:
    """Insert emulation prevention bytes (H.264 section 7.4.1)."""
    out = bytearray()
    zeros = 0
    for byte in header + rbsp:
        if zeros >= 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)


def h264_sps(
    *,
    profile: int = 77,
    constraints: int = 0,
    level: int = 31,
    sps_id: int = 0,
    chroma: int = 1,
    width_mbs: int = 20,
    height_map_units: int = 15,
    frames_only: bool = True,
    crop: tuple[int, int, int, int] | None = None,
    order: int = 0,
    references: int = 1,
    scaling: bool = False,
    ticks: tuple[int, int] | None = None,
    hrd: bool = False,
    reorder: int | None = None,
) -> bytes:
    bits = BitWriter().u(profile, 8).u(constraints, 8).u(level, 8).ue(sps_id)
    if profile in (100, 110, 122, 244):
        bits.ue(chroma)
        if chroma == 3:
            bits.u(0, 1)
        bits.ue(0, 0).u(0, 1).u(scaling, 1)
        if scaling:
            bits.u(1, 1).se(4)
            for _ in range(15):
                bits.se(0)
            bits.u(1, 1).se(-8)  # next scale 0: default list, nothing more is coded
            for _ in range(10 if chroma == 3 else 6):
                bits.u(0, 1)
    bits.ue(0, order)
    if order == 0:
        bits.ue(2)
    elif order == 1:
        bits.u(0, 1).se(-3).se(2).ue(2).se(1).se(-1)
    bits.ue(references).u(0, 1).ue(width_mbs - 1, height_map_units - 1).u(frames_only, 1)
    if not frames_only:
        bits.u(0, 1)
    bits.u(1, 1).u(crop is not None, 1)
    if crop is not None:
        bits.ue(*crop)
    vui = ticks is not None or reorder is not None or hrd
    bits.u(vui, 1)
    if vui:
        bits.u(1, 1).u(255, 8).u(4, 16).u(3, 16)  # aspect ratio
        bits.u(1, 1).u(0, 1)  # overscan
        bits.u(1, 1).u(5, 3).u(1, 1).u(1, 1).u(1, 8).u(1, 8).u(1, 8)  # video signal
        bits.u(1, 1).ue(0, 0)  # chroma location
        bits.u(ticks is not None, 1)
        if ticks is not None:
            bits.u(ticks[0], 32).u(ticks[1], 32).u(1, 1)
        for _ in range(2):
            bits.u(hrd, 1)
            if hrd:
                bits.ue(1).u(4, 4).u(4, 4)
                for _ in range(2):
                    bits.ue(1_000, 2_000).u(0, 1)
                bits.u(23, 5).u(23, 5).u(23, 5).u(24, 5)
        if hrd:
            bits.u(0, 1)
        bits.u(0, 1).u(reorder is not None, 1)
        if reorder is not None:
            bits.u(1, 1).ue(2, 1, 10, 10, reorder, max(reorder, 1))
    return escape(b"\x67", bits.payload())


def h264_pps(pps_id: int = 0, sps_id: int = 0, tail: int = 0) -> bytes:
    return escape(b"\x68", BitWriter().ue(pps_id, sps_id).u(0, 2).ue(tail, 0, 0).payload())


def _profile_tier_level(bits: BitWriter, level: int, sub_layers: int) -> None:
    bits.u(0, 2).u(0, 1).u(1, 5).u(0x6000_0000, 32).u(0xB0_0000_0000_00, 48).u(level, 8)
    for _ in range(sub_layers):
        bits.u(1, 1).u(1, 1)
    if sub_layers:
        bits.u(0, 2 * (8 - sub_layers))
    for _ in range(sub_layers):
        bits.u(0, 88).u(level, 8)


def h265_vps(*, level: int = 93, ticks: tuple[int, int] | None = None, sub_layers: int = 0) -> bytes:
    bits = BitWriter().u(0, 4).u(3, 2).u(0, 6).u(sub_layers, 3).u(1, 1).u(0xFFFF, 16)
    _profile_tier_level(bits, level, sub_layers)
    bits.u(0, 1).ue(4, 2, 0).u(0, 6).ue(0).u(ticks is not None, 1)
    if ticks is not None:
        bits.u(ticks[0], 32).u(ticks[1], 32).u(0, 1).ue(0)
    bits.u(0, 1)
    return escape(b"\x40\x01", bits.payload())


def h265_sps(
    *,
    level: int = 93,
    sps_id: int = 0,
    chroma: int = 1,
    width: int = 1_920,
    height: int = 1_088,
    window: tuple[int, int, int, int] | None = (0, 0, 0, 4),
    sub_layers: int = 0,
    reorder: tuple[int, ...] = (2,),
    predicted_sets: bool = False,
    scaling: bool = False,
    ticks: tuple[int, int] | None = None,
) -> bytes:
    bits = BitWriter().u(0, 4).u(sub_layers, 3).u(1, 1)
    _profile_tier_level(bits, level, sub_layers)
    bits.ue(sps_id, chroma)
    if chroma == 3:
        bits.u(0, 1)
    bits.ue(width, height).u(window is not None, 1)
    if window is not None:
        bits.ue(*window)
    bits.ue(0, 0, 4).u(len(reorder) > 1, 1)
    for depth in reorder:
        bits.ue(depth + 1, depth, 0)
    bits.ue(0, 3, 0, 3, 1, 1).u(scaling, 1)
    if scaling:
        bits.u(1, 1)
        for size in range(4):
            for matrix in range(0, 6, 3 if size == 3 else 1):
                coded = matrix == 0
                bits.u(coded, 1)
                if not coded:
                    bits.ue(0)
                    continue
                if size > 1:
                    bits.se(4)
                for _ in range(min(64, 1 << (4 + 2 * size))):
                    bits.se(0)
    bits.u(0, 1).u(1, 1).u(0, 1)  # amp, sao, no pcm
    if predicted_sets:
        # {-1, -3, +1}; then predicted with deltaRps -1: -1+-1, -3 unused and undelta'd, 1-1 = 0 vanishes, itself -1
        # -> {-1, -2}; then one more
        bits.ue(3)
        bits.ue(2, 1).ue(0).u(1, 1).ue(1).u(1, 1).ue(0).u(1, 1)
        bits.u(1, 1).u(1, 1).ue(0).u(1, 1).u(0, 1).u(0, 1).u(1, 1).u(1, 1)
        bits.u(1, 1).u(0, 1).ue(0)
        for _ in range(3):  # two pictures of the set before, and the set itself
            bits.u(1, 1)
    else:
        bits.ue(1).ue(1, 0).ue(0).u(1, 1)
    bits.u(1, 1).ue(1).u(3, 8).u(1, 1)  # one long-term picture: lsb of log2_max_poc_lsb = 8 bits, used flag
    bits.u(1, 1).u(1, 1).u(1, 1)  # temporal mvp, strong intra, vui
    bits.u(0, 1).u(0, 1).u(0, 1).u(0, 1).u(0, 3).u(1, 1).ue(0, 0, 0, 0).u(ticks is not None, 1)
    if ticks is not None:
        bits.u(ticks[0], 32).u(ticks[1], 32).u(0, 1).u(0, 1)
    bits.u(0, 1).u(0, 1)
    return escape(b"\x42\x01", bits.payload())


def h265_pps(pps_id: int = 0, sps_id: int = 0) -> bytes:
    return escape(b"\x44\x01", BitWriter().ue(pps_id, sps_id).u(0, 7).payload())


def adts(
    raw: bytes, *, rate_index: int = 4, layout: int = 2, crc: bool = False, blocks: int = 1, profile: int = 1
) -> bytes:
    """One ADTS frame (ISO/IEC 14496-3 section 1.A.3.2)."""
    length = len(raw) + (9 if crc else 7)
    bits = BitWriter().u(0xFFF, 12).u(0, 3).u(not crc, 1).u(profile, 2).u(rate_index, 4).u(0, 1).u(layout, 3)
    bits.u(0, 4).u(length, 13).u(0x7FF, 11).u(blocks - 1, 2)
    text = "".join(bits.bits)
    head = int(text, 2).to_bytes(7, "big")
    return head + (b"\x12\x34" if crc else b"") + raw
