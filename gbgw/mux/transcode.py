"""Transcoding on demand, in child processes: G.711 to AAC, and H.265 (or B-frames) to plain H.264 (architecture.md
decisions 7, 9 and 10).

One child encodes the sound of all streams; each picture transcode has a child of its own, and their number is capped.
What comes out is a Derived: a Stream of its own whose other tracks are passed on untouched, shared by everybody who
asked for the same. A dead child costs only its track: sound comes back when the next child runs, a transcoded picture
ends with the code "transcoder_died". Leaves out: Opus, other codecs' sound, hardware.
"""

import asyncio
import logging
import os
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from gbgw._ps import AccessUnit as Unit
from gbgw.base import limits
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import AAC, H264, PCMA, PCMU, Codec
from gbgw.base.errors import GatewayError, LimitError, LocalError, RequestError, StateError
from gbgw.base.tally import Tally
from gbgw.base.ticks import HZ
from gbgw.media import params
from gbgw.media.hub import Stream, Subscription
from gbgw.media.track import Track
from gbgw.mux.container import START_CODE
from gbgw.mux.transcode_child import AAC_SAMPLES, CLOSE, CONFIG, G711_HZ, HEADER, OPEN, UNIT, message

_log: Final = logging.getLogger(__name__)
BACKOFF_SECONDS: Final = (
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
)  # between two starts of the audio child; from the front again after a minute of life
BACKOFF_FORGIVEN_SECONDS: Final = 60.0
MAX_WIDTH: Final = 1_280
VIDEO_BITRATE: Final = 2_500_000
GOP_SECONDS: Final = 1.0

# What the child will make is known before it has started: AAC-LC, 8 kHz, mono; and one frame of silence, as its encoder
# writes it.
AAC_CONFIG: Final = bytes.fromhex("1588")
AAC_SILENCE: Final = bytes.fromhex("01182007")
AAC_FRAME_TICKS: Final = AAC_SAMPLES * HZ // G711_HZ

OnMessage = Callable[[int, bool, int, int, int, bytes], None]  # kind, is_keyframe, stream, pts, dts, payload


class Derived:
    """One user's hold on a derived Stream."""

    __slots__ = ("_bridge", "stream")

    def __init__(self, bridge: "_Bridge") -> None:
        self._bridge: _Bridge | None = bridge
        self.stream: Stream = bridge.stream

    async def close(self) -> None:
        """Let go; with the last user the stream ends and its child's work with it. May be called again."""
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            bridge.release()


class Permits(Protocol):
    """The right to run picture transcodes, which several processes may share."""

    async def take(self, key: str) -> None:
        """Raises LimitError "transcode_limit" where no more are allowed; the caller gives back what it took."""

    def give(self) -> None: ...


class PermitCount:
    """Permits that are counted here."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    async def take(self, key: str) -> None:
        self.take_now(key)

    def take_now(self, key: str) -> None:
        if self.taken >= self.limit:
            raise LimitError(
                f"{self.taken} of {self.limit} allowed picture transcodes are running.",
                code="transcode_limit",
                remedy="Raise media.transcode in the configuration, or use a player that decodes H.265.",
                stream=key,
            )
        self.taken += 1

    def give(self) -> None:
        self.taken -= 1


class Transcoders:
    """Owner of every transcoding child of this process; an async context manager that leaves none behind.

    video_limit: picture transcodes allowed at once ([media] transcode), of all processes that share `permits`. Counts
    transcode.* in `tally`.
    """

    def __init__(
        self,
        *,
        video_limit: int = 0,
        max_width: int = MAX_WIDTH,
        video_bitrate: int = VIDEO_BITRATE,
        gop_seconds: float = GOP_SECONDS,
        permits: Permits | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.video_limit = video_limit
        self._permits: Permits = permits if permits is not None else PermitCount(video_limit)
        self.tally = tally if tally is not None else Tally()
        self._settings = f"{max_width} {video_bitrate} {round(gop_seconds * HZ)}"
        self._group: asyncio.TaskGroup | None = None
        self._audio: _AudioChild | None = None
        self._bridges: dict[tuple[str, int], _Bridge] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        group, self._group = self._group, None
        for bridge in tuple(self._bridges.values()):
            bridge.end(None)
        for task in tuple(self._tasks):
            task.cancel()
        if group is not None:
            # Not told of an error in the body, which would come out wrapped in a group
            await group.__aexit__(None, None, None)

    @property
    def videos(self) -> int:
        """Picture transcodes just now."""
        return sum(1 for kind, _ in self._bridges if kind == "h264")

    @property
    def audio_pid(self) -> int | None:
        """Process id of the audio child, while it runs."""
        return self._audio.pid if self._audio is not None else None

    @property
    def video_pids(self) -> Sequence[int]:
        """Process ids of the running video children."""
        pids = (bridge.pid for bridge in self._bridges.values())
        return tuple(pid for pid in pids if pid is not None)

    async def aac(self, stream: Stream) -> Derived:
        """Return `stream` with its G.711 sound as AAC, should it come later too; a stream without such sound is passed
        on as it is."""
        bridge = self._bridges.get(("aac", id(stream)))
        if bridge is None:
            if stream.audio is not None and self._audio is not None and self._audio.is_full:
                raise LimitError(
                    "As many streams have their sound transcoded as one child takes.",
                    code="transcode_limit",
                    remedy="Ask for audio=native, or spread the streams over more workers.",
                    stream=stream.key,
                )
            bridge = _AacBridge(self, stream)
            self._add("aac", bridge)
        return bridge.hold()

    async def h264(self, stream: Stream) -> Derived:
        """Return `stream` with its picture as H.264 without B-frames. Raises RequestError "transcode_off" where the
        operator allows none, LimitError "transcode_limit" where no more are allowed.
        """
        bridge = self._bridges.get(("h264", id(stream)))
        if bridge is None:
            if self.video_limit == 0:
                raise RequestError(
                    "This gateway does not transcode pictures.",
                    status=406,
                    code="transcode_off",
                    remedy="Set media.transcode in the configuration, or use a player that decodes H.265.",
                    stream=stream.key,
                )
            bridge = await self._new_video(stream)
        return bridge.hold()

    async def _new_video(self, stream: Stream) -> "_Bridge":
        await self._permits.take(stream.key)
        made = self._bridges.get(("h264", id(stream)))
        if made is not None:  # by another viewer, meanwhile
            self._permits.give()
            return made
        bridge = _VideoBridge(self, stream, self._settings)
        self._add("h264", bridge)
        self._start(f"transcode:{stream.key}", bridge.run)
        return bridge

    def audio_child(self) -> "_AudioChild":
        """The child that encodes all sound, started by the first that has any."""
        if self._audio is None:
            self._audio = _AudioChild(self.tally)
            self._start("transcode:audio", self._audio.supervise)
        return self._audio

    def _add(self, kind: str, bridge: "_Bridge") -> None:
        key = (kind, id(bridge.source))
        self._bridges[key] = bridge
        bridge.on_close = lambda: self._forget(key, bridge)
        bridge.attach()

    def _forget(self, key: tuple[str, int], bridge: "_Bridge") -> None:
        if self._bridges.get(key) is bridge:
            del self._bridges[key]
            if key[0] == "h264":
                self._permits.give()

    def _start(self, name: str, run: "_Run") -> None:
        if self._group is None:
            raise StateError("The transcoders are closed.")
        task = self._group.create_task(run(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Run(Protocol):
    async def __call__(self) -> None: ...


class _Child:
    """One life of a child process. What it says on standard error is tallied, at most a line at a time."""

    def __init__(self, role: str, on_message: OnMessage, tally: Tally) -> None:
        self._role = role
        self._on_message = on_message
        self._tally = tally
        self._process: asyncio.subprocess.Process | None = None
        self._written = 0
        self._taken = 0
        self._taken_at = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def pending_bytes(self) -> int:
        """Bytes that the child has not read yet; above limits.TRANSCODE_PENDING_BYTES nothing more is sent."""
        stdin = self._process.stdin if self._process is not None else None
        return stdin.transport.get_write_buffer_size() if stdin is not None else 0

    def send(self, data: bytes) -> bool:
        """Send one message; False where there is no child, or it is too slow."""
        process = self._process
        if process is None or process.stdin is None or process.stdin.is_closing() or process.returncode is not None:
            return False
        if self.pending_bytes + len(data) > limits.TRANSCODE_PENDING_BYTES + limits.ACCESS_UNIT_BYTES:
            return False
        process.stdin.write(data)
        self._written += len(data)
        return True

    def watch(self, now: float) -> None:
        """Kill a child that has work and has not taken a byte of it for limits.TRANSCODE_STUCK_SECONDS; call it now and
        then.
        """
        process = self._process
        taken = self._written - self.pending_bytes
        if process is None or taken != self._taken or taken == self._written:
            self._taken = taken
            self._taken_at = now
        elif now - self._taken_at > limits.TRANSCODE_STUCK_SECONDS and process.returncode is None:
            self._taken_at = now
            self._tally.add("transcode.stuck", now=now)
            process.kill()

    async def run(self, on_start: Callable[[], None]) -> int:
        """Start the child, call on_start, read until it ends; return its exit status. Cancelled, it kills the child at
        once.
        """
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # what lies in the folder we run in is not imported
            *("-m", "gbgw.mux.transcode_child", self._role),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for the parent, which ends its children itself
        )
        try:
            on_start()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(process), name=f"transcode-stderr:{process.pid}")
                await self._read(process)
            return await process.wait()
        finally:
            self._process = None
            if process.returncode is None:
                try:
                    process.kill()
                except ProcessLookupError:
                    self._tally.add("transcode.gone")
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        stdout = process.stdout
        if stdout is None:
            return
        try:
            while True:
                kind, is_keyframe, stream, pts, dts, length = HEADER.unpack(await stdout.readexactly(HEADER.size))
                if length > limits.TRANSCODE_FRAME_BYTES:
                    self._tally.add("transcode.malformed")
                    process.kill()
                    return
                self._on_message(kind, bool(is_keyframe), stream, pts, dts, await stdout.readexactly(length))
        except asyncio.IncompleteReadError:
            return

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        stderr = process.stderr
        if stderr is None:
            return
        while line := await stderr.read(limits.TRANSCODE_STDERR_LINE):
            text = line.decode(errors="replace").strip()
            self._tally.add("transcode.stderr", detail=text, now=asyncio.get_running_loop().time())
            _log.warning("transcoding child %d: %s", process.pid, text)


def _environment() -> dict[str, str]:
    """Return an environment in which the child finds this very package, installed or not."""
    root = str(Path(__file__).resolve().parents[2])
    found = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{found}" if found else root}


class _Bridge(ABC):
    """A Sink of the source that feeds a derived Stream; shared by its users."""

    def __init__(self, owner: Transcoders, source: Stream, kind: str) -> None:
        self.source = source
        self.stream = Stream(f"{source.key}#{kind}", tally=Tally(owner.tally))
        self.tally = owner.tally
        self.on_close: Callable[[], None] | None = None
        self._users = 0
        self._subscription: Subscription | None = None
        self._closed = False
        self._first = True

    @property
    def pid(self) -> int | None:
        """Of a child of its own, while it runs."""
        return None

    def attach(self) -> None:
        subscription = self.source.attach(self)
        if self._closed:
            subscription.detach()
        else:
            self._subscription = subscription

    def hold(self) -> Derived:
        self._users += 1
        return Derived(self)

    def release(self) -> None:
        self._users -= 1
        if self._users <= 0:
            self.end(None)

    def end(self, cause: GatewayError | None) -> None:
        """End the derived stream and everything behind it. May be called again."""
        if self._closed:
            return
        self._closed = True
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.detach()
        self._stop()
        self.stream.close(cause)
        if self.on_close is not None:
            self.on_close()

    @abstractmethod
    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None: ...

    @abstractmethod
    def on_unit(self, unit: AccessUnit, track: Track) -> None: ...

    def on_end(self, cause: GatewayError | None) -> None:
        self._subscription = None
        self.end(cause)

    @abstractmethod
    def _stop(self) -> None: ...

    def _pass_on(self, unit: AccessUnit, track: Track) -> None:
        """Publish a unit as it is; the first key frame of a generation with its parameter sets, should the camera have
        sent them only once.
        """
        if track.is_video and unit.is_keyframe and self._first:
            self._first = False
            unit = _with_parameter_sets(unit, track)
        self.stream.push(unit, asyncio.get_running_loop().time())


def _with_parameter_sets(unit: AccessUnit, track: Track) -> AccessUnit:
    if unit.parameter_sets:
        return unit
    data = b"".join(START_CODE + nal for nal in track.parameter_sets) + bytes(unit)
    return Unit(
        data,
        track.codec,
        unit.pts,
        unit.dts,
        is_keyframe=True,
        parameter_sets=track.parameter_sets,
        track_id=unit.track_id,
        discontinuity=unit.discontinuity,
        arrived=unit.arrived,
    )


class _AudioChild:
    """The one child that encodes the sound of all streams, and its successors."""

    def __init__(self, tally: Tally) -> None:
        self.streams: dict[int, _AacBridge] = {}
        self._tally = tally
        self._next = 0
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    @property
    def is_full(self) -> bool:
        return len(self.streams) >= limits.TRANSCODE_AUDIO_STREAMS

    def admit(self, bridge: "_AacBridge") -> int:
        """Take a stream; return its number, 0 where there is no room."""
        if self.is_full:
            self._tally.add("transcode.audio_full")
            return 0
        self._next += 1
        self.streams[self._next] = bridge
        return self._next

    def dismiss(self, number: int) -> None:
        if self.streams.pop(number, None) is not None:
            self.send(message(CLOSE, number, 0, 0, b""))

    def send(self, data: bytes) -> bool:
        return self._child is not None and self._child.send(data)

    def watch(self) -> None:
        if self._child is not None:
            self._child.watch(asyncio.get_running_loop().time())

    async def supervise(self) -> None:
        """Keep a child running until cancelled."""
        clock = asyncio.get_running_loop().time
        failures = 0
        while True:
            self._child = _Child("audio", self._on_message, self._tally)
            started = clock()
            try:
                status = await self._child.run(self._reopen)
                self._tally.add("transcode.audio_died", detail=f"exit status {status}", now=clock())
            except OSError as error:  # no memory, no processes left
                self._tally.add("transcode.audio_failed", detail=str(error), now=clock())
            finally:
                self._child = None
            failures = 1 if clock() - started > BACKOFF_FORGIVEN_SECONDS else failures + 1
            await asyncio.sleep(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1])

    def _reopen(self) -> None:
        for number, bridge in self.streams.items():
            bridge.open(number)

    def _on_message(self, kind: int, is_keyframe: bool, stream: int, pts: int, dts: int, payload: bytes) -> None:
        bridge = self.streams.get(stream)
        if bridge is not None:
            bridge.on_message(kind, pts, payload)


class _AacBridge(_Bridge):
    """Pictures pass, G.711 goes through the child from the moment that there is any, AAC passes."""

    def __init__(self, owner: Transcoders, source: Stream) -> None:
        super().__init__(owner, source, "aac")
        self._owner = owner
        self._child: _AudioChild | None = None
        self._number = 0
        self._codec: Codec | None = None
        self._track_id = 0
        self._config = AAC_CONFIG
        self._last_pts: int | None = None
        self._announced = False
        self._early: deque[bytes] = deque(maxlen=limits.TRANSCODE_EARLY_PIECES)  # what came before the child was there

    def open(self, number: int) -> None:
        """(Re)open the stream in a child that just started."""
        if self._codec is not None and self._child is not None:
            self._child.send(message(OPEN, number, 0, 0, self._codec.name.encode()))
            for data in self._early:
                self._child.send(data)
            self._early.clear()

    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None:
        self._first = True
        sound = next((track for track in tracks if not track.is_video), None)
        codec = sound.codec if sound is not None and sound.codec in (PCMA, PCMU) else None
        if codec is not self._codec:
            self._stop()
            self._codec = codec
            self._announced = False
            if codec is not None:
                self._child = self._owner.audio_child()
                self._number = self._child.admit(self)
                if self._number:
                    self.open(self._number)
        is_heard = sound is not None and (codec is None or self._number > 0)
        self.stream.promise(is_heard, video=any(track.is_video for track in tracks))
        if sound is not None:
            self._track_id = sound.track_id

    def on_unit(self, unit: AccessUnit, track: Track) -> None:
        if track.codec is not self._codec:
            self._pass_on(unit, track)
        elif unit.pts is not None and self._child is not None and self._number:
            if not self._announced:
                # The encoder's first frame is a quarter of a second away, a cold child's half a second. Silence from
                # before it keeps the picture from waiting for it, and the tracks from changing when it comes.
                self._announced = True
                self._publish(unit.pts - 2 * AAC_FRAME_TICKS, AAC_SILENCE)
            data = message(UNIT, self._number, unit.pts, unit.pts, bytes(unit))
            self._child.watch()
            if self._child.pid is None:
                self._early.append(data)
            elif not self._child.send(data):
                self.tally.add("transcode.dropped")

    def on_message(self, kind: int, pts: int, payload: bytes) -> None:
        if kind == CONFIG:
            self._config = payload[:2]  # object type, rate, channels; what follows only says that there is no SBR
            return
        self._publish(pts, payload)

    def _publish(self, pts: int, frame: bytes) -> None:
        if self._closed or (self._last_pts is not None and pts <= self._last_pts):
            return  # after a restart the new encoder's first frame overlaps with what was heard
        self._last_pts = pts
        now = asyncio.get_running_loop().time()
        sets = (self._config,)
        unit = Unit(frame, AAC, pts, pts, is_keyframe=True, parameter_sets=sets, track_id=self._track_id, arrived=now)
        self.stream.push(unit, now)

    def _stop(self) -> None:
        self._early.clear()
        if self._number and self._child is not None:
            self._child.dismiss(self._number)
        self._number = 0


class _VideoBridge(_Bridge):
    """Sound passes, the picture goes through a child of its own."""

    def __init__(self, owner: Transcoders, source: Stream, settings: str) -> None:
        super().__init__(owner, source, "h264")
        self._settings = settings
        self._child = _Child("video", self._on_message, owner.tally)
        self._task: asyncio.Task[None] | None = None
        self._codec: Codec | None = None
        self._track_id = 0
        self._running = False
        self._waiting: list[tuple[AccessUnit, Track]] = []
        self._waiting_bytes = 0
        self._skipping = True  # to a key frame

    @property
    def pid(self) -> int | None:
        return self._child.pid

    async def run(self) -> None:
        """Live as long as the child does."""
        self._task = asyncio.current_task()
        cause = "ended"
        try:
            if not self._closed:
                cause = f"ended with status {await self._child.run(self._begin)}"
        except OSError as error:
            cause = f"could not run: {error}"
        finally:
            self._running = False
            if not self._closed:
                self.tally.add("transcode.video_died", detail=cause)
            self.end(
                LocalError(
                    f"The process that transcoded the picture {cause}.",
                    code="transcoder_died",
                    remedy="Open the URL again; the log holds what the process said.",
                    stream=self.source.key,
                )
            )

    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None:
        self._first = True
        self._skipping = True
        video = next((track for track in tracks if track.is_video), None)
        self.stream.promise(any(not track.is_video for track in tracks), video=video is not None)
        self._codec = None
        if video is not None:
            self._codec, self._track_id = video.codec, video.track_id
            if self._running:
                self._open()

    def on_unit(self, unit: AccessUnit, track: Track) -> None:
        if not track.is_video:
            self._pass_on(unit, track)
        elif self._running:
            self._send(unit, track)
        else:
            self._wait(unit, track)

    def _wait(self, unit: AccessUnit, track: Track) -> None:
        """Keep what comes before the child is there: one GOP at most, and not more than it would be sent at once."""
        if unit.is_keyframe:
            self._waiting.clear()
            self._waiting_bytes = 0
        elif not self._waiting:
            return
        self._waiting_bytes += len(unit)
        if self._waiting_bytes > limits.TRANSCODE_PENDING_BYTES:
            self.tally.add("transcode.dropped", len(self._waiting) + 1)
            self._waiting.clear()
            return
        self._waiting.append((unit, track))

    def _begin(self) -> None:
        self._running = True
        self._open()
        waiting, self._waiting = self._waiting, []
        for unit, track in waiting:
            self._send(unit, track)

    def _open(self) -> None:
        if self._codec is not None and self._child is not None:
            self._child.send(message(OPEN, 0, 0, 0, f"{self._codec.name} {self._settings}".encode()))

    def _send(self, unit: AccessUnit, track: Track) -> None:
        if unit.pts is None or unit.dts is None:
            return
        self._child.watch(asyncio.get_running_loop().time())
        if self._skipping and not (
            unit.is_keyframe and self._child.pending_bytes < limits.TRANSCODE_PENDING_BYTES // 2
        ):
            self.tally.add("transcode.dropped")
            return
        if unit.is_keyframe and self._first:
            self._first = False
            unit = _with_parameter_sets(unit, track)
        pts, dts = unit.pts, unit.dts
        data = message(UNIT, 0, pts or 0, dts or 0, bytes(unit), is_keyframe=unit.is_keyframe)
        self._skipping = self._child.pending_bytes > limits.TRANSCODE_PENDING_BYTES or not self._child.send(data)
        if self._skipping:
            self.tally.add("transcode.dropped")

    def _on_message(self, kind: int, is_keyframe: bool, stream: int, pts: int, dts: int, payload: bytes) -> None:
        if kind != UNIT or self._closed:
            return
        now = asyncio.get_running_loop().time()
        sets: tuple[bytes, ...] = ()
        if is_keyframe:
            nals = params.nal_units(payload)
            sets = tuple(bytes(nal) for nal in nals if params.h264_type(nal) in (params.H264_SPS, params.H264_PPS))
        unit = Unit(
            payload, H264, pts, dts, is_keyframe=is_keyframe, parameter_sets=sets, track_id=self._track_id, arrived=now
        )
        self.stream.push(unit, now)

    def _stop(self) -> None:
        self._waiting.clear()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
