"""Run the graph on the server on port 8000, and read what it streams. Fails if the answer is not there."""

import json
import urllib.request

body = json.dumps({"assistant_id": "agent", "input": {"answer": ""}}).encode()
request = urllib.request.Request("http://localhost:8000/runs/stream", body, {"Content-Type": "application/json"})
text = ""
with urllib.request.urlopen(request) as stream:
    for line in stream:
        text += line.decode()
        print(line.decode(), end="", flush=True)
assert "I think so." in text, "there was no answer"
