"""Plain PyTorch fine-tuning on SST-2: one epoch, AdamW, linear warm-up and decay, padding to the longest of the batch.

Prints the accuracy on the dev set and the minutes that training took.
"""

import argparse
import csv
import json
import random
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup


def read(path):
    with open(path, encoding="utf-8", newline="") as f:
        rows = csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["sentence"], int(row["label"])) for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a Hugging Face model folder")
    parser.add_argument("data", type=Path, help="the folder with SST-2's train.tsv and dev.tsv")
    parser.add_argument("--limit", type=int, default=8000, help="training sentences")
    parser.add_argument("--dev-limit", type=int, help="dev sentences (default: all)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", help="write the fine-tuned model here")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2)

    def collate(rows):
        sentences, labels = zip(*rows)
        batch = tokenizer(list(sentences), padding=True, truncation=True, max_length=args.max_length, return_tensors="pt")
        return batch, torch.tensor(labels)

    train = read(args.data / "train.tsv")
    random.Random(args.seed).shuffle(train)
    loader = DataLoader(train[: args.limit], args.batch, shuffle=True, collate_fn=collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, len(loader) // 10, len(loader))

    model.train()
    start = time.perf_counter()
    total = 0.0
    for step, (batch, labels) in enumerate(loader, 1):
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % 100 == 0 and not args.json:
            print(f"step {step} of {len(loader)}: mean loss {total / step:.4f}", flush=True)
    minutes = (time.perf_counter() - start) / 60

    model.eval()
    dev = read(args.data / "dev.tsv")[: args.dev_limit]
    right = 0
    start = time.perf_counter()
    with torch.inference_mode():
        for batch, labels in DataLoader(dev, 64, collate_fn=collate):
            right += int((model(**batch).logits.argmax(-1) == labels).sum())
    result = {"sentences": len(loader.dataset), "seed": args.seed, "threads": args.threads,
              "loss": round(total / len(loader), 4), "accuracy": round(right / len(dev), 4), "dev": len(dev), "train_minutes": round(minutes, 3),
              "eval_seconds": round(time.perf_counter() - start, 2)}
    if args.out:
        model.save_pretrained(args.out)
        tokenizer.save_pretrained(args.out)
    print(json.dumps(result) if args.json else "  ".join(f"{k} {v}" for k, v in result.items()))


if __name__ == "__main__":
    main()
