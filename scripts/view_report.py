"""Look at the report as a browser does: errors, pictures, widths, accessibility; and screenshots.

    apt-get install chromium && npm pack axe-core && tar xzf axe-core-*.tgz
    python scripts/view_report.py report/index.html --axe package/axe.min.js --screenshots shots

Chromium, headless, opens a copy of the page with a script at its end that looks around and leaves
what it found in the page. Without axe-core all but the accessibility is checked.
"""

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

WIDTHS: Final = (1400, 390)
"""Of a desk and of a phone, pixels."""
SERIOUS: Final = ("serious", "critical")
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")

_WATCH: Final = """<script>
window.found = {errors: []};
window.addEventListener("error", (event) => window.found.errors.push(String(event.message)), true);
const complain = console.error;
console.error = (...words) => { window.found.errors.push(words.join(" ")); complain(...words); };
</script>"""
_LOOK_AROUND: Final = """<script>
window.addEventListener("load", async () => {
  const found = window.found;
  const images = [...document.querySelectorAll("img[src]")];
  found.images = images.length;
  found.broken = images.filter((image) => !image.naturalWidth).map((i) => i.alt);
  found.unnamed = images.filter((image) => !image.alt).length;
  const root = document.documentElement;
  found.width = window.innerWidth;
  found.overflow = root.scrollWidth - root.clientWidth;
  found.outside = [...document.querySelectorAll("[src], link[href]")]
    .map((element) => element.src || element.href)
    .filter((address) => !address.startsWith("data:")).length;
  for (const button of document.querySelectorAll("button.zoom")) {
    button.click();
    const dialog = document.querySelector("dialog");
    if (!dialog.open || !dialog.querySelector("img").src) found.errors.push("no enlarged picture");
    dialog.close();
  }
  if (window.axe) {
    const checked = await window.axe.run();
    found.violations = checked.violations.map(
      (v) => ({id: v.id, impact: v.impact, nodes: v.nodes.map((n) => n.html.slice(0, 200))}));
  }
  window.parent.postMessage(JSON.stringify(found), "*");
});
</script>"""


# A frame has any width, while a window of chromium is never narrower than 500 pixels.
_FRAME: Final = """<!doctype html><title>frame</title><style>body {{ margin: 0 }}</style>
<iframe src="{address}" style="border: 0; width: {width}px; height: {height}px"></iframe>
<script>window.addEventListener("message", (event) => {{
  const note = document.createElement("pre");
  note.id = "found";
  note.textContent = event.data;
  document.body.append(note);
}});</script>"""
_NARROWEST: Final = 500


def main() -> None:
    """Look at a page at all widths; the exit code is 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="report/index.html")
    parser.add_argument("--axe", type=Path, help="axe.min.js of npm's axe-core")
    parser.add_argument("--screenshots", type=Path, help="a folder for a picture of each width")
    options = parser.parse_args()
    wrong = []
    for width in WIDTHS:
        found = look_at(options.page, width, options.axe)
        faults = list_faults(found, width)
        print(f"{width} pixels: {found['images']} pictures, {len(faults)} faults")
        wrong += [f"{width} pixels: {fault}" for fault in faults]
        if options.screenshots:
            take_screenshot(options.page, width, options.screenshots)
    print("\n".join(wrong))
    sys.exit(bool(wrong))


def find_browser() -> str | None:
    """Return the path of a browser that this script can drive, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def look_at(page: Path, width: int, axe: Path | None = None) -> dict[str, Any]:
    """Return what a browser finds of a page.

    Args:
        page: An HTML file.
        width: Of the window, pixels.
        axe: axe-core's script; None = accessibility is not looked at.

    Returns:
        `errors`, `images`, `broken` and `unnamed` pictures, `outside` (addresses that are not in
        the page itself), `width`, `overflow` (pixels that the page is wider than the window), and
        with `axe` its `violations`.
    """
    text = page.read_text("utf-8")
    scripts = f"<script>{axe.read_text('utf-8')}</script>" if axe else ""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "page.html")
        head, body = text.split("</head>", 1)
        content = f"{head}{_WATCH}</head>{body}".replace(
            "</body>", f"{scripts}{_LOOK_AROUND}</body>"
        )
        copy.write_text(content, "utf-8")
        dumped = _run_browser(folder, copy, width, 1200, "--dump-dom")
    [note] = re.findall(r'<pre id="found">(.*?)</pre>', dumped, re.DOTALL)
    found: dict[str, Any] = json.loads(html.unescape(note))
    return found


def list_faults(found: dict[str, Any], width: int) -> list[str]:
    """Return what is wrong with a page, for people."""
    faults = [f"console: {error}" for error in found["errors"]]
    faults += [f"picture that does not show: {alt}" for alt in found["broken"]]
    if found["unnamed"]:
        faults.append(f"{found['unnamed']} pictures without a description")
    if found["outside"]:
        faults.append(f"{found['outside']} addresses outside of the page")
    if found["width"] != width:
        faults.append(f"the browser's window has {found['width']} pixels")
    if found["overflow"] > 0:
        faults.append(f"{found['overflow']} pixels wider than the window")
    for violation in found.get("violations", []):
        if violation["impact"] in SERIOUS:
            faults.append(f"axe: {violation['id']} ({violation['impact']}): {violation['nodes']}")
    return faults


def take_screenshot(page: Path, width: int, folder: Path) -> None:
    """Write a picture of a page's first 6,000 pixels as `report-WIDTH.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder.resolve() / f"report-{width}.png"
    with tempfile.TemporaryDirectory() as folder_of_frame:
        shot = ("--hide-scrollbars", f"--screenshot={picture}")
        _run_browser(folder_of_frame, page.resolve(), width, 6000, *shot)


def _run_browser(folder: str, page: Path, width: int, height: int, *arguments: str) -> str:
    """Show a page in a frame of a width, and return what the browser prints."""
    browser = find_browser()
    if browser is None:
        raise SystemExit(f"expected a browser, got none of {', '.join(BROWSERS)}; install chromium")
    frame = Path(folder, "frame.html")
    frame.write_text(_FRAME.format(address=page.as_uri(), width=width, height=height), "utf-8")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--virtual-time-budget=20000",
        f"--user-data-dir={folder}/profile",
        f"--window-size={max(width, _NARROWEST)},{height}",
        *arguments,
        frame.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=180)
    return done.stdout


if __name__ == "__main__":
    main()
