"""The HTML page in a real browser: it asks for nothing, has no error, and shows hostile text as text."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from entrypoint.rehearse import page
from entrypoint.rehearse.model import Advice, BrokenLine, Event, Life, Verdict
from tests.support.rehearsals import EXAMPLE, HOSTILE, KILLED, run

if TYPE_CHECKING:
    from pathlib import Path

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# None of its own requests leaves the machine.
OPTIONS = """--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update
--no-first-run --enable-logging=stderr --dump-dom""".split()
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND"
OF_THE_BROWSER = (None, "not an origin")  # who asks, in its network log

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a browser made of a page: the DOM as HTML, lines on its console, URLs that the page asked for."""

    dom: str
    console: list[str]
    requests: list[str]


def load(html: str, folder: Path) -> Seen:
    """Load a page in a browser without a network."""
    file, log = folder / "page.html", folder / "network.json"
    file.write_text(html, encoding="utf-8")
    command = [str(BROWSER), *OPTIONS, NO_NETWORK, f"--user-data-dir={folder}/profile", f"--log-net-log={log}"]
    ran = subprocess.run([*command, file.as_uri()], capture_output=True, text=True, timeout=90, check=True)
    console = [line for line in ran.stderr.splitlines() if ":CONSOLE:" in line]
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    asked = [event["url"] for event in events if "url" in event and event.get("initiator") not in OF_THE_BROWSER]
    return Seen(ran.stdout, console, asked)


class Texts(HTMLParser):
    """The text of each element that a browser has made."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile() -> str:
    """A page in which every text of the rehearsal is hostile."""
    many = tuple(Life(number, 1, name, 0.5, None) for number, name in enumerate(HOSTILE, 2))
    broken = tuple(BrokenLine(3.0, text, text) for text in HOSTILE)
    events = tuple(Event(2.0, text, text) for text in HOSTILE)
    lost = dataclasses.replace(
        KILLED, reasons=HOSTILE, held_up_by=HOSTILE[0], broken_lines=broken, lives=many, events=events
    )
    advice = tuple(Advice(text, text, text) for text in HOSTILE)
    return page.render(
        dataclasses.replace(EXAMPLE, command=HOSTILE, work=HOSTILE[0], runs=(lost,), advice=advice, notes=HOSTILE)
    )


def test_a_page_that_asks_and_fails_is_noticed(tmp_path: Path) -> None:
    policy = "<meta http-equiv=Content-Security-Policy content=\"script-src 'none'\">"
    seen = load(f'<!doctype html>{policy}<script>1</script><img src="http://127.0.0.1:9/x.png">', tmp_path)
    assert "http://127.0.0.1:9/x.png" in seen.requests
    assert "Content Security Policy" in " ".join(seen.console)


def test_the_page_asks_for_nothing_and_has_no_error(tmp_path: Path) -> None:
    seen = load(page.render(EXAMPLE), tmp_path)
    assert (seen.requests, seen.console) == ([], [])
    shown = Texts()
    shown.feed(seen.dom)
    for text in ("Lost: 1 of 3 scenarios", "terminationGracePeriodSeconds: 75", "chromium (4), left over", "+60 s"):
        assert text in shown.text


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    seen = load(hostile(), tmp_path)
    assert (seen.requests, seen.console) == ([], [])
    shown = Texts()
    shown.feed(seen.dom)
    assert "script" not in shown.tags
    assert shown.text.count("<script>alert(1)</script>") > 5


@pytest.mark.parametrize("width", [390, 1100])
def test_nothing_sticks_out_of_the_window(tmp_path: Path, width: int) -> None:
    """A script that the test adds measures it; the page itself has none."""
    crowd = run(drain=9.0, lives=tuple(Life(number, 1, f"worker {'x' * number}", 1.0, 5.0) for number in range(2, 40)))
    lost = dataclasses.replace(KILLED, number=2, verdict=Verdict.LOST)
    html = page.render(dataclasses.replace(EXAMPLE, runs=(*EXAMPLE.runs, crowd, lost), command=("x" * 300,)))
    html = re.sub(r"<meta http-equiv[^>]*>", "", html).replace("<details>", "<details open>")
    frame = escape(html + "<script>parent.postMessage(document.documentElement.scrollWidth, '*')</script>")
    outer = f"""<iframe srcdoc="{frame}" width={width} height=800></iframe><script>
        onmessage = (sent) => document.body.append("width:" + sent.data)</script>"""
    seen = load(f"<!doctype html><body>{outer}", tmp_path)
    (measured,) = re.findall(r"width:(\d+)<", seen.dom) or ["0"]
    assert 0 < int(measured) <= width
