"""The largest eigenvalues of the metric g = (1/N) J^T J of a text classifier: fipk and curvlinops, in turn, on the same
weights and sentences.

    python benches/peers/spectrum.py --model runs/dense/model --data SST-2 --limit 64 [--rounds 3] [--out FILE.json]

One product with g is also timed by itself as torch.func would have it, jvp then vjp, on batches of --batch. curvlinops has
the Gauss-Newton matrix of a sum of squares, which is 2 N g; SciPy's eigsh looks for its top, at fipk's tolerance.
Eigenvalues of the two must agree, or the script fails.
"""

import argparse
import csv
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def sentences(folder, limit):
    with open(pathlib.Path(folder) / "dev.tsv", encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row["sentence"] for row, _ in zip(rows, range(limit))]


def by_torch(args):
    """In a process of its own, so that the peak of memory is its own: prints one JSON line."""
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    imports = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # torch's fused attention has no forward-mode rule.
    model = transformers.AutoModelForSequenceClassification.from_pretrained(args.model, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    texts, batches = sentences(args.data, args.limit), []
    for i in range(0, len(texts), args.batch):
        one = tokenizer(texts[i:i + args.batch], padding=True, truncation=True, max_length=128, return_tensors="pt")
        batches.append(torch.stack([one["input_ids"], one["attention_mask"]], 1))

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(input_ids=x[:, 0], attention_mask=x[:, 1]).logits

    net = Logits()
    params = {n: p for n, p in net.named_parameters() if p.requires_grad}
    detached = {n: p.detach() for n, p in params.items()}
    direction = {n: torch.randn_like(p) for n, p in detached.items()}

    def product():
        total = None
        for x in batches:
            of = lambda p: torch.func.functional_call(net, p, (x,))
            _, moved = torch.func.jvp(of, (detached,), (direction,))
            _, back = torch.func.vjp(of, detached)
            g, = back(moved)
            total = g if total is None else {n: total[n] + g[n] for n in g}
        return total

    def timed(work):
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    product()
    result = {"product_s": statistics.median(timed(product) for _ in range(args.products))}
    if args.top:
        import curvlinops
        from scipy.sparse.linalg import eigsh

        data = [(x, torch.zeros(len(x), model.config.num_labels)) for x in batches]
        start = time.perf_counter()
        operator = curvlinops.GGNLinearOperator(net, torch.nn.MSELoss(reduction="sum"), list(params.values()), data,
                                                check_deterministic=False)
        values = eigsh(operator.to_scipy(), k=args.top, which="LM", tol=args.tolerance, return_eigenvectors=False)
        result["top_s"] = time.perf_counter() - start
        result["values"] = sorted((float(v) / (2 * len(texts)) for v in values), reverse=True)
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - imports
    print(json.dumps(result))


def measured(command):
    """The last line of what a command prints, and the peak of its memory in MiB."""
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(list(map(str, command)), stdout=out)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            sys.exit(f"{' '.join(map(str, command))}: ended with {status}")
        out.seek(0)
        return out.read(), usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="folder of SST-2")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--products", type=int, default=3, help="products with g to take the median of")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fipk", default=str(ROOT / "target/release/fipk"))
    parser.add_argument("--out")
    parser.add_argument("--torch", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.torch:
        return by_torch(args)

    ours = [args.fipk, "metric", "--model", args.model, "--data", f"glue/sst2:{args.data}?limit={args.limit}&split=dev",
            "--batch", args.batch, "--tolerance", args.tolerance, "--probes", 1, "--threads", args.threads, "--json"]
    rounds = []
    for _ in range(args.rounds):
        theirs = json.loads(measured([sys.executable, __file__, "--torch", *sys.argv[1:]])[0].strip().splitlines()[-1])
        with tempfile.TemporaryDirectory() as folder:
            text, peak = measured([*ours, "--top", args.top, "--out", pathlib.Path(folder) / "found"])
            found = json.loads(text)
        largest = [e["value"] for e in found["largest"]]
        worst = max(abs(a - b) for a, b in zip(largest, theirs["values"])) / largest[0]
        if not worst < 1e-3:
            sys.exit(f"eigenvalues differ by {worst} of the largest: {largest} and {theirs['values']}")
        rounds.append({"fipk": found | {"peak_mib": peak}, "torch": theirs, "worst_difference": worst})
        a, b = found["seconds"], theirs["top_s"]
        print(f"top {args.top}: fipk {a:.1f} s ({found['products']} products), curvlinops {b:.1f} s, ratio {b / a:.2f}; "
              f"memory {peak:.0f} and {theirs['peak_mib']:.0f} MiB; eigenvalues differ by {worst:.1e} of the largest")
    if args.out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
        cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
        raw = {"commit": commit, "cpu": cpu, "threads": args.threads, "command": " ".join(sys.argv), "rounds": rounds}
        pathlib.Path(args.out).write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
