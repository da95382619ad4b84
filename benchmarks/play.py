"""How soon the playground answers, and how long its page works on a frame: 5 optimizers × 500 steps.

    python benchmarks/play.py [--repeats 200]

Answers come through a real server, against the 50 ms asked for; frames are drawn in Chromium, where there is
one (and Playwright), against a sixtieth of a second.
"""

import argparse
import http.client
import json
import shutil
import socket
import statistics
import threading
import time
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

import uvicorn

from thalweg.play import application

ASKED = 50.0  # ms
OPTIMIZERS = {"sgd": 0.95, "momentum": 0.1, "adagrad": 1.5, "rmsprop": 0.1, "adam": 0.3}
SURFACES = ("ravine", "beale", "rastrigin", "noisy")

# Notes how long the page works on each frame.
TIMED = """
window.worked = [];
const ask = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (draw) => ask((now) => {
  const begun = performance.now();
  draw(now);
  window.worked.push(performance.now() - begun);
});"""
OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(application(), log_config=None, lifespan="on"))
        threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
        print(f"milliseconds, their quartiles; {ASKED:g} were asked for")
        print(f"{'surface':12}{'lower':>9}{'median':>9}{'upper':>9}{'kB':>7}")
        for surface in SURFACES:
            spent, size = measure(listening.getsockname()[1], surface, repeats)
            low, median, high = statistics.quantiles(spent, n=4)
            print(f"{surface:12}{low:9.1f}{median:9.1f}{high:9.1f}{size / 1000:7.0f}")
        chromium = shutil.which("chromium")
        if chromium and find_spec("playwright"):
            low, median, high = statistics.quantiles(frames(chromium, listening.getsockname()[1]), n=4)
            print(f"\n{'a frame':12}{low:9.1f}{median:9.1f}{high:9.1f}   (1/60 s: {1000 / 60:.1f})")
        server.should_exit = True


def asked(surface: str) -> dict[str, Any]:
    """All optimizers, 500 steps each."""
    optimizers = [{"method": name, "values": {"lr": lr / 100}} for name, lr in OPTIMIZERS.items()]
    return {"surface": surface, "steps": 500, "optimizers": optimizers}


def frames(chromium: str, port: int) -> list[float]:
    """Milliseconds that the page works on each frame while it plays."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as run:
        browser = run.chromium.launch(executable_path=chromium, args=OPTIONS)
        page = browser.new_page()
        page.add_init_script(TIMED)
        page.goto(f"http://127.0.0.1:{port}/#{quote(json.dumps(asked('ravine')))}")
        page.wait_for_selector("html[data-ready]")
        page.click("#first")
        page.click("#play")
        page.wait_for_timeout(3000)
        worked: list[float] = page.evaluate("worked")
        browser.close()
    return worked


def measure(port: int, surface: str, repeats: int) -> tuple[list[float], int]:
    """Milliseconds of each request, and the bytes of an answer."""
    body = json.dumps(asked(surface))
    connection = http.client.HTTPConnection("127.0.0.1", port)
    spent, size = [], 0
    for i in range(repeats + 5):
        begun = time.perf_counter()
        connection.request("POST", "/api/paths", body, {"content-type": "application/json"})
        size = len(connection.getresponse().read())
        if i >= 5:  # the first are for warming up
            spent.append(1000 * (time.perf_counter() - begun))
    connection.close()
    return spent, size


if __name__ == "__main__":
    main()
