"""Accuracy of image-model folders by `transformers`, to check folders that fipk wrote.

    python3 benches/peers/image_accuracy.py cifar10/test.parquet runs/cifar10-vit-*/model

Loading is strict, as in evaluate.py. Images are not resized: they have the model's size.
"""

import argparse
import io
import json
import pathlib
import sys

import numpy
import pyarrow.parquet
import torch
from PIL import Image

from evaluate import load


def pixels(png, how):
    image = numpy.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=numpy.float32)
    image = image * how["rescale_factor"]
    return ((image - how["image_mean"]) / how["image_std"]).transpose(2, 0, 1).astype(numpy.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="parquet with columns `img`, of encoded images, and `label`")
    parser.add_argument("models", nargs="+", help="Hugging Face model folders")
    parser.add_argument("--batch", type=int, default=250)
    args = parser.parse_args()

    rows = pyarrow.parquet.read_table(args.data, columns=["img", "label"]).to_pylist()
    labels = torch.tensor([row["label"] for row in rows])
    for folder in args.models:
        how = json.loads((pathlib.Path(folder) / "preprocessor_config.json").read_text())
        if how.get("do_resize") or not (how.get("do_rescale") and how.get("do_normalize")):
            sys.exit(f"{folder}: its preprocessor_config.json wants other than to rescale and normalise")
        x = torch.from_numpy(numpy.stack([pixels(row["img"]["bytes"], how) for row in rows]))
        model = load(folder)
        with torch.inference_mode():
            logits = torch.cat([model(part).logits for part in x.split(args.batch)])
        if not logits.isfinite().all():
            sys.exit(f"{folder}: logits that are not finite")
        print(f"{(logits.argmax(-1) == labels).double().mean():.4f}  {folder}")


if __name__ == "__main__":
    main()
