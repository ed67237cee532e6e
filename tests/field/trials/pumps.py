"""Launchers that read the output of the agent: they wait for several pipes at once, or on an event loop."""

from __future__ import annotations

from tests.field.running import Build
from tests.field.trial import Trial, drained
from tests.field.wrappers import node, python

POPEN = "import subprocess\nPIPE = subprocess.PIPE\n"
ASYNCIO = """
import asyncio
async def copy(stream):
    async for line in stream: sys.stdout.buffer.write(line)
async def main():
    p = await asyncio.create_subprocess_exec(*agent, stdout=asyncio.subprocess.PIPE, stderr={stderr}{more})
    await asyncio.gather(*(copy(stream) for stream in (p.stdout, p.stderr) if stream))
    return await p.wait()
sys.exit(asyncio.run(main()))
"""
SELECTORS = """
import selectors
p = subprocess.Popen(agent, stdout=PIPE, stderr=PIPE)
selector = selectors.DefaultSelector()
for stream in (p.stdout, p.stderr): selector.register(stream, selectors.EVENT_READ)
while selector.get_map():
    for key, _ in selector.select():
        data = key.fileobj.read1(1000)
        sys.stdout.buffer.write(data)
        if not data: selector.unregister(key.fileobj)
sys.exit(p.wait())
"""
OPEN3 = (
    "require 'open3'; Open3.popen2e(*ARGV) { |i, o, t| i.close; o.each { |l| puts l }; exit t.value.exitstatus || 1 }"
)
PASSTHRU = "array_shift($argv); passthru(implode(' ', array_map('escapeshellarg', $argv)), $code); exit($code);"


def _pump(name: str, build: Build, *programs: str, codes: tuple[int, ...] = (0,)) -> Trial:
    return Trial(name, "own", build, drained(codes=codes), programs=programs)


TRIALS = [
    _pump("Python, subprocess.run(capture_output=True)", python(
        POPEN + "run = subprocess.run(agent, capture_output=True)\nsys.exit(run.returncode)")),
    _pump("Python, communicate", python(
        POPEN + "p = subprocess.Popen(agent, stdout=PIPE, stderr=PIPE)\nprint(*p.communicate())\n"
        "sys.exit(p.returncode)")),
    _pump("Python, selectors", python(POPEN + SELECTORS)),
    _pump("Python, asyncio, two pipes", python(ASYNCIO.format(stderr="asyncio.subprocess.PIPE", more=""))),
    _pump("Python, asyncio, one pipe for both", python(ASYNCIO.format(stderr="asyncio.subprocess.STDOUT", more=""))),
    _pump("Python, asyncio, a pipe for stdin too", python(
        ASYNCIO.format(stderr="asyncio.subprocess.PIPE", more=", stdin=asyncio.subprocess.PIPE"))),
    _pump("Python, threads", python(
        POPEN + "import threading\np = subprocess.Popen(agent, stdout=PIPE, stderr=subprocess.STDOUT)\n"
        "t = threading.Thread(target=lambda: [sys.stdout.buffer.write(line) for line in p.stdout])\n"
        "t.start()\ncode = p.wait()\nt.join()\nsys.exit(code)")),
    _pump("Node, spawn with pipes", node(
        "const c = require('child_process').spawn(agent[0], agent.slice(1));\n"
        "c.stdout.pipe(process.stdout); c.stderr.pipe(process.stderr); c.on('exit', code => process.exit(code ?? 1));"),
        "node"),
    _pump("Node, spawn with pipes for its output", node(
        "const c = require('child_process').spawn(agent[0], agent.slice(1), {stdio: ['ignore', 'pipe', 'pipe']});\n"
        "for (const s of [c.stdout, c.stderr]) s.on('data', d => process.stdout.write('> ' + d));\n"
        "c.on('exit', code => process.exit(code ?? 1));"), "node"),
    _pump("Node, exec", node(
        "require('child_process').exec(agent.join(' '), (error, out) => {\n"
        "    console.log(out); process.exit(error?.code); });"), "node"),
    _pump("Ruby, popen", lambda place: [
        "ruby", "-e", "IO.popen(ARGV) { |f| f.each { |l| puts l } }; exit $?.exitstatus || 1", *place.agent], "ruby"),
    _pump("Ruby, open3", lambda place: ["ruby", "-e", OPEN3, *place.agent], "ruby"),
    _pump("PHP, passthru", lambda place: ["php", "-r", PASSTHRU, "--", *place.agent], "php"),
]  # fmt: skip
