"""A headless Chromium driven through its own protocol (DevTools over a WebSocket)."""

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

from molecular_qubits.network.page import BROWSERS, FLAGS

NO_BROWSER = "the page was NOT tested in a browser: no Chromium or Chrome on the path (apt-get install chromium)"
"""Why tests are left out."""

OPTIONS = (*FLAGS, "--remote-debugging-port=0", "--remote-allow-origins=*")


def find_chromium():
    """Return the path of a Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Browser:
    """One page of a headless Chromium with an empty profile."""

    def __init__(self, profile: Path) -> None:
        import websocket

        self.process = subprocess.Popen(
            [find_chromium(), *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port_file = profile / "DevToolsActivePort"
            deadline = time.monotonic() + 60
            while not (port_file.exists() and "\n" in port_file.read_text()):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("Chromium did not start.")
                time.sleep(0.05)
            port = port_file.read_text().split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
                pages = [page for page in json.load(answer) if page["type"] == "page"]
            self.socket = websocket.create_connection(pages[0]["webSocketDebuggerUrl"], timeout=60)
        except BaseException:
            self.process.kill()
            raise
        self.number = 0
        self.events: list[dict] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Send one command and return its result."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def open(self, address):
        """Load a page and wait until it is there."""
        self.call("Page.navigate", url=address)
        deadline = time.monotonic() + 60
        while self.ask("document.readyState") != "complete" or self.ask("location.href") == "about:blank":
            if time.monotonic() > deadline:
                raise RuntimeError(f"{address} did not load.")
            time.sleep(0.05)

    def ask(self, expression):
        """Return the value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    def click(self, selector):
        """Click in the middle of an element with the mouse."""
        x, y = self.ask(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key):
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def screenshot(self, path):
        """Write what is seen as PNG."""
        Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def requests(self):
        """Return the addresses that were asked for, other than data and files."""
        sent = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in sent if not re.match(r"(file|data|about):", url)]

    def complaints(self):
        """Return exceptions and errors of the page."""
        thrown = [e for e in self.events if e.get("method") == "Runtime.exceptionThrown"]
        logged = [
            e for e in self.events if e.get("method") == "Log.entryAdded" and e["params"]["entry"]["level"] == "error"
        ]
        return thrown + logged

    def close(self):
        """End the browser."""
        try:
            self.call("Browser.close")
        except Exception:
            self.process.kill()
        self.socket.close()
        self.process.wait(timeout=30)
