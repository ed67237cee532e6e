"""Request an address again and again until stdin ends; then print how many requests there were, and how some failed."""

from __future__ import annotations

import json
import select
import sys
import time
import urllib.request


def main() -> int:
    url, interval = sys.argv[1], float(sys.argv[2])
    made, failed = 0, list[str]()
    print("calling", flush=True)
    while not select.select([sys.stdin], [], [], interval)[0]:
        made += 1
        started = time.time()
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                answer.read()
        except OSError as error:
            failed.append(f"{started:.3f} {error}")
    print(json.dumps({"made": made, "failed": failed}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
