from gbgw.gb.control import KeyFrameCommands

CAMERA = "34020000001320000001"
SECONDS = 2.0


def test_rate_limit_is_per_channel() -> None:
    commands = KeyFrameCommands(SECONDS)
    first = commands.make("a", CAMERA, 1, "2.0", 0.0)
    assert first is not None
    assert b"<IFameCmd>Send</IFameCmd>" in first
    assert commands.make("a", CAMERA, 2, "2.0", SECONDS - 0.1) is None
    assert commands.make("b", CAMERA, 2, "3.0", 0.1) is not None
    third = commands.make("a", CAMERA, 3, "3.0", SECONDS)
    assert third is not None
    assert b"<IFrameCmd>Send</IFrameCmd>" in third


def test_memory_is_that_of_two_seconds() -> None:
    commands = KeyFrameCommands(SECONDS)
    for n in range(10_000):
        assert commands.ready(str(n), n * 0.01)
    assert len(commands._sent) <= 100 * SECONDS + 1
