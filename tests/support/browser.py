"""A headless Chromium for tests, driven over WebDriver. Debian: chromium, chromium-driver."""

import base64
import shutil
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
IS_THERE = CHROMIUM is not None and DRIVER is not None
WHY_NOT = "needs chromium and chromedriver (Debian: apt install chromium chromium-driver)"
START_S = 20.0


@attrs.define
class Browser:
    """One window."""

    client: httpx.AsyncClient
    session: str

    async def command(self, method: str, path: str, **body: Any) -> Any:
        """One WebDriver command. Raises `AssertionError` with the driver's words."""
        response = await self.client.request(
            method, f"/session/{self.session}/{path}", json=body if method == "POST" else None
        )
        value = response.json()["value"]
        assert response.status_code == 200, value
        return value

    async def open(self, url: str) -> None:
        """Load a page."""
        await self.command("POST", "url", url=url)

    async def run(self, script: str, *args: Any) -> Any:
        """Run a function body in the page and return what it returns."""
        return await self.command("POST", "execute/sync", script=script, args=list(args))

    async def until(self, expression: str, within_s: float = 10.0) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""
        with trio.move_on_after(within_s):
            while True:
                value = await self.run(f"return ({expression})")
                if value:
                    return value
                await trio.sleep(0.05)
        raise AssertionError(f"not within {within_s:g} s: {expression}")

    async def click(self, selector: str) -> None:
        """Click the first element that matches, as a user would: it must be visible and not covered."""
        found = await self.command("POST", "element", using="css selector", value=selector)
        await self.command("POST", f"element/{next(iter(found.values()))}/click")

    async def text(self, selector: str) -> str:
        """The text of the first element that matches."""
        return str(await self.run("return document.querySelector(arguments[0]).textContent", selector))

    async def screenshot(self, path: Path) -> None:
        """The window as PNG."""
        await trio.Path(path).write_bytes(base64.b64decode(await self.command("GET", "screenshot")))

    async def console(self) -> list[str]:
        """Errors of the page so far."""
        lines = await self.command("POST", "se/log", type="browser")
        return [line["message"] for line in lines if line["level"] == "SEVERE"]


@asynccontextmanager
async def open_browser(
    width: int = 1280, height: int = 800, *, phone: bool = False, dark: bool = True, extra: Sequence[str] = ()
) -> AsyncGenerator[Browser, None]:
    """A browser of its own, without history; both processes are gone afterwards."""
    assert CHROMIUM is not None
    assert DRIVER is not None
    driver = subprocess.Popen(  # noqa: ASYNC220 - it is only started here
        [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    try:
        port = await trio.to_thread.run_sync(_port_of, driver)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as client:
            options: dict[str, Any] = {
                "binary": CHROMIUM,
                "args": [
                    "--headless=new",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-dev-shm-usage",
                    "--no-first-run",
                    "--disable-background-networking",
                    f"--window-size={width},{height}",
                    "--force-dark-mode" if dark else "--force-light-mode",
                    *extra,
                ],
            }
            if phone:
                options["mobileEmulation"] = {
                    "deviceMetrics": {"width": width, "height": height, "pixelRatio": 2.0, "mobile": True}
                }
            capabilities = {
                "alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            }
            response = await client.post("/session", json={"capabilities": capabilities})
            value = response.json()["value"]
            assert response.status_code == 200, value
            browser = Browser(client, value["sessionId"])
            try:
                yield browser
            finally:
                with trio.move_on_after(5, shield=True):
                    await client.delete(f"/session/{browser.session}")
    finally:
        driver.terminate()
        driver.wait(10)
        assert driver.stdout is not None
        driver.stdout.close()


def _port_of(driver: "subprocess.Popen[bytes]") -> int:
    assert driver.stdout is not None
    for line in driver.stdout:
        text = line.decode()
        if "started successfully on port" in text:
            return int(text.strip().rstrip(".").rsplit(" ", 1)[1])
    raise AssertionError("chromedriver did not start")
