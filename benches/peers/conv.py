"""Convolutions of fipk and of PyTorch, in turn on one machine: forward, gradients of input and weight.

    python benches/peers/conv.py [--rounds 3] [--only resnet20] [--out benches/results/FILE.json]

Each round times every shape with `benches/conv.rs` and then with PyTorch (contiguous tensors, f32). Ratios are
PyTorch's time over fipk's, of the fastest run of all rounds: above 1, fipk is faster. Raw times go to --out.
"""

import argparse
import glob
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import torch

import common

ROOT = pathlib.Path(__file__).resolve().parents[2]
# N, C, H, W, O, kh, kw, stride, padding, groups
SHAPES = {
    "resnet20": ["128,3,32,32,16,3,3,1,1,1", "128,16,32,32,16,3,3,1,1,1", "128,16,32,32,32,3,3,2,1,1",
                 "128,32,16,16,32,3,3,1,1,1", "128,32,16,16,64,3,3,2,1,1", "128,64,8,8,64,3,3,1,1,1"],
    "resnet50": ["8,3,224,224,64,7,7,2,3,1", "8,64,56,56,64,3,3,1,1,1", "8,64,56,56,256,1,1,1,0,1",
                 "8,256,56,56,64,1,1,1,0,1", "8,64,56,56,128,3,3,2,1,1", "8,64,56,56,128,1,1,2,0,1",
                 "8,128,28,28,128,3,3,1,1,1", "8,512,28,28,128,1,1,1,0,1", "8,256,14,14,256,3,3,1,1,1",
                 "8,1024,14,14,256,1,1,1,0,1", "8,512,7,7,512,3,3,1,1,1", "8,512,7,7,2048,1,1,1,0,1"],
    "vgg16": ["4,64,112,112,128,3,3,1,1,1", "4,256,28,28,512,3,3,1,1,1", "4,512,14,14,512,3,3,1,1,1"],
    "vit": ["4,3,224,224,768,16,16,16,0,1"],
    "lenet": ["64,1,28,28,6,5,5,1,2,1", "64,6,14,14,16,5,5,1,0,1"],
    "grouped": ["8,128,28,28,128,3,3,1,1,32", "8,128,28,28,128,3,3,1,1,128"],
}
PASSES = ["forward", "input", "weight"]
SECONDS = 0.1


def clock(work):
    """(fastest, median) in milliseconds."""
    def once():
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) * 1e3
    once()
    runs = int(min(100, max(4, SECONDS * 1e3 / once())))
    times = [once() for _ in range(runs)]
    return [min(times), statistics.median(times)]


@torch.no_grad()
def peer(shape):
    n, c, h, w, o, kh, kw, stride, padding, groups = map(int, shape.split(","))
    x, weight = torch.randn(n, c, h, w), torch.randn(o, c // groups, kh, kw)
    gy = torch.randn_like(torch.nn.functional.conv2d(x, weight, None, stride, padding, 1, groups))

    def backward(wanted):
        torch.ops.aten.convolution_backward(gy, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0],
                                            groups, wanted)
    return {"forward": clock(lambda: torch.nn.functional.conv2d(x, weight, None, stride, padding, 1, groups)),
            "input": clock(lambda: backward([True, False, False])),
            "weight": clock(lambda: backward([False, True, False]))}


def fipk(program, shapes, threads):
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    done = subprocess.run([program, *shapes], capture_output=True, text=True, check=True, env=environment)
    rows = map(json.loads, done.stdout.splitlines())
    return {row.pop("shape"): row for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", action="append", choices=SHAPES, help="networks [default: all]")
    parser.add_argument("--program", help="built by `cargo bench --bench conv --no-run` [default: the newest there]")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    built = [p for p in glob.glob(str(ROOT / "target/release/deps/conv-*")) if os.access(p, os.X_OK)]
    program = args.program or max(built, key=os.path.getmtime, default=None)
    if program is None:
        sys.exit("no program: cargo bench --bench conv --no-run")
    shapes = [shape for name in args.only or SHAPES for shape in SHAPES[name]]
    rounds = []
    for _ in range(args.rounds):
        ours = fipk(program, shapes, args.threads)
        rounds.append({shape: {"fipk": ours[shape], "torch": peer(shape)} for shape in shapes})
    print(f"{'N,C,H,W,O,kh,kw,stride,padding,groups':40}" + "".join(f"{p:>9} ms {'ratio':>5}" for p in PASSES))
    for shape in shapes:
        best = {who: {p: min(r[shape][who][p][0] for r in rounds) for p in PASSES} for who in ["fipk", "torch"]}
        cells = (f"{best['fipk'][p]:12.3f} {best['torch'][p] / best['fipk'][p]:5.2f}" for p in PASSES)
        print(f"{shape:40}" + "".join(cells))
    if args.out:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
        facts = {"commit": commit.stdout.strip(), "cpu": common.cpu_name(), "torch": torch.__version__,
                 "threads": args.threads, "command": " ".join(["python", "benches/peers/conv.py", *sys.argv[1:]])}
        args.out.write_text(json.dumps({**facts, "milliseconds": ["fastest", "median"], "rounds": rounds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
