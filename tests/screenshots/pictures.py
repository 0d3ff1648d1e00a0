"""Dashboards drawn in a browser: npm installs Grafana's components, esbuild bundles them.

What comes in: what `recorded` gives. What goes out: a PNG of each dashboard. The page asks no
network: all that it may ask for lies in the bundled folder.
"""

from __future__ import annotations

import io
import mimetypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from PIL import Image

from tests.processes import program

PAGE: Final = Path(__file__).parent / "page"
LOCK: Final = "package-lock.json"
"""By `npm install --package-lock-only --omit-lockfile-registry-resolved`: it names no registry."""
ORIGIN: Final = "http://dashboards.invalid"
SIZE: Final = {"width": 1400, "height": 900}
COLOURS: Final = 256
"""Of a palette, with which a picture takes a third of the room."""

FONTS: Final = {"Inter-Regular": "inter-latin-400-normal", "Inter-Medium": "inter-latin-500-normal"}
"""Where Grafana's style sheet looks for them, and what the package calls them; .woff2."""


def bundle(folder: Path) -> Path:
    """Install below `folder` what the lock file names, unless it is there; give the page's folder.

    Raises RuntimeError with what is missing, or what npm or esbuild said.
    """
    node, npm = program("node", "nodejs"), program("npm", "npm")
    folder.mkdir(parents=True, exist_ok=True)
    installed = folder / "installed.json"
    if not installed.exists() or installed.read_bytes() != (PAGE / LOCK).read_bytes():
        for name in ("package.json", LOCK):
            shutil.copy(PAGE / name, folder)
        _run(folder, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        shutil.copy(PAGE / LOCK, installed)
    modules, page = folder / "node_modules", folder / "page"
    shutil.rmtree(page, ignore_errors=True)
    options = ["--bundle", "--format=esm", "--jsx=automatic", "--minify", f"--outdir={page}"]
    options += ["--define:process.env.NODE_ENV='production'", "--log-level=error"]
    # Grafana's code editor, which no panel here has.
    options += ["--loader:.ttf=empty"]
    _run(folder, node, str(modules / "esbuild/bin/esbuild"), str(PAGE / "main.jsx"), *options)
    shutil.copy(PAGE / "index.html", page)
    fonts = page / "public/fonts/inter"
    fonts.mkdir(parents=True)
    for name, source in FONTS.items():
        file = modules / f"@fontsource/inter/files/{source}.woff2"
        shutil.copy(file, fonts / f"{name}.woff2")
    return page


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"NODE_PATH": str(folder / "node_modules")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


def take(page: Path, recorded: dict[str, Any], folder: Path) -> list[Path]:
    """Write a picture of each dashboard into `folder`; RuntimeError if the page complains."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program("chromium", "chromium"), args=["--no-sandbox"]
        )
        made = []
        for uid in (board["uid"] for board in recorded["boards"]):
            path = folder / f"{uid}.png"
            picture = Image.open(io.BytesIO(_picture(browser, page, recorded, uid)))
            few = picture.convert("RGB").quantize(COLOURS, kmeans=3)
            few.save(path, optimize=True)
            made.append(path)
        browser.close()
    return made


def _picture(browser: Any, page: Path, recorded: dict[str, Any], uid: str) -> bytes:
    said: list[str] = []

    def serve(route: Any) -> None:
        path = urlsplit(route.request.url).path.lstrip("/")
        if path == "boards.json":
            route.fulfill(json=recorded)
        elif (file := page / path).is_file():
            kind, _ = mimetypes.guess_type(path)
            route.fulfill(body=file.read_bytes(), content_type=kind)
        else:
            said.append(f"{route.request.url} is not in the bundle")
            route.abort()

    view = browser.new_page(viewport=SIZE)
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.route("**/*", serve)
    view.goto(f"{ORIGIN}/index.html#{uid}")
    # Set when every plot has been drawn.
    view.wait_for_function("document.body.dataset.drawn || document.body.dataset.failed")
    if said:
        raise RuntimeError(f"{uid}: {'; '.join(said)}")
    taken: bytes = view.screenshot(full_page=True)
    view.close()
    return taken
