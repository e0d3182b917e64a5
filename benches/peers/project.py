"""The projection alone: the k-th magnitude of all prunable weights, masks, and weights set to zero, by what PyTorch has.

    python benches/peers/project.py --parameters 85000000 --device cuda --json

kthvalue, sort and topk give the same threshold; the masks keep ties together, which fipk's do not. `flatten` is what each
of them needs first: magnitudes of all matrices in one vector.
"""

import argparse

import torch
from common import add_arguments, compiled, describe, median_ms, peak_memory, set_up, show

SIDE = 768


def by_kthvalue(magnitudes, k):
    return torch.kthvalue(magnitudes, k).values


def by_sort(magnitudes, k):
    return torch.sort(magnitudes).values[k - 1]


def by_topk(magnitudes, k):
    return torch.topk(magnitudes, k, largest=False, sorted=False).values.max()


METHODS = {"kthvalue": by_kthvalue, "sort": by_sort, "topk": by_topk}


def flatten(weights):
    return torch.cat([w.abs().flatten() for w in weights])


def n_of_m(weights, n, m):
    """2:4 and its like: in each group of m, the m - n smallest go."""
    for w in weights:
        groups = w.view(-1, m)
        groups.scatter_(1, groups.abs().topk(m - n, dim=1, largest=False).indices, 0.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=85_000_000)
    parser.add_argument("--sparsity", type=float, default=0.6)
    parser.add_argument("--methods", default="kthvalue,sort,topk")
    add_arguments(parser)
    args = parser.parse_args()
    methods = args.methods.split(",")
    if unknown := set(methods) - set(METHODS):
        parser.error(f"--methods: unknown {sorted(unknown)}")
    set_up(parser, args)

    count = max(1, args.parameters // SIDE**2)
    weights = [torch.randn(SIDE, SIDE, device=args.device) for _ in range(count)]
    k = max(1, round(args.sparsity * count * SIDE**2))
    result = describe(args) | {"parameters": count * SIDE**2, "sparsity": args.sparsity}
    with torch.no_grad():
        result["flatten_ms"] = median_ms(args, lambda i: flatten(weights))
        for name in methods:
            def threshold_and_masks(find=METHODS[name]):
                threshold = find(flatten(weights), k)
                return [w.abs() <= threshold for w in weights]

            select = compiled(args, threshold_and_masks)
            masks = select()
            pruned = sum(m.sum().item() for m in masks)
            assert abs(pruned - k) <= 0.001 * k + 16, f"{name} prunes {pruned}, wanted {k}"
            result[f"{name}_ms"] = median_ms(args, lambda i: select())

        def project():
            for w, mask in zip(weights, masks):
                w.masked_fill_(mask, 0.0)

        result["mask_ms"] = median_ms(args, lambda i: project())
        pruned_2_4 = compiled(args, n_of_m)
        result["two_of_four_ms"] = median_ms(args, lambda i: pruned_2_4(weights, 2, 4))
    show(args, result | peak_memory(args))


if __name__ == "__main__":
    main()
