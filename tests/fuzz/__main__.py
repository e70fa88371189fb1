"""``python -m tests.fuzz [--inputs N] [--seed N] [--only NAME]``: exit 1 if anything was found."""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time
from random import SystemRandom

from tests.fuzz.target import fuzz
from tests.fuzz.targets import TARGETS

#: Bytes of memory one process may have: what asks for more is a finding.
_MEMORY = 2 * 1024**3


def main() -> int:
    """Spread the inputs over the targets, and tell what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(2**32))
    parser.add_argument("--only", default="", help="names of targets that begin so")
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    targets = [target for target in TARGETS if target.name.startswith(asked.only)]
    share = asked.inputs / sum(1 / target.cost for target in targets)
    total = found = 0
    print(f"seed {asked.seed}", flush=True)
    for target in targets:
        count = max(1, round(share / target.cost))
        began = time.monotonic()
        findings = list(fuzz(target, count, asked.seed))
        print(
            f"{target.name:20} {count:9,} inputs {time.monotonic() - began:8.1f} s  {len(findings)} findings",
            flush=True,
        )
        for finding in findings:
            print(finding, file=sys.stderr, flush=True)
        total += count
        found += len(findings)
    print(f"{'total':20} {total:9,} inputs, {found} findings (seed {asked.seed})", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    # Some targets need a loop to make their objects with; nothing runs on it.
    asyncio.set_event_loop(asyncio.new_event_loop())
    sys.exit(main())
