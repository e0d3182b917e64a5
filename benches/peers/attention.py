"""Attention alone in PyTorch: forward, tangent and cotangents at (32, 12, 128 .. 2048, 64), times and errors.

    python benches/peers/attention.py --device cuda --dtype bf16 [--length 128 512] [--json]

forward    scaled_dot_product_attention, its flash kernel where the device has one
vjp        its backward alone
jvp_math   torch.func.jvp over softmax(q kT / sqrt D) v written out: fused attention has no forward-mode rule
jvp_flash  jvp_flash_attention's kernel (PyPI, Triton), where it is installed and the device is CUDA: primal and tangent

fipk's are `fipk bench kernels --shape attention --filter 'attention_*'`: forward, vjp, and dual for primal and tangent. Errors
are the worst element's and the norm's, relative, against the same inputs in f64 for one head of one sample.
"""

import argparse
import contextlib
import json
import math

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from common import add_arguments, compiled, describe, median_ms, set_up
from torch.nn.attention import SDPBackend, sdpa_kernel

STORED = {"f32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def written_out(q, k, v):
    return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1) @ v


def tangent(function, x, dx):
    return torch.func.jvp(function, tuple(x), tuple(dx))


def flash_tangent():
    """The package's call, or why there is none."""
    try:
        from jvp_flash_attention.jvp_attention import JVPAttn
    except Exception as error:  # it also fails to import where Triton finds no device
        return None, f"{type(error).__name__}: {error}"

    def both(x, dx):
        with forward_ad.dual_level():
            return tuple(forward_ad.unpack_dual(JVPAttn.fwd_dual(*map(forward_ad.make_dual, x, dx))))

    return both, None


def errors(got, want):
    off = got.double() - want
    return {"worst": (off.abs().max() / want.abs().max()).item(), "norm": (off.norm() / want.norm()).item()}


def flash_only(args):
    """On a CUDA device in bf16 nothing but the flash kernel will do."""
    if args.device.type == "cuda" and args.dtype == "bf16":
        return sdpa_kernel(SDPBackend.FLASH_ATTENTION)
    return contextlib.nullcontext()


def measure(args, length, flash):
    shape = (args.batch, args.heads, length, args.head_dim)
    draw = lambda: [torch.randn(shape, device=args.device).to(STORED[args.dtype]) for _ in range(3)]
    x, dx = draw(), draw()
    u = torch.randn(shape, device=args.device).to(STORED[args.dtype])
    row = {"shape": list(shape)}

    # In f64: the first head of the first sample.
    exact = lambda tensors: [t[:1, :1].double() for t in tensors]
    y, dy = tangent(written_out, exact(x), exact(dx))

    def keep(name, work, primal=None, moved=None):
        try:
            result = work()
            if primal is not None:
                row[f"{name}_error"] = errors(primal(result)[:1, :1], y)
            if moved is not None:
                row[f"{name}_tangent_error"] = errors(moved(result)[:1, :1], dy)
            del result
            row[f"{name}_ms"] = median_ms(args, lambda _: work())
        except Exception as error:  # out of memory, or a kernel that refuses: the other rows still count
            row[f"{name}_failed"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"

    with torch.no_grad(), flash_only(args):
        keep("forward", lambda: F.scaled_dot_product_attention(*x), primal=lambda r: r)

    leaves = [t.clone().requires_grad_() for t in x]
    with flash_only(args):
        output = F.scaled_dot_product_attention(*leaves)
        keep("vjp", lambda: torch.autograd.grad(output, leaves, u, retain_graph=True))
    del output, leaves

    math_tangent = compiled(args, lambda *all: tangent(written_out, all[:3], all[3:]))
    with torch.no_grad():
        keep("jvp_math", lambda: math_tangent(*x, *dx), primal=lambda r: r[0], moved=lambda r: r[1])
        if flash is not None:
            keep("jvp_flash", lambda: flash(x, dx), primal=lambda r: r[0], moved=lambda r: r[1])
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--length", type=int, nargs="+", default=[128, 256, 512, 1024, 2048])
    args = parser.parse_args()
    set_up(parser, args)
    flash, missing = flash_tangent() if args.device.type == "cuda" else (None, "runs on CUDA devices alone")
    result = describe(args) | {"jvp_flash": missing or "installed", "rows": []}
    for length in args.length:
        result["rows"].append(measure(args, length, flash))
    if args.json:
        print(json.dumps(result))
        return
    print("\n".join(f"{k:12} {v}" for k, v in result.items() if k != "rows"))
    for row in result["rows"]:
        print("\n" + "x".join(map(str, row["shape"])))
        for name, value in row.items():
            if name == "shape":
                continue
            if isinstance(value, dict):
                value = f"worst {value['worst']:.2e}, norm {value['norm']:.2e}"
            elif isinstance(value, float):
                value = f"{value:.3f}"
            print(f"  {name:24} {value}")


if __name__ == "__main__":
    main()
