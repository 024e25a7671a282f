"""The console's files: served from memory, cached right, and never anything outside their folder."""

from pathlib import Path

import pytest

from gbgw.serve import pages
from tests.unit.serve.support import world


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "console"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text('<html><head><base href="/" /></head>hello</html>')
    (folder / "assets" / "app-1a2b.js").write_text("start()")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    monkeypatch.setattr(pages, "FOLDER", folder)
    return folder


async def test_files_and_the_fallback_for_the_consoles_own_addresses(built: Path) -> None:
    async with world(public_url="https://x.example/gbgw") as it:
        for path in ("/", "/devices/3402", "/gbgw/", "/gbgw/devices/3402"):
            async with it.client.get(it.url + path) as response:
                assert response.status == 200, path
                assert '<base href="/gbgw/"' in await response.text()
                assert response.headers["Cache-Control"] == "no-cache"
                assert "default-src 'self'" in response.headers["Content-Security-Policy"]
                etag = response.headers["ETag"]
        async with it.client.get(f"{it.url}/", headers={"If-None-Match": etag}) as response:
            assert response.status == 304
        async with it.client.get(f"{it.url}/assets/app-1a2b.js") as response:
            assert response.headers["Content-Type"].startswith("text/javascript")
            assert "immutable" in response.headers["Cache-Control"]
            assert await response.text() == "start()"


@pytest.mark.parametrize(
    "path", ["/assets/none.js", "/link.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/api/v2/x", "/live/x"]
)
async def test_nothing_else_is_there(built: Path, path: str) -> None:
    async with world() as it, it.client.get(it.url + path) as response:
        assert response.status == 404
        assert "secret" not in await response.text()


async def test_an_unbuilt_console_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "FOLDER", tmp_path)
    async with world() as it, it.client.get(f"{it.url}/") as response:
        assert response.status == 503
        assert "make build" in await response.text()


async def test_scripts_travel_compressed_to_those_who_can_unpack(built: Path) -> None:
    script = "start();" * 1_000
    (built / "assets" / "large-3c4d.js").write_text(script)
    pages.files.cache_clear()
    async with world() as it:
        url = f"{it.url}/assets/large-3c4d.js"
        async with it.client.get(url, headers={"Accept-Encoding": "gzip"}, auto_decompress=False) as response:
            assert response.headers["Content-Encoding"] == "gzip"
            assert response.headers["Vary"] == "Accept-Encoding"
            assert len(await response.read()) < len(script) // 10
        async with it.client.get(url, headers={"Accept-Encoding": "identity"}) as response:
            assert "Content-Encoding" not in response.headers
            assert await response.text() == script
