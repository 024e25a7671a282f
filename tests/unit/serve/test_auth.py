"""Tokens and play URLs: what opens, what does not, and what is stored."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp.test_utils import make_mocked_request

from gbgw.base import limits
from gbgw.base.errors import LimitError, RequestError
from gbgw.serve.auth import Authority, allows, check_origin, new_token
from tests.unit.serve.support import KEY, SECRET, MemoryTokens, world


def authority(store: MemoryTokens | None = None) -> Authority:
    return Authority(store if store is not None else MemoryTokens(), play_secret=SECRET)


async def test_only_the_hash_is_stored() -> None:
    store = MemoryTokens()
    secret, row = await authority(store).create("x", ("view",))
    assert row.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in repr(store.rows)
    again = authority(store)
    await again.load()
    found = again.bearer(secret)
    assert found is not None
    assert found.name == "x"
    assert again.bearer(secret + "x") is None
    assert again.bearer("") is None
    assert again.bearer("x" * (limits.TOKEN_CHARS + 1)) is None


async def test_the_admin_token_is_made_once_and_is_random() -> None:
    store = MemoryTokens()
    one = authority(store)
    first = await one.ensure_admin()
    assert first is not None
    assert await one.ensure_admin() is None
    assert await authority().ensure_admin() != first


async def test_expired_and_revoked_tokens_open_nothing() -> None:
    store = MemoryTokens()
    keeper = authority(store)
    past = datetime.now(UTC) - timedelta(seconds=1)
    expired, _ = await keeper.create("old", ("admin",), expires=past)
    assert keeper.bearer(expired) is None
    assert await keeper.ensure_admin() is not None  # an expired admin is none
    secret, row = await keeper.create("x", ("view",))
    assert await keeper.revoke(row.id)
    assert not await keeper.revoke(row.id)
    assert keeper.bearer(secret) is None
    assert row.id not in store.rows


@pytest.mark.parametrize(
    ("owned", "wanted", "expected"),
    [
        ("view", "view", True),
        ("view", "control", False),
        ("control", "view", True),
        ("control", "admin", False),
        ("admin", "control", True),
    ],
)
def test_scopes_contain_those_below(owned: str, wanted: str, expected: bool) -> None:
    _, row = new_token("x", (owned,), now=datetime.now(UTC))  # type: ignore[arg-type]
    assert allows(row, wanted) is expected  # type: ignore[arg-type]


async def test_tokens_have_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TOKENS", 1)
    keeper = authority()
    await keeper.create("a", ("view",))
    with pytest.raises(LimitError):
        await keeper.create("b", ("view",))


def refusal(keeper: Authority, token: str, key: str = KEY) -> tuple[int, str] | None:
    request = make_mocked_request("GET", f"/live/{KEY}.flv?token={token}")
    try:
        keeper.require_play(request, key)
    except RequestError as error:
        return error.status, error.code
    return None


def test_a_play_token_opens_its_own_key_until_it_expires() -> None:
    keeper = authority()
    token, expires = keeper.sign_play(KEY, seconds=60)
    assert 55 < (expires - datetime.now(UTC)).total_seconds() <= 60
    assert refusal(keeper, token) is None
    assert refusal(keeper, token, KEY + "@1") == (403, "play_token_invalid")
    assert refusal(Authority(MemoryTokens(), play_secret=b"t" * 32), token) == (403, "play_token_invalid")
    old, _ = keeper.sign_play(KEY, seconds=-5)
    assert refusal(keeper, old) == (403, "play_token_expired")
    head, _, mac = old.partition(".")
    assert refusal(keeper, f"{int(head, 16) + 3_600:x}.{mac}") == (403, "play_token_invalid")
    assert refusal(keeper, "") == (401, "token_missing")
    with pytest.raises(RequestError, match="token") as caught:
        keeper.require_play(make_mocked_request("GET", f"/live/{KEY}.flv"), KEY)
    assert "?token=" in (caught.value.remedy or "")
    longest = keeper.sign_play(KEY, seconds=1e12)[1] - datetime.now(UTC)
    assert longest <= timedelta(seconds=limits.PLAY_TOKEN_SECONDS)


@pytest.mark.parametrize("token", [".", "zz.zz", "-1.x", "0x.", "." * 500, "%00.%ff", "1.é", "ffffffffffffffffff.a"])
def test_hostile_play_tokens_are_refused(token: str) -> None:
    found = refusal(authority(), token)
    assert found is not None
    assert found[0] in (401, 403)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Authority(MemoryTokens(), play_secret=b"short")


def test_websocket_origins() -> None:
    def origin(value: str | None, host: str = "gate:8080") -> None:
        headers = {"Host": host} | ({"Origin": value} if value is not None else {})
        check_origin(make_mocked_request("GET", "/", headers=headers), ("https://a.example",), "https://pub.example/x")

    for good in (None, "http://gate:8080", "https://a.example", "https://pub.example"):
        origin(good)
    for bad in ("http://gate", "null", "", "https://a.example.evil", "http://a.example", "h:/\t/gate:8080"):
        with pytest.raises(RequestError):
            origin(bad)


async def test_play_urls_need_a_token_over_http() -> None:
    async with world(play="token") as it:
        url = f"{it.url}/live/{KEY}.flv"
        async with it.client.get(url) as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert it.source.opened == []
        token, _ = it.serving.authority.sign_play(KEY)
        for options in ({"params": {"token": token}}, {"params": {"token": it.admin}}, {"headers": it.bearer()}):
            async with it.client.get(url, **options) as response:
                assert response.status == 200
        async with it.client.get(f"{it.url}/live/{KEY}/index.m3u8") as response:
            assert response.status == 401
        async with it.client.post(f"{it.url}/live/{KEY}/whep", data="v=0") as response:
            assert response.status == 401


def test_an_origin_that_is_no_url_is_refused() -> None:
    with pytest.raises(RequestError):
        check_origin(make_mocked_request("GET", "/", headers={"Host": "x", "Origin": "https://[::1"}), ())
