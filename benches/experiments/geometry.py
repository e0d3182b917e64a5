"""The geometry on trained networks: the tables in the README's part on it.

    python3 benches/experiments/geometry.py spectrum --out benches/results/FILE.json
    python3 benches/experiments/geometry.py drift lenet --out benches/results/FILE.json
    python3 benches/experiments/geometry.py drift resnet20 --out benches/results/FILE.json
    python3 benches/experiments/geometry.py drift minilm --out benches/results/FILE.json
    python3 benches/experiments/geometry.py geodesic --out benches/results/FILE.json
    python3 benches/experiments/geometry.py equal-drift --out benches/results/FILE.json

Needs `cargo build --release` and `cargo build --release --example drift`; networks and data from --shared, and for MiniLM the
folder --sst2, a network with a head for SST-2:

    fipk train --model SHARED/models/minilm-l6-v2 --data 'glue/sst2:SHARED/data/text/SST-2?limit=8000' --epochs 1 \\
        --batch 16 --learning-rate 5e-5 --max-length 128 --seed 0 --out runs/sst2-dense-0
"""

import argparse
import json
import math
import pathlib
import platform
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
NETWORKS = {
    "lenet": {
        "name": "LeNet-300-100, MNIST",
        "model": "{shared}/models/lenet-300-100-mnist",
        "data": "mnist:{shared}/data/mnist",
        "spectrum": 400,
        "drift": {"limit": 3000, "held_out": "", "flags": ["--distances", "0.05,0.1,0.2", "--seeds", "3", "--products", "120",
                  "--damping", "1e-5", "--batch", "250", "--rates", "0.03,0.1"]},
    },
    "resnet20": {
        "name": "ResNet20, CIFAR-10",
        "model": "{shared}/models/resnet20-cifar10",
        "data": "cifar10:{shared}/data/cifar10",
        "spectrum": 100,
        "drift": {"limit": 640, "held_out": "limit=1000", "flags": ["--distances", "0.01,0.02", "--seeds", "3", "--products", "40",
                  "--damping", "1e-5", "--batch", "32", "--rates", "0.03", "--no-correction"]},
    },
    "minilm": {
        "name": "MiniLM-L6, SST-2",
        "model": "{sst2}",
        "data": "glue/sst2:{shared}/data/text/SST-2",
        "spectrum": 64,
        "drift": {"limit": 256, "held_out": "limit=400", "flags": ["--distances", "0.02,0.05", "--seeds", "3", "--products", "40",
                  "--damping", "1e-5", "--batch", "16", "--rates", "0.03", "--no-correction"]},
    },
}
# An eigenvalue below this counts as none: of g itself (METHOD), and of the largest one.
EPSILON = 1e-3


def call(words, ends=(0,)):
    started = time.time()
    print(" ".join(words), file=sys.stderr)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    if done.returncode not in ends:
        sys.exit(f"{' '.join(words)}\nended with {done.returncode}")
    return done.stdout, time.time() - started


def numbers(x, place):
    """Complains of a number that is none: JSON has null for it."""
    if x is None or (isinstance(x, float) and not math.isfinite(x)):
        sys.exit(f"{place}: wanted a finite number, got {x}; see the command's own output")
    if isinstance(x, dict):
        for k, v in x.items():
            numbers(v, f"{place}.{k}")
    if isinstance(x, list):
        for i, v in enumerate(x):
            numbers(v, f"{place}[{i}]")
    return x


def spectrum(args, fill):
    rows = []
    for key in args.networks or NETWORKS:
        n = NETWORKS[key]
        words = [args.fipk, "metric", "--model", fill(n["model"]), "--data", f"{fill(n['data'])}?limit={n['spectrum']}", "--exact",
                 "--epsilon", str(EPSILON), "--threads", str(args.threads), "--json"]
        out, seconds = call(words)
        found = numbers(json.loads(out), key)
        exact, weights = found["exact"], found["weights"]
        outputs = found["samples"] * found["outputs"]
        assert len(exact) == outputs, f"{key}: wanted {outputs} eigenvalues, got {len(exact)}"
        shares = {}
        for name, at in [("absolute", EPSILON), ("relative", EPSILON * exact[0])]:
            among = sum(not v >= at for v in exact)
            shares[name] = {"below": at, "among_outputs": among, "dimensions": weights - outputs + among,
                            "share": (weights - outputs + among) / weights, "share_among_outputs": among / outputs}
        rows.append({"network": n["name"], "command": words, "seconds": seconds, "shares": shares, "found": found})
    print("\n| network | weights n | outputs N m | largest λ | λ < 1e-3: of all n | of the N m | λ < 1e-3 λ₁: of all n | of the N m |")
    print("|---|---|---|---|---|---|---|---|")
    for r in rows:
        f, (a, b) = r["found"], (r["shares"]["absolute"], r["shares"]["relative"])
        cells = [f"{100 * s:.2f} %" for s in (a["share"], a["share_among_outputs"], b["share"], b["share_among_outputs"])]
        print(f"| {r['network']} | {f['weights']:,} | {f['samples']} × {f['outputs']} | {f['exact'][0]:.4g} | " + " | ".join(cells) + " |")
    return rows


def drift(args, fill):
    rows = []
    for key in args.networks or NETWORKS:
        n, d = NETWORKS[key], NETWORKS[key]["drift"]
        file = args.runs / f"drift-{key}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        held_out = f"{fill(n['data'])}?{d['held_out']}".rstrip("?")
        words = [args.drift, "--model", fill(n["model"]), "--data", f"{fill(n['data'])}?split=train&limit={d['limit']}",
                 "--held-out", held_out, *d["flags"], "--json", str(file)]
        out, seconds = call(words)
        print(out)
        found = numbers(json.loads(file.read_text()), key)
        rows.append({"network": n["name"], "command": words, "seconds": seconds, "found": found})
        random = lambda d, side: [r[side]["kl"] for r in found["rows"] if r["way"].startswith("random") and r["distance"] == d]
        print("| way | distance | KL | random / it | held-out KL | random / it | held-out accuracy |\n|---|---|---|---|---|---|---|")
        for r in found["rows"]:
            if r["distance"] == 0:
                continue
            parts = []
            for side in ("data", "held_out"):
                mean = sum(random(r["distance"], side)) / len(random(r["distance"], side))
                parts += [f"{r[side]['kl']:.2e}", f"{mean / r[side]['kl']:.3g}"]
            print(f"| {r['way']} | {r['distance']} | " + " | ".join(parts) + f" | {100 * r['held_out']['accuracy']:.2f} % |")
    return rows


def geodesic(args, fill):
    n = NETWORKS["lenet"]
    out = args.runs / "geodesic-lenet"
    words = [args.fipk, "geodesic", "--model", fill(n["model"]), "--data", f"{fill(n['data'])}?limit=40", "--batch", "40",
             "--length", args.length, "--points", "10", "--threads", str(args.threads), "--out", str(out), "--overwrite", "--json"]
    text, seconds = call(words)
    found = numbers(json.loads(text)["found"], "geodesic")
    for w in found["walks"]:
        if "speed_change" in w:
            print(f"{w['name']:9} speed changes by {100 * w['speed_change']:.3g} %")
    if args.out:
        shutil.copy(out / "speed.svg", args.out.with_suffix(".svg"))
    return [{"network": n["name"], "command": words, "seconds": seconds, "found": found}]


def equal_drift(args, fill):
    """The highest sparsity that keeps a limit on the drift, by kind of step: as many steps, the same data."""
    n, rows = NETWORKS["lenet"], []
    print("| steps | zeros | mean KL, of examples that the choice never saw | seconds of the search |\n|---|---|---|---|")
    # The optimizer at three rates, of which 1e-3 is the usual one.
    ways = {**{f"gradient, rate {r}": ["--step", "gradient", "--learning-rate", r] for r in ["3e-4", "1e-3", "4e-3"]},
            "exact": ["--step", "exact"], "null": ["--step", "null"]}
    for kind, flags in ways.items():
        out = args.runs / f"equal-drift-{kind.replace(', rate ', '-')}"
        words = [args.fipk, "sparsify", "--model", fill(n["model"]), "--data", fill(n["data"]), "--drift", "kl<=0.01", *flags,
                 "--steps", "200", "--seed", "0", "--threads", str(args.threads), "--out", str(out), "--overwrite", "-q"]
        # 3: the limit held on the examples of the choice and not on these, as the certificate says, or no sparsity keeps
        # it and there is no certificate.
        _, seconds = call(words, ends=(0, 3))
        certificate = out / "drift.json"
        if not certificate.exists():
            tried = numbers(json.loads((out / "search.json").read_text())["tried"], kind)
            rows.append({"step": kind, "command": words, "seconds": seconds, "found": None, "tried": tried})
            print(f"| {kind} | none keeps it | | {seconds:.0f} |", flush=True)
            continue
        found = numbers(json.loads(certificate.read_text()), kind)
        kl = found["limits"][0]["estimate"]
        rows.append({"step": kind, "command": words, "seconds": seconds, "found": found})
        print(f"| {kind} | {100 * found['sparsity']:.1f} % | {kl['value']:.4f} ({kl['low']:.4f} to {kl['high']:.4f}) | {seconds:.0f} |", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["spectrum", "drift", "geodesic", "equal-drift"])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; all without one")
    parser.add_argument("--shared", default=str(ROOT.parent / "shared"), help="folder with models/ and data/")
    parser.add_argument("--sst2", default=str(ROOT / "runs/sst2-dense-0/model"))
    parser.add_argument("--fipk", default=str(ROOT / "target/release/fipk"))
    parser.add_argument("--drift", default=str(ROOT / "target/release/examples/drift"))
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "runs")
    parser.add_argument("--length", default="0.5", help="of the geodesic, over the norm of the weights")
    parser.add_argument("--threads", type=int, default=2, help="results do not depend on them")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    unknown = [n for n in args.networks if n not in NETWORKS]
    if unknown:
        parser.error(f"NETWORK: wanted {', '.join(NETWORKS)}, got {', '.join(unknown)}")

    fill = lambda text: text.format(shared=args.shared, sst2=args.sst2)
    started = time.time()
    rows = {"spectrum": spectrum, "drift": drift, "geodesic": geodesic, "equal-drift": equal_drift}[args.what](args, fill)
    if args.out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
        cpu = [l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")]
        raw = {"what": args.what, "commit": commit, "cpu": (cpu or [platform.machine()])[0], "command": sys.argv,
               "seconds": time.time() - started, "rows": rows}
        args.out.write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
