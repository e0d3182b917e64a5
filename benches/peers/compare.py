"""fipk and PyTorch on the same step of the same random model, in turn on one machine: a table of ratios and raw JSON.

    python benches/peers/compare.py [--rounds 3] [--out benches/results/FILE.json] [case ..]
    python benches/peers/compare.py --device cuda --dtype bf16 --compile

Ratios are PyTorch's number over fipk's: above 1, fipk is faster or smaller. With --compile, PyTorch also runs under
torch.compile, in the same rounds, and has a column of its own.
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
# model, batch, tokens, teacher, steps on the CPU
CASES = {
    "tiny": ("tiny", 2, 8, "cached", 2),
    "minilm": ("minilm", 16, 64, "cached", 10),
    "minilm-teacher": ("minilm", 16, 64, "forward", 10),
    "bert-base": ("bert-base", 8, 128, "cached", 4),
    "bert-base-teacher": ("bert-base", 8, 128, "forward", 4),
    "resnet20": ("resnet20", 128, 1, "cached", 10),
    "vit-b16": ("vit-b16", 4, 1, "cached", 4),
    "vit-b16-64": ("vit-b16", 64, 1, "cached", 4),
    "bert-base-32": ("bert-base", 32, 128, "cached", 4),
    "bert-base-32-teacher": ("bert-base", 32, 128, "forward", 4),
}
USUAL = {"cpu": ["minilm", "minilm-teacher", "bert-base", "bert-base-teacher"],
         "cuda": ["minilm", "bert-base-32", "bert-base-32-teacher", "vit-b16-64"]}
STEPS_ON_CUDA = 50
# (row, fipk's field, the peer's field; of several, their sum)
ROWS = [
    ("whole step, ms", "step_ms", "step_ms"),
    ("projection + update, ms", "project_update_ms", "project_update_ms"),
    ("projection, ms", "select_ms", "select_ms"),
    ("forward alone, ms", "forward_ms", "forward_only_ms"),
    ("J^T u, ms", "vjp_ms", "vjp_ms"),
    ("J v, ms", "jvp_ms", "jvp_ms"),
    ("g v = J^T (J v), ms", ("jvp_ms", "vjp_ms"), ("jvp_ms", "vjp_ms")),
    ("peak over imports, MiB", "peak_rss_mib", "peak_rss_mib"),
    ("peak of the device, MiB", "peak_device_mib", "peak_device_mib"),
]


def run(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def number(result, field, on_cuda):
    """A field of a result, if it has it. On the CPU, memory is what came on top of the imports."""
    if isinstance(field, tuple):
        parts = [result.get(name) for name in field]
        return None if None in parts else sum(parts)
    value = result.get(field)
    if field == "peak_rss_mib":
        return None if on_cuda or value is None else value - result.get("rss_after_import_mib", 0)
    return value


def table(rounds, peers, on_cuda):
    for name, ours, theirs in ROWS:
        text = f"  {name:24}"
        for peer in peers:
            pairs = [(number(r["fipk"], ours, on_cuda), number(r[peer], theirs, on_cuda)) for r in rounds]
            pairs = [(a, b) for a, b in pairs if a and b]
            if not pairs:
                continue
            ratios = sorted(b / a for a, b in pairs)
            a, b = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
            ours_once = f" fipk {a:9.2f} " if peer == peers[0] else ""
            text += f"{ours_once} {peer} {b:9.2f}  ratio {statistics.median(ratios):6.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}] "
        if "ratio" in text:
            print(text.rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N, of both")
    parser.add_argument("--dtype", choices=["f32", "tf32", "bf16"], default="f32", help="of both; fipk's CPU has f32 alone")
    parser.add_argument("--compile", action="store_true", help="PyTorch under torch.compile as well")
    parser.add_argument("--compile-mode", choices=["default", "reduce-overhead", "max-autotune"], default="default")
    parser.add_argument("--select", choices=["kthvalue", "sort", "topk", "partition"], default="kthvalue", help="PyTorch's")
    parser.add_argument("--fipk", default=str(ROOT / "target/release/fipk"))
    parser.add_argument("--out")
    args = parser.parse_args()
    if unknown := set(args.cases) - set(CASES):
        parser.error(f"unknown cases {sorted(unknown)}")

    on_cuda = args.device.startswith("cuda")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    raw = {"commit": commit, "cpu": cpu, "threads": args.threads, "device": args.device, "dtype": args.dtype,
           "command": " ".join(sys.argv), "cases": {}}
    peers = {"PyTorch": []} | ({"compiled": ["--compile", "--compile-mode", args.compile_mode]} if args.compile else {})
    for case in args.cases or USUAL["cuda" if on_cuda else "cpu"]:
        model, batch, tokens, teacher, steps = CASES[case]
        steps = STEPS_ON_CUDA if on_cuda else steps
        both = ["--batch", batch, "--teacher", teacher, "--threads", args.threads, "--device", args.device, "--dtype", args.dtype,
                "--json"]
        script = [sys.executable, ROOT / "benches/peers/step.py", "--model", model, "--seq", tokens, "--select", args.select]
        with tempfile.TemporaryDirectory() as folder:
            ours = [args.fipk, "bench", "step", "--model", folder, "--tokens", tokens, "--steps", steps]
            run([*script, *both, "--save", folder, "--steps", 1, "--warm-up", 0, "--what", "step"])
            rounds = []
            for _ in range(args.rounds):
                theirs = {peer: run([*script, *both, "--steps", steps, *flags]) for peer, flags in peers.items()}
                rounds.append({"fipk": run([*ours, *both])} | theirs)
        raw["cases"][case] = rounds
        print(f"\n{case}: {batch} x {tokens}, {args.device} {args.dtype}, {args.threads} threads, "
              f"median of {args.rounds} rounds [lowest, highest ratio]")
        table(rounds, list(peers), on_cuda)
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
