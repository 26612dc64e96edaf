"""python tests/simulation/main.py SEED [--trace]     one run, by its seed
--runs N                                            the N seeds from there on
--fingerprints                                      what tells runs apart, and nothing else
--clauses                                           without each clause: the first of those seeds that shows it
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulation.clauses import CLAUSES, FOUND, WITH_THEM, first_violation
from simulation.scene import run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("seed", type=int)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--fingerprints", action="store_true")
    parser.add_argument("--clauses", action="store_true")
    given = parser.parse_args()
    seeds = range(given.seed, given.seed + given.runs)
    if given.clauses:
        return without_clauses(seeds)
    gc.disable()  # what a run leaves behind is collected between runs, not again and again within one
    wrong, steps, began = 0, 0, time.process_time()
    for seed in seeds:
        if seed % 16 == 0:
            gc.collect()
        if seed % 100 == 0 and seed != given.seed:
            print(f"{seed - given.seed} runs, {wrong} with violations", flush=True)
        try:
            report = run(seed, trace=print if given.trace else None)
        except AssertionError as violated:
            wrong += 1
            print(violated, flush=True)
        else:
            steps += report.steps
            if given.fingerprints:
                print(seed, report.fingerprint)
    if given.fingerprints:
        return min(wrong, 1)
    seconds = time.process_time() - began
    print(f"{given.runs} runs, {wrong} with violations, {steps} steps, {seconds / given.runs * 1000:.1f} ms each")
    return min(wrong, 1)


def without_clauses(seeds: range) -> int:
    missed = 0
    for kind, all_laws in (("without", CLAUSES), ("with", WITH_THEM)):
        for name, laws in all_laws.items():
            began = time.process_time()
            found = first_violation(laws, seeds=seeds, shown=FOUND.get(name))
            missed += (found is None) is (kind == "without")
            said = "nothing" if found is None else f"seed {found.seed}: {found.wrongs[0]}"
            print(f"{kind:8}{name:45}{time.process_time() - began:6.1f} s  {said}", flush=True)
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main())
