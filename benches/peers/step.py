"""The sparsification step of METHOD.md as a PyTorch user would write it, timed as a whole and phase by phase.

One step: magnitudes of all prunable weights -> kthvalue -> masks; teacher and student forward; output distance plus
lambda * ||w - w_p||_2; backward; fused AdamW. Weights, tokens and pixels are random, so nothing is downloaded. Dropout is
off: the distance compares the network with itself.
"""

import argparse
import contextlib
import copy
import statistics

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from common import (Phases, Unwatched, add_arguments, autocast, compiled, describe, median_ms, peak_memory, peak_rss_mib, set_up,
                    show)
from project import by_kthvalue, by_sort, by_topk, flatten
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import BertConfig, BertForSequenceClassification, ViTConfig, ViTForImageClassification

BATCHES = 4  # different batches, taken in turn


class LeNet300(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = torch.nn.Linear(784, 300), torch.nn.Linear(300, 100), torch.nn.Linear(100, 10)

    def forward(self, pixel_values):
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(pixel_values)))))


SIZES = {
    "tiny": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=300),
    "minilm": dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
    "bert-base": {},
}


def build(args):
    """The model, the weights to prune (linears of the body) and a few random batches."""
    on = args.device
    if args.model == "mlp":
        model = LeNet300().to(on)
        batches = [{"pixel_values": torch.randn(args.batch, 784, device=on)} for _ in range(BATCHES)]
        return model.eval(), [model.fc1.weight, model.fc2.weight], batches
    if args.model == "vit-b16":
        model = ViTForImageClassification(ViTConfig(num_labels=1000)).to(on)
        batches = [{"pixel_values": torch.randn(args.batch, 3, 224, 224, device=on)} for _ in range(BATCHES)]
        layers = [m.weight for m in model.vit.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
        return model.eval(), layers, batches
    model = BertForSequenceClassification(BertConfig(**SIZES[args.model], num_labels=2)).to(on)
    prunable = [m.weight for m in model.bert.encoder.modules() if isinstance(m, torch.nn.Linear)]
    shape = (args.batch, args.seq)
    batches = [{"input_ids": torch.randint(model.config.vocab_size // 30, model.config.vocab_size, shape, device=on),
                "attention_mask": torch.ones(shape, dtype=torch.long, device=on),
                "token_type_ids": torch.zeros(shape, dtype=torch.long, device=on)} for _ in range(BATCHES)]
    return model.eval(), prunable, batches


def logits_of(output):
    """Distances are computed in f32 whatever the network is."""
    return (output if isinstance(output, torch.Tensor) else output.logits).float()


def kl(student, teacher):
    return F.kl_div(F.log_softmax(student, -1), F.log_softmax(teacher, -1), reduction="batchmean", log_target=True)


def bhattacharyya(student, teacher):
    return -torch.logsumexp(0.5 * (F.log_softmax(student, -1) + F.log_softmax(teacher, -1)), -1).mean()


def pull_norm(prunable, pruned):
    """||w - w_p||_2: the projected weights differ from w only where they are zero."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(w * p) for w, p in zip(prunable, pruned)]))


def by_partition(magnitudes, k):
    """numpy's selection uses vector instructions; torch's on the CPU does not."""
    return float(np.partition(magnitudes.numpy(), k - 1)[k - 1])


SELECT = {"kthvalue": by_kthvalue, "sort": by_sort, "topk": by_topk, "partition": by_partition}


def time_steps(args, model, prunable, batches):
    distance_of = {"kl": kl, "bhattacharyya": bhattacharyya}[args.distance]
    find = SELECT[args.select]
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01, fused=True)
    k = max(1, round(args.sparsity * sum(w.numel() for w in prunable)))
    student, teacher, cached = compiled(args, model), None, None
    if args.teacher == "forward":
        frozen = copy.deepcopy(model).requires_grad_(False)
        # Nothing keeps a frozen network's weights in f32.
        teacher = compiled(args, frozen.to(torch.bfloat16) if args.dtype == "bf16" else frozen)
    else:
        with torch.no_grad(), autocast(args):
            cached = [logits_of(model(**b)).clone() for b in batches]

    def masks(prunable):
        threshold = find(flatten(prunable), k)
        return [w.abs() <= threshold for w in prunable]

    choose = masks if args.select == "partition" else compiled(args, masks)
    norm_of, apart = compiled(args, pull_norm), compiled(args, distance_of)

    def step(i, phase):
        batch = batches[i % BATCHES]
        if args.compile and args.compile_mode != "default":
            torch.compiler.cudagraph_mark_step_begin()
        with phase("select"), torch.no_grad():
            pruned = choose(prunable)
        with phase("teacher_forward"), torch.no_grad():
            target = logits_of(teacher(**batch)) if teacher else cached[i % BATCHES]
        with phase("forward"), autocast(args):
            logits = logits_of(student(**batch))
        with phase("distance"):
            distance = apart(logits, target)
        with phase("norm"):
            norm = norm_of(prunable, pruned)
        with phase("backward"):
            (distance + args.pull * norm).backward()
        with phase("adamw"):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)  # here, so that no gradient is held while the next step begins
        return pruned

    unwatched = Unwatched()
    for i in range(args.warm_up):
        step(i, unwatched)
    phase = Phases(args.device)
    for i in range(args.steps):
        with phase("step"):
            step(args.warm_up + i, unwatched)
    memory = peak_memory(args)
    for i in range(args.steps):
        pruned = step(args.warm_up + i, phase)

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
    return out | memory


def time_forward(args, model, batches):
    forward = compiled(args, model)
    with torch.inference_mode(), autocast(args):
        return {"forward_only_ms": median_ms(args, lambda i: forward(**batches[i % BATCHES]))}


def time_vjp(args, model, batches):
    params, forward = list(model.parameters()), compiled(args, model)
    cotangent = torch.randn(args.batch, logits_of(model(**batches[0])).shape[-1], device=args.device)

    def work(i):
        with autocast(args):
            logits = logits_of(forward(**batches[i % BATCHES]))
        return torch.autograd.grad(logits, params, cotangent)

    return {"vjp_ms": median_ms(args, work)}


def time_jvp(args, model, batches):
    """Logits and J v along a random direction of all weights. Where the fused attention has no forward-mode rule, its
    plain-math form is used; where torch.compile does not take the whole, it runs uncompiled. Both are said."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    tangents = {name: torch.randn_like(p) for name, p in params.items()}

    def jvp(params, tangents, batch):
        def at(p):
            with autocast(args):
                return logits_of(torch.func.functional_call(model, p, args=(), kwargs=batch))

        return torch.func.jvp(at, (params,), (tangents,))

    def works(function):
        try:
            function(params, tangents, batches[0])
            return True
        except Exception:  # whatever the compiler raises
            return False

    backends = [("default", contextlib.nullcontext), ("math", lambda: sdpa_kernel(SDPBackend.MATH))]
    for compile in [True, False] if args.compile else [False]:
        for label, backend in backends:
            with backend():
                function = compiled(args, jvp) if compile else jvp
                if works(function):
                    time = median_ms(args, lambda i: function(params, tangents, batches[i % BATCHES]))
                    return {"jvp_ms": time, "jvp_attention": label, "jvp_compiled": compile}
    return {"jvp_ms": None, "jvp_attention": None, "jvp_compiled": False}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["tiny", "minilm", "bert-base", "vit-b16", "mlp"], default="minilm")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq", type=int, default=64)
    parser.add_argument("--teacher", choices=["cached", "forward"], default="cached")
    parser.add_argument("--distance", choices=["kl", "bhattacharyya"], default="kl")
    parser.add_argument("--select", choices=list(SELECT), default="kthvalue",
                        help="what finds the k-th magnitude; partition is numpy's")
    parser.add_argument("--sparsity", type=float, default=0.6)
    parser.add_argument("--pull", type=float, default=1.0, help="weight of the norm")
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--what", default="step,forward,vjp,jvp", help="parts to time, separated by commas")
    parser.add_argument("--save", metavar="DIR", help="write the random model here, to time another program on it")
    add_arguments(parser)
    args = parser.parse_args()
    args.what = args.what.split(",")
    if unknown := set(args.what) - {"step", "forward", "vjp", "jvp"}:
        parser.error(f"--what: unknown {sorted(unknown)}")
    if args.save and args.model == "mlp":
        parser.error("--save: the mlp is not a transformers model")
    set_up(parser, args)
    if args.select == "partition" and args.device.type != "cpu":
        parser.error("--select partition: numpy's selection is for the CPU")
    return args


def main():
    args = parse_args()
    settings = ("model", "batch", "seq", "teacher", "distance", "select", "sparsity", "steps")
    result = {key: getattr(args, key) for key in settings} | describe(args)
    result |= {"transformers": transformers.__version__, "rss_after_import_mib": peak_rss_mib()}
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
    show(args, result)


if __name__ == "__main__":
    main()
