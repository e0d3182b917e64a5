"""The sparsification step of METHOD.md as a PyTorch user would write it, timed phase by phase.

One step: magnitudes of all prunable weights -> kthvalue -> masks; teacher and student forward; output distance plus
lambda * ||w - w_p||_2; backward; fused AdamW. Weights, tokens and pixels are random, so nothing is downloaded. Dropout is
off: the distance compares the network with itself.
"""

import argparse
import contextlib
import copy
import json
import platform
import resource
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import BertConfig, BertForSequenceClassification

BATCHES = 4  # different batches, taken in turn
WARM_UP = 2


class LeNet300(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = torch.nn.Linear(784, 300), torch.nn.Linear(300, 100), torch.nn.Linear(100, 10)

    def forward(self, pixel_values):
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(pixel_values)))))


def build(args):
    """The model, the weights to prune (linears of the body) and a few random batches."""
    if args.model == "mlp":
        model = LeNet300()
        batches = [{"pixel_values": torch.randn(args.batch, 784)} for _ in range(BATCHES)]
        return model.eval(), [model.fc1.weight, model.fc2.weight], batches
    small = dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    model = BertForSequenceClassification(BertConfig(**(small if args.model == "minilm" else {}), num_labels=2))
    prunable = [m.weight for m in model.bert.encoder.modules() if isinstance(m, torch.nn.Linear)]
    shape = (args.batch, args.seq)
    batches = [{"input_ids": torch.randint(1000, model.config.vocab_size, shape),
                "attention_mask": torch.ones(shape, dtype=torch.long),
                "token_type_ids": torch.zeros(shape, dtype=torch.long)} for _ in range(BATCHES)]
    return model.eval(), prunable, batches


def logits_of(output):
    return output if isinstance(output, torch.Tensor) else output.logits


def kl(student, teacher):
    return F.kl_div(F.log_softmax(student, -1), F.log_softmax(teacher, -1), reduction="batchmean", log_target=True)


def bhattacharyya(student, teacher):
    return -torch.logsumexp(0.5 * (F.log_softmax(student, -1) + F.log_softmax(teacher, -1)), -1).mean()


def pull_norm(prunable, pruned):
    """||w - w_p||_2: the projected weights differ from w only where they are zero."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(w * p) for w, p in zip(prunable, pruned)]))


def kthvalue(magnitudes, k):
    return torch.kthvalue(magnitudes, k).values


def partition(magnitudes, k):
    """numpy's selection uses vector instructions; torch's on the CPU does not."""
    return float(np.partition(magnitudes.numpy(), k - 1)[k - 1])


class Phases:
    """Milliseconds of each named phase, one list entry a step."""

    def __init__(self):
        self.times = {}

    @contextlib.contextmanager
    def __call__(self, name):
        start = time.perf_counter()
        yield
        self.times.setdefault(name, []).append((time.perf_counter() - start) * 1e3)

    def forget(self):
        self.times.clear()

    def median(self, name):
        return statistics.median(self.times[name])


def time_steps(args, model, prunable, batches):
    distance_of = {"kl": kl, "bhattacharyya": bhattacharyya}[args.distance]
    select = {"kthvalue": kthvalue, "partition": partition}[args.select]
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01, fused=True)
    k = max(1, round(args.sparsity * sum(w.numel() for w in prunable)))
    teacher, cached = None, None
    if args.teacher == "forward":
        teacher = copy.deepcopy(model).requires_grad_(False)
    else:
        with torch.no_grad():
            cached = [logits_of(model(**b)) for b in batches]
    phase = Phases()

    def step(i):
        batch = batches[i % BATCHES]
        with phase("select"), torch.no_grad():
            magnitudes = torch.cat([w.abs().flatten() for w in prunable])
            threshold = select(magnitudes, k)
            pruned = [w.abs() <= threshold for w in prunable]
            del magnitudes
        with phase("teacher_forward"), torch.no_grad():
            target = logits_of(teacher(**batch)) if teacher else cached[i % BATCHES]
        with phase("forward"):
            logits = logits_of(model(**batch))
        with phase("distance"):
            distance = distance_of(logits, target)
        with phase("norm"):
            norm = pull_norm(prunable, pruned)
        with phase("backward"):
            (distance + args.pull * norm).backward()
        with phase("adamw"):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)  # here, so that no gradient is held while the next step begins
        return pruned

    for i in range(args.warm_up):
        step(i)
    phase.forget()
    for i in range(args.steps):
        with phase("step"):
            pruned = step(args.warm_up + i)
    rss = peak_rss_mib()

    # The share of `backward` that belongs to the norm, taken by itself.
    for _ in range(args.steps):
        norm = pull_norm(prunable, pruned)
        with phase("norm_backward_alone"):
            torch.autograd.grad(norm, prunable)
    names = ["step", "select", "teacher_forward", "forward", "distance", "norm", "backward", "adamw", "norm_backward_alone"]
    out = {f"{name}_ms": phase.median(name) for name in names}
    out["distance_and_norm_ms"] = statistics.median(map(sum, zip(phase.times["distance"], phase.times["norm"])))
    parts = zip(*(phase.times[name] for name in ("select", "norm", "adamw")))
    out["project_update_ms"] = statistics.median(map(sum, parts))
    out["step_fastest_ms"], out["step_slowest_ms"] = min(phase.times["step"]), max(phase.times["step"])
    return out | {"peak_rss_mib": rss}


def median_ms(args, work):
    for i in range(args.warm_up):
        work(i)
    phase = Phases()
    for i in range(args.steps):
        with phase("it"):
            work(i)
    return phase.median("it")


def time_forward(args, model, batches):
    with torch.inference_mode():
        return {"forward_only_ms": median_ms(args, lambda i: model(**batches[i % BATCHES]))}


def time_vjp(args, model, batches):
    params = list(model.parameters())
    cotangent = torch.randn(args.batch, logits_of(model(**batches[0])).shape[-1])

    def work(i):
        return torch.autograd.grad(logits_of(model(**batches[i % BATCHES])), params, cotangent)

    return {"vjp_ms": median_ms(args, work)}


def time_jvp(args, model, batches):
    """Logits and J v along a random direction of all weights. Where the fused attention has no forward-mode rule, its
    plain-math form is used."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    tangents = {name: torch.randn_like(p) for name, p in params.items()}

    def work(i):
        def at(p):
            return logits_of(torch.func.functional_call(model, p, args=(), kwargs=batches[i % BATCHES]))

        return torch.func.jvp(at, (params,), (tangents,))

    try:
        work(0)
        backend, label = contextlib.nullcontext(), "default"
    except (NotImplementedError, RuntimeError):
        backend, label = sdpa_kernel(SDPBackend.MATH), "math"
    with backend:
        return {"jvp_ms": median_ms(args, work), "jvp_attention": label}


def peak_rss_mib():
    """High-water mark of resident memory. Linux counts KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["minilm", "bert-base", "mlp"], default="minilm")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--teacher", choices=["cached", "forward"], default="cached")
    parser.add_argument("--distance", choices=["kl", "bhattacharyya"], default="kl")
    parser.add_argument("--select", choices=["kthvalue", "partition"], default="kthvalue",
                        help="who finds the k-th magnitude: torch or numpy")
    parser.add_argument("--sparsity", type=float, default=0.6)
    parser.add_argument("--pull", type=float, default=1.0, help="weight of the norm")
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=WARM_UP)
    parser.add_argument("--what", default="step,forward,vjp,jvp", help="parts to time, separated by commas")
    parser.add_argument("--save", metavar="DIR", help="write the random model here, to time another program on it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    args.what = args.what.split(",")
    if unknown := set(args.what) - {"step", "forward", "vjp", "jvp"}:
        parser.error(f"--what: unknown {sorted(unknown)}")
    if args.save and args.model == "mlp":
        parser.error("--save: the mlp is not a transformers model")
    return args


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    settings = ("model", "batch", "seq", "threads", "teacher", "distance", "select", "sparsity", "steps")
    result = {key: getattr(args, key) for key in settings}
    result |= {"torch": torch.__version__, "transformers": transformers.__version__, "cpu": cpu_name(),
               "rss_after_import_mib": peak_rss_mib()}
    model, prunable, batches = build(args)
    result |= {"weights": sum(p.numel() for p in model.parameters()), "prunable": sum(w.numel() for w in prunable)}
    if args.save:
        model.save_pretrained(args.save)
    # Steps come first: peak memory is a high-water mark of the whole process.
    if "step" in args.what:
        result |= time_steps(args, model, prunable, batches)
    if "forward" in args.what:
        result |= time_forward(args, model, batches)
    if "vjp" in args.what:
        result |= time_vjp(args, model, batches)
    if "jvp" in args.what:
        result |= time_jvp(args, model, batches)
    result = {k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}
    print(json.dumps(result) if args.json else "\n".join(f"{k:24} {v}" for k, v in result.items()))


def cpu_name():
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":")[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
