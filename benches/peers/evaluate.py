"""Logits of a model folder by `transformers`, to check folders that another program wrote.

Loading is strict: a weight that is missing, left over or of the wrong shape is an error. With --against, the logits are
compared with a stored tensor "logits".
"""

import argparse
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import (AutoConfig, AutoModelForImageClassification, AutoModelForMaskedLM,
                          AutoModelForSequenceClassification)


KINDS = {"ForMaskedLM": AutoModelForMaskedLM, "ForImageClassification": AutoModelForImageClassification}


def load(folder):
    names = AutoConfig.from_pretrained(folder).architectures or []
    found = [kind for end, kind in KINDS.items() if any(name.endswith(end) for name in names)]
    kind = found[0] if found else AutoModelForSequenceClassification
    model, info = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    faults = {name: sorted(map(str, found)) for name, found in info.items() if found}
    if faults:
        sys.exit(f"{folder}: does not load cleanly: {faults}")
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a Hugging Face model folder")
    parser.add_argument("inputs", help="safetensors with input_ids, attention_mask, .., or pixel_values")
    parser.add_argument("--output", help="write the logits here")
    parser.add_argument("--against", help='safetensors with a tensor "logits"')
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest absolute difference allowed")
    args = parser.parse_args()

    model = load(args.model)
    with torch.inference_mode():
        logits = model(**load_file(args.inputs)).logits
    if args.output:
        save_file({"logits": logits.clone().contiguous()}, args.output, metadata={"format": "pt"})
    if args.against:
        theirs = load_file(args.against)["logits"]
        if theirs.shape != logits.shape:
            sys.exit(f"{args.against}: logits are {list(theirs.shape)}, this model's are {list(logits.shape)}")
        gap = (theirs.double() - logits.double()).abs().max().item()
        relative = gap / logits.double().abs().max().item()
        print(f"largest difference {gap:.3e}, relative to the largest logit {relative:.3e}")
        if not gap <= args.tolerance:  # a NaN fails too
            sys.exit(f"more than {args.tolerance:g}")
    else:
        torch.set_printoptions(precision=7, linewidth=160)
        print(logits)


if __name__ == "__main__":
    main()
