"""The shell that steers cameras, in virtual time: what goes out, when, and again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gbgw.base import limits
from gbgw.base.errors import GatewayError, PeerError, RequestError
from gbgw.base.tally import Tally
from gbgw.gb import control, ptz
from gbgw.gb.control import Command
from gbgw.gb.ptz import STILL, Motion
from gbgw.gb.steering import Operator
from gbgw.steering import AGAIN_SECONDS, Place, Steering
from tests.support import clock

PLACE = ("34020000001320000001", "34020000001310000001")
OTHER = ("34020000001320000002", "34020000001310000002")
ANN, BOB = Operator("a", "Ann", 5), Operator("b", "Bob", 5)
RIGHT = Motion(pan=100)
STOP = ptz.move(0, 0, 0).serialize()


class World:
    """Commands that note what goes out; `seconds` until a device answers."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, str]] = []
        self.seconds: Callable[[], float] = lambda: 0.01
        self.failure: GatewayError | None = None
        self.offline = False
        self.stopped: list[tuple[Place, str]] = []
        self.tally = Tally()
        self.steering = Steering(self, self.tally, self._stopped)  # type: ignore[arg-type]

    def _stopped(self, place: Place, operator: Operator) -> None:
        self.stopped.append((place, operator.name))

    def reachable(self, device_id: str) -> None:
        if self.offline:
            raise PeerError("away", code="device_offline")

    async def command(self, device_id: str, target: str, command: Command, *, forced: bool = False) -> None:
        assert isinstance(command.value, str)
        self.sent.append((round(asyncio.get_running_loop().time() - self.began, 3), command.value))
        await asyncio.sleep(self.seconds())
        if self.failure is not None:
            raise self.failure

    began = 0.0

    @property
    def frames(self) -> list[str]:
        return [frame for _, frame in self.sent]


@asynccontextmanager
async def steering() -> AsyncIterator[World]:
    world = World()
    world.began = asyncio.get_running_loop().time()
    async with world.steering:
        yield world


def test_a_lease_that_is_not_renewed_ends_in_two_stops() -> None:
    async def main() -> None:
        async with steering() as world:
            hold = await world.steering.move(PLACE, ANN, RIGHT, 1.0)
            assert hold.motion == RIGHT
            await asyncio.sleep(0.5)
            await world.steering.move(PLACE, ANN, RIGHT, 1.0)
            await asyncio.sleep(5)
            assert [frame for at, frame in world.sent if at < 1] == [ptz.head_of(RIGHT, both=True).serialize()]
            assert world.frames[1:] == [STOP, STOP]
            assert world.sent[1][0] == pytest.approx(1.51)
            assert world.sent[2][0] == pytest.approx(1.52 + AGAIN_SECONDS, abs=0.01)
            assert world.stopped == [(PLACE, "Ann")]
            await asyncio.sleep(limits.PTZ_HOLD_SECONDS)
            assert len(world.steering) == 0

    clock.run(main())


def test_a_stop_does_not_wait_for_the_move_and_is_said_again_when_that_was_late() -> None:
    """The move's 200 takes a second, so that it may have been repeated after the stop arrived."""

    async def main() -> None:
        async with steering() as world:
            world.seconds = lambda: 1.0
            moving = asyncio.ensure_future(world.steering.move(PLACE, ANN, RIGHT, 5.0))
            await asyncio.sleep(0.1)
            world.seconds = lambda: 0.01
            await world.steering.release(PLACE, ANN)
            assert world.sent[1] == (0.1, STOP)
            await moving
            await asyncio.sleep(1)
            assert world.tally["steering.said_again"] == 1
            assert STOP in [frame for at, frame in world.sent if at >= 1.0]
            assert world.frames.count(ptz.head_of(RIGHT, both=True).serialize()) == 1

    clock.run(main())


def test_a_client_that_leaves_does_not_stop_the_sending() -> None:
    async def main() -> None:
        async with steering() as world:
            world.seconds = lambda: 0.2
            both = Motion(pan=10, focus=10)
            asking = asyncio.ensure_future(world.steering.move(PLACE, ANN, both, 1.0))
            await asyncio.sleep(0.05)
            asking.cancel()
            await asyncio.sleep(0.5)
            assert world.frames == [ptz.head_of(both, both=True).serialize(), ptz.lens_of(both).serialize()]
            await asyncio.sleep(3)
            assert world.frames[2:4] == [STOP, ptz.lens(0, 0).serialize()]

    clock.run(main())


def test_a_move_that_failed_ends_its_lease_and_the_stop_is_tried() -> None:
    async def main() -> None:
        async with steering() as world:
            world.failure = PeerError("silence", code="timeout")
            with pytest.raises(PeerError):
                await world.steering.move(PLACE, ANN, RIGHT, 10.0)
            await asyncio.sleep(0.1)
            assert world.frames[-1] == STOP, "it may have obeyed"
            assert world.tally["steering.not_stopped"] == 1

    clock.run(main())


def test_presets_stop_what_moves_and_need_the_same_lock() -> None:
    async def main() -> None:
        async with steering() as world:
            await world.steering.move(PLACE, ANN, RIGHT, 5.0)
            go = control.ptz(ptz.preset(ptz.CALL_PRESET, 1))
            with pytest.raises(RequestError):
                await world.steering.aim(PLACE, BOB, [go])
            await world.steering.aim(PLACE, ANN, [go])
            assert world.frames[-2:] == [STOP, go.value]
            await world.steering.aim(OTHER, BOB, [go])

    clock.run(main())


def test_an_offline_device_is_refused_before_anything_is_held() -> None:
    async def main() -> None:
        async with steering() as world:
            world.offline = True
            with pytest.raises(PeerError):
                await world.steering.move(PLACE, ANN, RIGHT, 5.0)
            assert (len(world.steering), world.sent) == (0, [])
            world.offline = False
            await world.steering.move(PLACE, ANN, RIGHT, 5.0)
            world.steering.gone(PLACE[0])
            assert world.steering.holder(PLACE) is None
            await asyncio.sleep(10)
            assert len(world.sent) == 1, "nobody is told to stop any more"

    clock.run(main())


def test_the_end_stops_everything_and_waits_for_nobody_long() -> None:
    async def main() -> None:
        async with steering() as world:
            await world.steering.move(PLACE, ANN, RIGHT, 10.0)
            await world.steering.move(OTHER, BOB, Motion(zoom=5), 10.0)
            world.seconds = lambda: 60.0
            before = asyncio.get_running_loop().time()
        assert world.frames[2:] == [STOP, STOP]
        assert asyncio.get_running_loop().time() - before <= limits.GOODBYE_SECONDS + 0.1
        assert world.tally["steering.not_stopped"] == 1

    clock.run(main())


def test_still_is_still() -> None:
    async def main() -> None:
        async with steering() as world:
            await world.steering.move(PLACE, ANN, STILL, 1.0)
            await world.steering.release(PLACE, ANN)
            await world.steering.release(PLACE, BOB)
            assert world.sent == []

    clock.run(main())
