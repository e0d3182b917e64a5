"""What a round of benches/gpu.sh found, as one table beside what was aimed at.

    python3 benches/gpu_table.py DIR

Reads what the stages left in DIR. A number that was not measured is said to be missing; it is never taken from elsewhere.
Ends in 1 if a stage failed or none ran.
"""

import json
import math
import pathlib
import statistics
import sys


def lines_of(path):
    """The JSON of each line; none where the file is not there or was cut."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            pass
    return found


def whole(path):
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return None


def row(cells):
    print("| " + " | ".join(str(c) for c in cells) + " |")


def head(*columns):
    print()
    row(columns)
    row(["---"] * len(columns))


def met(value, least):
    """NaN and what is missing are not met."""
    if value is None or math.isnan(value):
        return "not measured"
    return "yes" if value >= least else "no"


def shown(value):
    return "missing" if value is None or math.isnan(value) else f"{value:.2f}"


def products(kernels):
    """Per product: this crate's share of cuBLASLt's speed."""
    rows = [r for r in kernels["rows"] if r["name"].startswith("gemm_")]
    head("product", "us", "TFLOP/s", "% of cuBLASLt", "aim", "met")
    for r in rows:
        least = 90.0 if r["shape"].startswith("square") else 85.0
        vendor = r.get("of_vendor")
        aim = least if r["dtype"] == "bf16" else None
        row([r["shape"], f"{r['us']:.1f}", f"{r['tflop_s']:.1f}", shown(vendor), aim or "",
             met(vendor, aim) if aim else ""])


def duals(kernels):
    """A dual pass beside its forward and jvp, one after the other: a linear layer's jvp is two products."""
    by = {(r["name"], r["dtype"], r["shape"]): r["us"] for r in kernels["rows"]}
    head("forward and jvp at once", "us", "apart over at once", "aim", "met")
    for (name, dtype, shape), us in by.items():
        op, _, kind = name.rpartition("_")
        parts = [by.get((f"{op}_{other}", dtype, shape)) for other in ("forward", "jvp")]
        if kind != "dual" or None in parts:
            continue
        ratio, aim = sum(parts) / us, 1.0
        row([f"{op} {dtype} {shape}", f"{us:.1f}", f"{ratio:.2f}", aim, met(ratio, aim)])


def attention(kernels, peer):
    by = {}
    for r in kernels["rows"]:
        if r["shape"].startswith("12 heads") and r["dtype"] == "bf16":
            tokens = int(r["shape"].split(": ")[1].split("x")[1].split()[0])
            by[r["name"].removeprefix("attention_"), tokens] = r["us"]
    head("attention at 32 x 12 x 64", "fipk us", "peer us", "peer over fipk", "aim", "met")
    for theirs in peer["rows"]:
        tokens = theirs["shape"][2]
        for what, field, ours, aim in [("forward, SDPA flash", "forward_ms", "forward", 0.6),
                                       ("jvp, jvp_flash_attention", "jvp_flash_ms", "dual", 2.0),
                                       ("jvp, torch.func over math", "jvp_math_ms", "dual", 3.0)]:
            a, b = by.get((ours, tokens)), theirs.get(field)
            ratio = 1000.0 * b / a if a and b else None
            row([f"{what}, {tokens} tokens", shown(a), shown(b and 1000.0 * b), shown(ratio), aim, met(ratio, aim)])


def steps(raw):
    head("step", "row", "fipk ms", "eager over fipk", "compiled over fipk", "aim", "met")
    aims = {"step_ms": (2.0, 1.3), "jvp_ms": (2.0, None), "vjp_ms": (None, None), "forward_ms": (None, None)}
    peers = {"forward_ms": "forward_only_ms"}
    for case, rounds in raw["cases"].items():
        for field, (eager, compiled) in aims.items():
            ours = statistics.median(r["fipk"].get(field, math.nan) for r in rounds)
            theirs = peers.get(field, field)
            over = {p: statistics.median(r.get(p, {}).get(theirs) or math.nan for r in rounds) / ours
                    for p in ("PyTorch", "compiled")}
            aim = " and ".join(f"{a}x {p}" for a, p in ((eager, "eager"), (compiled, "compiled")) if a)
            both = [met(over[p], a) for p, a in (("PyTorch", eager), ("compiled", compiled)) if a]
            word = "" if not both else min(both, key=["no", "not measured", "yes"].index)
            row([case, field, shown(ours), shown(over["PyTorch"]), shown(over["compiled"]), aim, word])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    stages = [line.split("\t") for line in (folder / "stages.tsv").read_text().splitlines()]
    doctor, kernels = whole(folder / "doctor.json"), whole(folder / "kernels.json")
    print(f"device: {kernels['device'] if kernels else 'see doctor.json'}" if kernels or doctor else "device: unknown")

    head("stage", "ended", "seconds", "command")
    for name, status, seconds, command in stages:
        row([name, "ok" if status == "0" else f"failed ({status})", seconds, f"`{command}`"])

    for name in ("wrappers", "selftest"):
        checks = [r for r in lines_of(folder / f"{name}.json") if "summary" not in r]
        bad = [r for r in checks if r.get("ok") is not True]
        print(f"\n{name}: {len(checks)} rows, {len(bad)} failed" if checks else f"\n{name}: not run")
        for r in bad:
            print(f"- {r['name']} {r['dtype']} {r['shape']}: {r['note']}")

    peer, step = whole(folder / "attention.json"), whole(folder / "steps.json")
    if kernels:
        products(kernels)
        duals(kernels)
    if kernels and peer:
        attention(kernels, peer)
    if step:
        steps(step)
    for name, found in [("kernels", kernels), ("attention", peer), ("steps", step)]:
        if not found:
            print(f"\n{name}: nothing measured")
    sys.exit(0 if stages and all(s[1] == "0" for s in stages) else 1)


if __name__ == "__main__":
    main()
