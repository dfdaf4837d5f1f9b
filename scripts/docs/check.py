#!/usr/bin/env python3
"""Opens every page of the site in Chromium at two widths. `make docs-check` calls it.

It fails if a link or an image does not exist, if the console shows an error, or if a page is wider than the window. It
writes pictures of the pages to target/docs/screenshots.
"""

import functools
import http.server
import json
import shutil
import sys
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
SITE = ROOT / "target/docs/site"
PICTURES = ROOT / "target/docs/screenshots"
WIDTHS = {"desktop": 1280, "phone": 390}
# The addresses of links and images, and the width of the content.
FACTS = """() => ({
    links: [...document.querySelectorAll('a[href]')].map(a => a.href),
    images: [...document.images].filter(i => !i.complete || i.naturalWidth === 0).map(i => i.src),
    width: document.documentElement.scrollWidth,
})"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def main():
    pages = sorted(path.relative_to(SITE) for path in SITE.rglob("*.html") if path.name != "404.html")
    if not pages:
        sys.exit("docs-check: no pages; run `make docs`")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{server.server_port}/"
    shutil.rmtree(PICTURES, ignore_errors=True)
    PICTURES.mkdir(parents=True)
    problems, links = [], set()
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or sys.exit("docs-check: chromium is missing")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, width in WIDTHS.items():
            tab = browser.new_page(viewport={"width": width, "height": 900})
            tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
            tab.on("pageerror", lambda error: problems.append(str(error)))
            for page in pages:
                tab.goto(origin + str(page), wait_until="networkidle")
                facts = tab.evaluate(FACTS)
                links.update((str(page), link) for link in facts["links"])
                problems += [f"{page}: the image {image} does not load" for image in facts["images"]]
                if facts["width"] > width:
                    problems.append(f"{page}: {facts['width']} pixels wide in a window of {width}")
                tab.screenshot(path=PICTURES / f"{name}-{str(page).replace('/', '-')}.png")
        # Every target of a link inside the site must exist, with its anchor.
        anchors = {}
        for page, link in sorted(links):
            address, _, anchor = link.partition("#")
            if not address.startswith(origin):
                continue
            target = address.removeprefix(origin) or "index.html"
            if not (SITE / target).exists():
                problems.append(f"{page}: the link to {target} leads nowhere")
            elif anchor and not anchor.startswith("__"):
                if target not in anchors:
                    tab.goto(address, wait_until="networkidle")
                    anchors[target] = set(json.loads(tab.evaluate(
                        "() => JSON.stringify([...document.querySelectorAll('[id]')].map(e => e.id))")))  # fmt: skip
                if anchor not in anchors[target]:
                    problems.append(f"{page}: there is no #{anchor} in {target}")
        browser.close()
    print(f"docs-check: {len(pages)} pages at {len(WIDTHS)} widths, {len(links)} links, {len(problems)} problems")
    if problems:
        sys.exit("\n".join(dict.fromkeys(problems)))


if __name__ == "__main__":
    main()
