"""Configuration: one TOML file, every key optional (docs/operations.md lists them).

Order: default < file < GBGW_SECTION__KEY in the environment < --set section.key=value. Unknown keys, wrong types and
impossible combinations are
errors that name the key, its origin (file and line, environment variable, or --set) and what was expected.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gbgw.base import limits
from gbgw.base.errors import ConfigError

Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def port_range(text: str) -> range:
    """Parse "30000" or "30000-34999" (inclusive); ValueError otherwise."""
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text.strip())
    if match is None:
        raise ValueError(f'expected "PORT" or "FIRST-LAST", got {text!r}')
    first = int(match[1])
    last = int(match[2] or first)
    if not 1 <= first <= last <= 65_535:
        raise ValueError(f"expected 1 <= first <= last <= 65535, got {text!r}")
    return range(first, last + 1)


def cpu_list(text: str) -> list[int]:
    """Parse "0,2-3" as taskset does; ValueError otherwise."""
    cpus: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
            raise ValueError(f'expected "", "auto" or a list such as "1,3-5", got {text!r}')
        if int(last or first) >= 4_096:
            raise ValueError(f"no machine has processor {last or first}")
        cpus += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(cpus))


def split_url(url: str, schemes: Sequence[str]) -> tuple[str, str, int]:
    """Return (scheme, host, port) of "udp://0.0.0.0:5060"; ValueError names what is wrong."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r}: {error}") from None
    if parts.scheme not in schemes or not parts.hostname or port is None:
        raise ValueError(f"expected {'|'.join(schemes)}://HOST:PORT, got {url!r}")
    return parts.scheme, parts.hostname, port


def host_port(text: str) -> tuple[str, int]:
    """Parse "127.0.0.1:8080" or "[::1]:8080"."""
    _, host, port = split_url(f"tcp://{text}", ["tcp"])
    return host, port


class SipConfig(Section):
    id: str = Field("34020000002000000001", pattern=r"^[0-9]{20}$", description="20-digit code of this platform")
    domain: str = Field("3402000000", pattern=r"^[A-Za-z0-9.:-]{1,64}$", description="SIP domain and digest realm")
    listen: tuple[str, ...] = ("udp://0.0.0.0:5060", "tcp://0.0.0.0:5060")
    advertise: str = Field("", description="address in Contact and SDP; empty: per peer, by route")
    invite_seconds: Seconds = 10
    password: str = Field("", description="one for all devices; empty: only devices known to the API", repr=False)
    keepalive_seconds: Seconds = Field(60, description="interval expected from a device that never told its own")
    keepalive_misses: int = Field(3, ge=1, le=100)
    expires_seconds: int = Field(
        limits.REGISTER_MAX_SECONDS,
        ge=limits.REGISTER_MIN_SECONDS,
        le=2_592_000,
        description="longest registration granted",
    )
    keyframe_seconds: Seconds = Field(2, description="shortest time between two IFrame commands to one channel")

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("expected at least one address")
        for url in value:
            split_url(url, ["udp", "tcp"])
        return value


class MediaConfig(Section):
    ports: str = "30000-34999"
    single_port: int = Field(0, ge=0, le=65_535, description="one port for all streams, by SSRC; 0: a pair for each")
    transport: Literal["udp", "tcp-passive", "tcp-active"] = "udp"
    first_packet_seconds: Seconds = 10
    key_frame_seconds: Seconds = Field(12, description="from the first packet to the first key frame")
    idle_seconds: Seconds = 15
    linger_seconds: float = Field(20, ge=0, le=86_400)
    loss: Literal["freeze", "pass"] = "freeze"
    transcode: int = Field(0, ge=0, le=64, description="H.265 to H.264 transcodes allowed at once")
    workers: Annotated[int, Field(ge=0, le=limits.WORKERS)] | Literal["auto"] = Field(
        "auto", description="media worker processes; 0: all in one process; auto: processors - 1 (gbgw serve, demo)"
    )
    worker_cpus: str = Field("", description="processors of the workers: a list, auto, or empty for any")
    eager: tuple[Literal["flv", "mp4", "ts"], ...] = ()
    receive: Literal["thread", "loop"] = Field("thread", description="who reads RTP over UDP")
    rtcp: bool = Field(True, description="send RTCP receiver reports every 5 s")
    overload_seconds: float = Field(
        0.5, ge=0, le=60, description="new streams are refused while units wait longer for the loop; 0: never"
    )
    sessions: int = Field(2_000, ge=1, le=30_000, description="streams from cameras at once")

    @field_validator("ports")
    @classmethod
    def _ports(cls, value: str) -> str:
        if len(port_range(value)) < 2:
            raise ValueError("expected a range of at least two ports (even RTP, odd RTCP)")
        return value

    @field_validator("worker_cpus")
    @classmethod
    def _worker_cpus(cls, value: str) -> str:
        if value not in ("", "auto"):
            cpu_list(value)
        return value


class WebRtcConfig(Section):
    ports: str = Field("", description="a single port for all, or a range with one for each; empty: ephemeral")
    advertise: tuple[str, ...] = Field((), description="extra candidate addresses (NAT)")
    ice_servers: tuple[str, ...] = ()
    sender: Literal["native", "aiortc"] = Field("native", description="who packs and sends: gbgw, or aiortc, slower")

    @field_validator("advertise")
    @classmethod
    def _advertise(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ip_address(host)) for host in value)

    @field_validator("ports")
    @classmethod
    def _ports(cls, value: str) -> str:
        if value:
            port_range(value)
        return value


class HttpConfig(Section):
    listen: str = Field("127.0.0.1:8080", description="public addresses are an explicit choice")
    public_url: str = Field("", description="as seen through a proxy; the base path follows from it")
    cors: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = Field((), description="addresses whose X-Forwarded-For is believed")

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        host_port(value)
        return value

    @field_validator("public_url")
    @classmethod
    def _public_url(cls, value: str) -> str:
        if value and urlsplit(value).scheme not in ("http", "https"):
            raise ValueError(f"expected http(s)://..., got {value!r}")
        return value.rstrip("/")


class StoreConfig(Section):
    url: str = "sqlite:///gbgw.db"

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if not value.startswith("sqlite://"):
            raise ValueError(f'expected "sqlite:///PATH", got {value!r} (redis:// comes with the cluster)')
        return value


class DownloadConfig(Section):
    folder: str = Field("", description="of downloaded recordings; empty: `downloads` beside the store")
    gigabytes: float = Field(20, gt=0, le=1_000_000, description="that they may hold together")
    hours: float = Field(24, gt=0, le=8_760, description="that a finished one is kept")


class AuthConfig(Section):
    play: Literal["token", "open"] = "token"
    admin_token_file: str = Field("", description="the first start writes the admin token here, mode 0600")
    play_token_seconds: Seconds = Field(3_600, description="validity of a signed play URL")


class LogConfig(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = Field("auto", description="auto: console on a terminal, else JSON")


class Config(Section):
    """The whole configuration, frozen."""

    sip: SipConfig = SipConfig()
    media: MediaConfig = MediaConfig()
    webrtc: WebRtcConfig = WebRtcConfig()
    http: HttpConfig = HttpConfig()
    store: StoreConfig = StoreConfig()
    download: DownloadConfig = DownloadConfig()
    auth: AuthConfig = AuthConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        single = self.media.single_port
        if single and self.media.receive != "thread":
            raise ValueError('media.single_port needs media.receive = "thread"')
        media = {single} if single else set(port_range(self.media.ports))
        shown = f"media.single_port {single}" if single else f"media.ports {self.media.ports}"
        for url in self.sip.listen:
            scheme, _, port = split_url(url, ["udp", "tcp"])
            if port in media and (scheme == "udp" or single):
                raise ValueError(f"sip.listen port {port} lies inside {shown}")
        if self.webrtc.ports and media & set(port_range(self.webrtc.ports)):
            raise ValueError(f"webrtc.ports {self.webrtc.ports} and {shown} overlap")
        return self


@dataclass(slots=True)
class Loaded:
    """A configuration and where each value came from ("default", "gbgw.toml:12", "GBGW_SIP__ID", "--set")."""

    config: Config
    origins: dict[str, str] = field(default_factory=dict)


def load(path: str | None = None, *, env: Mapping[str, str] | None = None, overrides: Sequence[str] = ()) -> Loaded:
    """Read, merge and validate. Raises ConfigError that names the key, its origin and what was expected."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if path is not None:
        _read_file(path, values, origins)
    for name, text in sorted((env or {}).items()):
        match = re.fullmatch(r"GBGW_([A-Z]+)__([A-Z0-9_]+)", name)
        if match:
            _put(values, origins, match[1].lower(), match[2].lower(), _scalar(text), origin=name)
    for override in overrides:
        key, separator, text = override.partition("=")
        section, dot, option = key.strip().partition(".")
        if not separator or not dot:
            raise ConfigError(
                f"--set {override!r}: expected SECTION.KEY=VALUE", remedy="for example --set media.ports=30000-30499"
            )
        _put(values, origins, section, option, _scalar(text.strip()), origin="--set")
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        problems = _explain(error, origins)
        raise ConfigError(
            "; ".join(problems), remedy="gbgw config show prints every key with its default", problems=problems
        ) from None
    return Loaded(config, origins)


def _read_file(path: str, values: dict[str, Any], origins: dict[str, str]) -> None:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", remedy="check the path given with -c") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text", remedy="save the file as UTF-8") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", remedy="see https://toml.io for the syntax") from None
    lines = _lines(text)
    for section, content in document.items():
        origin = f"{path}:{lines.get(section, 1)}"
        if not isinstance(content, dict):
            raise ConfigError(
                f"{origin}: {section} stands outside any [section]",
                remedy=f"sections are {', '.join(Config.model_fields)}",
            )
        if section not in Config.model_fields:
            origins[section] = origin
            values[section] = content
            continue
        for key, value in content.items():
            line = lines.get(f"{section}.{key}", lines.get(section, 1))
            _put(values, origins, section, key, value, origin=f"{path}:{line}")


def _lines(text: str) -> dict[str, int]:
    """Line of each [section] and section.key, good enough to point a person at it."""
    found: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            section = match[1]
            found.setdefault(section, number)
        elif match := re.match(r'\s*"?([\w-]+)"?\s*=', line):
            found.setdefault(f"{section}.{match[1]}" if section else match[1], number)
    return found


def _scalar(text: str) -> Any:
    """A TOML value if it reads as one, else the text itself: 30000-30499 and tcp-passive need no quotes."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _put(values: dict[str, Any], origins: dict[str, str], section: str, key: str, value: Any, *, origin: str) -> None:
    model = Config.model_fields.get(section)
    option = model.annotation.model_fields.get(key) if model is not None and model.annotation is not None else None
    if (
        option is not None
        and option.annotation is str
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    ):
        value = str(value)  # ids and single ports are text; --set sip.id=3402... must not become a number
    values.setdefault(section, {})[key] = value
    origins[f"{section}.{key}"] = origin
    if section not in Config.model_fields:
        origins.setdefault(section, origin)


def _explain(error: ValidationError, origins: Mapping[str, str]) -> list[str]:
    lines = []
    for problem in error.errors():
        where = [str(part) for part in problem["loc"]]
        key = ".".join(where[:2])
        origin = origins.get(key) or origins.get(where[0] if where else "") or "default"
        if problem["type"] == "extra_forbidden":
            known = _known(where)
            lines.append(f"{origin}: unknown key {'.'.join(where)}; expected one of {known}")
            continue
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{origin}: {'.'.join(where) or 'configuration'}: {message}")
    return lines


def _known(where: Sequence[str]) -> str:
    if len(where) >= 2 and (model := Config.model_fields.get(where[0])) is not None and model.annotation is not None:
        return ", ".join(model.annotation.model_fields)
    return ", ".join(f"[{name}]" for name in Config.model_fields)
