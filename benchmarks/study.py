"""A study of 100 trials against one trial of the original recipe: time, pictures per second, memory, accuracy.

    python benchmarks/study.py --data DIR [--fraction 0.25]

Everything runs one after the other in one go, each part in a process of its own. Prints Markdown for RESULTS.md at its
end,
after what the parts themselves print.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
from memory import Usage, peak_rss_of

HERE = Path(__file__).parent
DOGBREED = [sys.executable, "-m", "dogbreed"]


def baseline(data: Path, backbone: str, fraction: float, work: Path) -> dict[str, Any]:
    """One trial of the original recipe."""
    out = work / f"baseline-{backbone}.json"
    script = str(HERE / "original_recipe.py")
    command = [sys.executable, script, "--data", str(data), "--backbone", backbone]
    usage = peak_rss_of([*command, "--fraction", str(fraction), "--json", str(out)])
    _check(usage, command)
    return {**json.loads(out.read_text())["trial"], "peak_mb": usage.peak_mb}


def study(data: Path, backbone: str, weights: str, work: Path, name: str, trials: int) -> dict[str, Any]:
    """`dogbreed tune`, timed from outside: imports, embedding, trials and sampling are all in it."""
    out = work / name
    command = [*DOGBREED, "tune", str(data), "--backbone", backbone, "--weights", weights, "--trials", str(trials)]
    usage = peak_rss_of([*command, "--out", str(out)], env={**os.environ, "DOGBREED_CACHE": str(work / "cache")})
    _check(usage, command)
    best = json.loads((out / "study.json").read_text())["best_trial"]
    return {
        "seconds": usage.seconds, "peak_mb": usage.peak_mb, "valid_loss": best["value"], "accuracy": best["accuracy"],
    }  # fmt: skip


def embedding(data: Path, backbone: str, weights: str, work: Path, fraction_of: str) -> dict[str, float]:
    """`embedding.py`: the pipeline and its two stages alone, in one process."""
    command = [sys.executable, str(HERE / "embedding.py"), "--data", str(data), "--split", fraction_of, "--json"]
    done = subprocess.run([*command, "--backbone", backbone, "--weights", weights], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    stages: dict[str, float] = json.loads(done.stdout)
    return stages


def memory_growth(data: Path, work: Path, copies: int = 10) -> list[tuple[int, Usage]]:
    """Peak memory and time of `dogbreed embed` for a number of pictures and for ten times as many."""
    rows = []
    for times in (1, copies):
        small = work / f"copies-{times}"
        count = 0
        for split, source in (("train", "valid"), ("valid", "test")):
            for picture in sorted((data / source).rglob("*.jpg")):
                for copy in range(times):
                    target = small / split / picture.parent.name / f"{copy:02d}-{picture.name}"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    # A byte behind the end makes it another picture to the cache and the same one to the decoder.
                    target.write_bytes(picture.read_bytes() + bytes([copy]))
                    count += 1
        cache = {**os.environ, "DOGBREED_CACHE": str(work / f"cache-{times}")}
        usage = peak_rss_of([*DOGBREED, "embed", str(small)], env=cache)
        _check(usage, ["dogbreed embed"])
        rows.append((count, usage))
        shutil.rmtree(small)
    return rows


def _check(usage: Usage, command: list[str]) -> None:
    if usage.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {usage.returncode}")


LINES: list[str] = []


def say(line: str = "") -> None:
    LINES.append(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/, valid/ and test/")
    parser.add_argument("--fraction", type=float, default=1.0, help="part of the pictures that the baseline runs on")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "efficientnet_lite0"])
    a = parser.parse_args()
    say(machine.as_markdown(machine.describe()))
    work = Path(tempfile.mkdtemp(prefix="dogbreed-bench-"))
    started = time.time()
    try:
        for backbone in a.backbones:
            weights = "random" if backbone == "resnet50" else "auto"
            base = baseline(a.data, backbone, a.fraction, work)
            cold = study(a.data, backbone, weights, work, f"cold-{backbone}", a.trials)
            warm = study(a.data, backbone, weights, work, f"warm-{backbone}", a.trials)
            stages = embedding(a.data, backbone, weights, work, "test")
            print_comparison(backbone, base, cold, warm, stages, a.trials)
        say("\n## Memory and time as the data grows (efficientnet_lite0)\n")
        say("| pictures | seconds | pictures/s, start included | peak memory |\n|---|---|---|---|")
        for count, usage in memory_growth(a.data, work):
            say(f"| {count:,} | {usage.seconds:.1f} | {count / usage.seconds:.0f} | {usage.peak_mb:,.0f} MiB |")
        say(f"\nWhole run: {(time.time() - started) / 60:.0f} minutes.")
        print("\n" + "\n".join(LINES))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def print_comparison(
    backbone: str, base: dict[str, Any], cold: dict[str, Any], warm: dict[str, Any], s: dict[str, float], trials: int
) -> None:
    one = base["seconds_total_full"]
    note = "" if base["seconds_total"] == one else f" (extrapolated from {base['seconds_total']:.0f} s)"
    evaluation = base["pictures_per_second_eval"]
    say(f"\n## {backbone}\n")
    say("| | time | against one baseline trial | best valid accuracy | valid loss | peak memory |")
    say("|---|---|---|---|---|---|")
    say(
        f"| one trial of the original recipe | {one:.0f} s{note} | 1 | {base['valid_accuracy']:.1%} |"
        f" {base['valid_loss']:.3f} | {base['peak_mb']:,.0f} MiB |"
    )
    for name, r in ((f"cold study of {trials} trials", cold), (f"warm study of {trials} trials", warm)):
        say(
            f"| {name} | {r['seconds']:.0f} s | {r['seconds'] / one:.3f} | {r['accuracy']:.1%} |"
            f" {r['valid_loss']:.3f} | {r['peak_mb']:,.0f} MiB |"
        )
    slower = min(s["decode"], s["network"])
    say("\n| | pictures/s | ratio |\n|---|---|---|")
    say(f"| evaluation pass of the original recipe | {evaluation:.1f} | 1 |")
    say(f"| embedding | {s['pipeline']:.1f} | {s['pipeline'] / evaluation:.2f} × the evaluation pass |")
    say(f"| its decoding alone | {s['decode']:.0f} | |")
    reached = f"embedding reaches {s['pipeline'] / slower:.0%} of the slower stage"
    say(f"| its network alone | {s['network']:.1f} | {reached} |")


if __name__ == "__main__":
    main()
