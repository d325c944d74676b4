"""Makes the pictures of the documentation: the dashboard as chromium shows it, and the report of a test that fails.

python scripts/docs_pictures.py    # what `make pictures` does; writes docs/pictures
"""

from __future__ import annotations

import asyncio
import base64
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from av import VideoFrame
from playwright.async_api import async_playwright, expect

from cuttlefish_signaling import SignalingServer
from cuttlefish_signaling.testing import AsyncFakeClient, AsyncFakeDevice
from cuttlefish_signaling.webrtc import TestPattern, WebRtcDevice

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--allow-loopback-in-peer-connection",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
]

# The dashboard --------------------------------------------------------------------------------------------------------


class HomeScreen(TestPattern):
    """A home screen with rows of icons, in the place of the grey frames."""

    def __init__(self) -> None:
        super().__init__(176, 256)

    async def recv(self) -> VideoFrame:
        """The next frame."""
        frame = await super().recv()
        for plane, (wall, icon) in zip(frame.planes, ((70, 215), (150, 110), (100, 150)), strict=True):
            unit, stride = plane.width / 176, plane.line_size
            shade = 60 if plane is frame.planes[0] else 0
            rows = (
                self._row(y / unit, wall + round(shade * y / plane.height), icon, unit, stride)
                for y in range(plane.height)
            )
            plane.update(b"".join(rows))
        return frame

    @staticmethod
    def _row(y: float, wall: int, icon: int, unit: float, stride: int) -> bytes:
        """A row: the wall, and four icons where there is a row of them."""
        is_icon = y > 100 and (y - 100) % 52 < 26
        row = bytearray([wall]) * stride
        for left in (16, 55, 94, 133) if is_icon else ():
            row[round(left * unit) : round((left + 26) * unit)] = bytes([icon]) * round(26 * unit)
        return bytes(row)


TRIMMED = ", ".join(f"section[aria-labelledby={name}-title]" for name in ("clients", "info", "ice"))
"""Parts that would leave the conversation below the edge of the picture."""


async def dashboard(target: Path) -> None:
    """A server with four devices; the page shows the picture of one of them, and its conversation."""
    info = {"group_id": "ci", "displays": [], "hardware": {"CPUs": 4}}
    async with (
        SignalingServer(dashboard=True, journal=True) as server,
        WebRtcDevice(server, "cvd-1", video=HomeScreen),
        AsyncFakeDevice(server, "cvd-2", info=info),
        AsyncFakeDevice(server, "cvd-3", info=info),
        AsyncFakeDevice(server, "cvd-4", info=info),
        AsyncFakeClient(server, "cvd-2"),
        async_playwright() as playwright,
    ):
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page(viewport={"width": 1180, "height": 1000}, bypass_csp=True)
        await page.goto(f"{server.url}/#cvd-1")
        await page.locator("#connect").click()
        await expect(page.locator("#viewer-state")).to_have_text("connected", timeout=30_000)
        await page.wait_for_function("document.querySelector('video')?.videoWidth > 0")
        await page.add_style_tag(content=f"{TRIMMED}, #media-facts {{ display: none }}")
        devtools = await page.context.new_cdp_session(page)
        shot = await devtools.send("Page.captureScreenshot", {"format": "webp", "quality": 85})
        target.write_bytes(base64.b64decode(shot["data"]))
        await browser.close()


# The report of a failed test ------------------------------------------------------------------------------------------

TEST = """\
def test_device_accepts_the_offer(signaling_server, fake_device, fake_client):
    device, client = fake_device("cvd-1"), fake_client("cvd-1")
    client.send({"type": "request-offer"})
    device.recv().reply({"type": "offer", "sdp": "v=0"})
    signaling_server.journal.expect("answer", device="cvd-1", timeout=0.1)
"""

COLOURS = {"31": "#e06c75", "32": "#98c379", "33": "#e5c07b", "34": "#61afef", "36": "#56b6c2", "94": "#61afef"}
PLAIN = "#d7dae0"
NO_BREAK = "\N{NO-BREAK SPACE}"  # SVG would join spaces.
ADVANCE, LINE = 7.8, 18
"""The width of a character and the height of a line, in pixels at a size of 13 px."""


def report() -> str:
    """The output of pytest, with its colours."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "test_offer.py")
        file.write_text(TEST, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "--color=yes", "-p", "no:cacheprovider", "-p", "no:randomly"]
        done = subprocess.run([*command, file.name], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 1:
        raise SystemExit(f"the test did not fail:\n{done.stdout}{done.stderr}")
    return done.stdout.partition("\n")[2]


def spans(line: str) -> Iterator[tuple[int, str, str, bool]]:
    """The parts of a line of one colour: column, text, colour, and whether it is bold."""
    colour, bold, column = PLAIN, False, 0
    for text, codes in re.findall(r"([^\x1b]*)(?:\x1b\[([\d;]*)m)?", line):
        if text:
            yield column, text, colour, bold
            column += len(text)
        for code in codes.split(";") if codes else ():
            colour, bold = COLOURS.get(code, PLAIN if code in ("0", "39", "39;49") else colour), bold or code == "1"
            bold = bold and code not in ("0", "22")


def svg(text: str) -> str:
    """A terminal with this text, in its colours."""
    lines = text.rstrip().splitlines()
    width = max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in lines)
    w, h = round(width * ADVANCE) + 32, len(lines) * LINE + 28
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img">',
        f'<rect width="{w}" height="{h}" rx="8" fill="#1e2127"/>',
        '<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="13">',
    ]
    for number, line in enumerate(lines):
        for column, piece, colour, bold in spans(line):
            left, weight = 16 + column * ADVANCE, ' font-weight="bold"' * bold
            length = f'textLength="{len(piece) * ADVANCE:.1f}" lengthAdjust="spacingAndGlyphs"'
            place = f'x="{left:.1f}" y="{26 + number * LINE}"'
            if piece.strip():
                parts.append(
                    f'<text {place} {length} fill="{colour}"{weight}>{html.escape(piece).replace(" ", NO_BREAK)}</text>'
                )
    return "\n".join([*parts, "</g>", "</svg>\n"])


def main() -> int:
    """Writes both pictures; returns the exit status."""
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "failure.svg").write_text(svg(report()), encoding="utf-8")
    asyncio.run(asyncio.wait_for(dashboard(PICTURES / "dashboard.webp"), 120))
    for picture in sorted(PICTURES.iterdir()):
        print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
