"""`make soak`: the random fault tests again and again, each time with another seed, for an hour."""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys
import time


def main() -> int:
    """Run until the time is over; return 1 where a run failed, with the seeds that repeat it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes = parser.parse_args().minutes
    begin = time.monotonic()
    failed: list[int] = []
    runs = 0
    while not runs or time.monotonic() - begin < minutes * 60:
        seed = secrets.randbelow(2**32)
        runs += 1
        print(
            f"\nrun {runs}, {(time.monotonic() - begin) / 60:.0f} of {minutes:g} minutes: --seed {seed}",
            flush=True,
        )
        if subprocess.run(command(seed), check=False).returncode != 0:
            failed.append(seed)
    print(f"\n{runs} runs in {(time.monotonic() - begin) / 60:.0f} minutes, {len(failed)} failed")
    for seed in failed:
        print("repeat by: pytest " + " ".join(command(seed)[3:]))
    return 1 if failed else 0


def command(seed: int) -> list[str]:
    """Return the command of one run."""
    return [sys.executable, "-m", "pytest", "tests/faults", "-q", "-m", "random", "--seed", str(seed)]


if __name__ == "__main__":
    sys.exit(main())
