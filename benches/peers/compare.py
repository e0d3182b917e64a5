"""fipk and PyTorch on the same step of the same random model, in turn on one machine: a table of ratios and raw JSON.

    python benches/peers/compare.py [--rounds 3] [--out benches/results/FILE.json] [case ..]
"""

import argparse
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = {
    "minilm": ("minilm", 16, 64, "cached", 10),
    "minilm-teacher": ("minilm", 16, 64, "forward", 10),
    "bert-base": ("bert-base", 8, 128, "cached", 4),
    "bert-base-teacher": ("bert-base", 8, 128, "forward", 4),
}
# (row, fipk's field, the peer's field)
ROWS = [
    ("whole step, ms", "step_ms", "step_ms"),
    ("projection + update, ms", "project_update_ms", "project_update_ms"),
    ("forward alone, ms", "forward_ms", "forward_only_ms"),
    ("J^T u, ms", "vjp_ms", "vjp_ms"),
    ("J v, ms", "jvp_ms", "jvp_ms"),
    ("peak over imports, MiB", "peak_rss_mib", "peak_rss_mib"),
]


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fipk", default=str(ROOT / "target/release/fipk"))
    parser.add_argument("--out")
    args = parser.parse_args()

    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    raw = {"commit": commit, "cpu": cpu, "threads": args.threads, "command": " ".join(sys.argv), "cases": {}}
    for case in args.cases or CASES:
        model, batch, tokens, teacher, steps = CASES[case]
        with tempfile.TemporaryDirectory() as folder:
            peer = [sys.executable, ROOT / "benches/peers/step.py", "--model", model, "--batch", batch, "--seq", tokens,
                    "--teacher", teacher, "--threads", args.threads, "--steps", steps, "--json"]
            ours = [args.fipk, "bench", "step", "--model", folder, "--batch", batch, "--tokens", tokens, "--teacher", teacher,
                    "--threads", args.threads, "--steps", steps, "--json"]
            run([*map(str, peer), "--save", folder, "--steps", "1", "--what", "step"])
            rounds = [(run(list(map(str, ours))), run(list(map(str, peer)))) for _ in range(args.rounds)]
        raw["cases"][case] = [{"fipk": a, "pytorch": b} for a, b in rounds]
        print(f"\n{case}: {batch} x {tokens}, {args.threads} threads, median of {args.rounds} rounds [lowest, highest ratio]")
        for name, a, b in ROWS:
            pairs = [(x[a], y[b]) for x, y in rounds if a in x and b in y]
            if a == "peak_rss_mib":
                # Without what Python and torch take before there is a model.
                pairs = [(x, y - r[1].get("rss_after_import_mib", 0)) for (x, y), r in zip(pairs, rounds)]
            if pairs:
                ratios = sorted(y / x for x, y in pairs)
                x, y = (statistics.median(p[i] for p in pairs) for i in (0, 1))
                print(f"  {name:24} fipk {x:9.1f}  PyTorch {y:9.1f}  ratio {statistics.median(ratios):6.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]")
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
