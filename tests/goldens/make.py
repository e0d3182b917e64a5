"""Regenerates every golden in this folder from PyTorch and `transformers`: `python tests/goldens/make.py [case ..]`.

All references are float64 on one CPU thread, from float32 weights and inputs drawn by seeded numpy generators, so a
rerun with the versions in VERSIONS.txt gives the same files. Each model case is checked before it is written: Jv against
a central difference, and the adjoint identity <u, Jv> = <J^T u, v>.
"""

import json
import platform
import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.deit import modeling_deit
from transformers.models.vit import modeling_vit

HERE = Path(__file__).resolve().parent
TRAIN_STEPS, TRAIN_BATCH, TRAIN_ROWS = 10, 4, 20
UPDATE_SIZE, UPDATE_STEPS = 257, 5


def generator(*names):
    """A numpy generator that depends on the names alone, so adding a case leaves the others as they are."""
    return np.random.default_rng(zlib.crc32("/".join(names).encode()))


def normal(rng, shape, scale=1.0, mean=0.0):
    return torch.from_numpy((mean + scale * rng.standard_normal(tuple(shape))).astype(np.float32))


def clean_folder(case):
    folder = HERE / case
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def save(path, tensors):
    save_file({name: t.detach().contiguous().clone() for name, t in tensors.items()}, path, metadata={"format": "pt"})


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def relative(a, b):
    return float((a - b).norm() / b.norm())


# ---- models ---------------------------------------------------------------------------------------------------------


def randomize(model, rng):
    """Weights of an order that makes every nonlinearity matter; the library's own 0.02 leaves GELU and softmax flat."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("LayerNorm.weight", "layer_norm.weight")) or "layernorm" in name and name.endswith("weight"):
                p.copy_(normal(rng, p.shape, 0.2, 1.0))
            elif p.ndim == 1:
                p.copy_(normal(rng, p.shape, 0.3))
            elif "embeddings" in name and "projection" not in name:
                p.copy_(normal(rng, p.shape, 0.6))
            else:
                p.copy_(normal(rng, p.shape, 1.3 / p[0].numel() ** 0.5))


def without_padding_idx(model):
    """nn.Embedding drops the gradient of its padding row in the reverse pass but not in the forward-mode one, so the two
    would not be transposes of each other. The goldens are of the true Jacobian."""
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.padding_idx = None
    return model


def text_inputs(rng, vocab, lengths, seq, types):
    """Right-padded rows of the given lengths; id 0 is [PAD]. `types`: how many token types, or None for no such input."""
    batch = len(lengths)
    mask = (np.arange(seq)[None, :] < np.asarray(lengths)[:, None]).astype(np.int64)
    inputs = {"input_ids": rng.integers(1, vocab, (batch, seq)) * mask, "attention_mask": mask}
    if types:
        inputs["token_type_ids"] = rng.integers(0, types, (batch, seq)) * mask
    return {name: torch.from_numpy(value) for name, value in inputs.items()}


class Mlp(torch.nn.Module):
    """The project's own `mlp`: linear layers fc1, fc2, .. with ReLU between them."""

    def __init__(self, sizes):
        super().__init__()
        self.names = [f"fc{i}" for i in range(1, len(sizes))]
        for name, wide, narrow in zip(self.names, sizes, sizes[1:]):
            self.add_module(name, torch.nn.Linear(wide, narrow))

    def forward(self, pixel_values):
        x = pixel_values
        for name in self.names[:-1]:
            x = F.relu(getattr(self, name)(x))
        return getattr(self, self.names[-1])(x)


def write_model_case(case, model, inputs, rng, save_model, stored=str, **options):
    """Writes the model folder, then logits, Jv and J^T u of that very float32 model in float64. `stored` gives the name a
    parameter has in files; `options` go to the model's forward."""
    folder = clean_folder(case)
    model = without_padding_idx(model).eval()
    randomize(model, rng)
    save_model(model, folder)

    model.double()
    # Tied parameters appear once, under the name that comes first; functional_call keeps the tie.
    weights = {name: p.detach() for name, p in model.named_parameters()}
    tangents = {name: normal(rng, p.shape) for name, p in weights.items()}
    direction = {name: t.double() for name, t in tangents.items()}
    wide_inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}

    def logits_at(params):
        out = torch.func.functional_call(model, params, args=(), kwargs=wide_inputs | options)
        return out if isinstance(out, torch.Tensor) else out.logits

    logits, logits_tangent = torch.func.jvp(logits_at, (weights,), (direction,))
    cotangent = normal(rng, logits.shape)
    _, pullback = torch.func.vjp(logits_at, weights)
    (grads,) = pullback(cotangent.double())

    h = 1e-6
    moved = [logits_at({n: w + s * h * direction[n] for n, w in weights.items()}) for s in (1, -1)]
    difference = relative((moved[0] - moved[1]) / (2 * h), logits_tangent)
    left = (cotangent.double() * logits_tangent).sum()
    right = sum((grads[n] * direction[n]).sum() for n in grads)
    adjoint = float((left - right).abs() / (cotangent.double().norm() * logits_tangent.norm()))
    assert difference <= 1e-6 and adjoint <= 1e-12, (case, difference, adjoint)

    save(folder / "inputs.safetensors", inputs)
    save(folder / "tangents.safetensors", {stored(n): t for n, t in tangents.items()})
    save(folder / "cotangents.safetensors", {"logits": cotangent})
    expected = {"logits": logits, "tangent.logits": logits_tangent, **{f"grad.{stored(n)}": g for n, g in grads.items()}}
    save(folder / "expected.safetensors", expected)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{case}: {sum(w.numel() for w in weights.values())} weights, {size // 1024} KiB, "
          f"Jv against differences {difference:.1e}, adjoint {adjoint:.1e}")


def save_pretrained(model, folder):
    model.save_pretrained(folder)


def bert_config(**sizes):
    return BertConfig(attn_implementation="eager", **sizes)


def bert_classify_gelu():
    case = "bert_classify_gelu"
    rng = generator(case)
    config = bert_config(vocab_size=59, hidden_size=21, num_attention_heads=3, intermediate_size=37, num_hidden_layers=2,
                         max_position_embeddings=19, type_vocab_size=2, num_labels=3, hidden_act="gelu")
    inputs = text_inputs(rng, 59, lengths=[9, 13, 4], seq=13, types=2)
    write_model_case(case, BertForSequenceClassification(config), inputs, rng, save_pretrained)


def bert_classify_gelu_new():
    case = "bert_classify_gelu_new"
    rng = generator(case)
    config = bert_config(vocab_size=31, hidden_size=14, num_attention_heads=2, intermediate_size=23, num_hidden_layers=3,
                         max_position_embeddings=11, type_vocab_size=3, num_labels=2, hidden_act="gelu_new",
                         layer_norm_eps=1e-5)
    inputs = text_inputs(rng, 31, lengths=[6, 1], seq=6, types=3)
    write_model_case(case, BertForSequenceClassification(config), inputs, rng, save_pretrained)


def bert_masked_lm():
    """The decoder is tied to the word embeddings, so their gradient has two sources. Padded positions have logits too."""
    case = "bert_masked_lm"
    rng = generator(case)
    config = bert_config(vocab_size=47, hidden_size=20, num_attention_heads=2, intermediate_size=27, num_hidden_layers=2,
                         max_position_embeddings=12, type_vocab_size=2, hidden_act="gelu")
    inputs = text_inputs(rng, 47, lengths=[7, 5], seq=7, types=2)
    write_model_case(case, BertForMaskedLM(config), inputs, rng, save_pretrained)


def distilbert_classify():
    case = "distilbert_classify"
    rng = generator(case)
    config = DistilBertConfig(vocab_size=43, dim=24, n_heads=3, hidden_dim=29, n_layers=2, max_position_embeddings=15,
                              num_labels=4, attn_implementation="eager")
    inputs = text_inputs(rng, 43, lengths=[10, 3, 7], seq=10, types=None)
    write_model_case(case, DistilBertForSequenceClassification(config), inputs, rng, save_pretrained)


def bert_regression():
    case = "bert_regression"
    rng = generator(case)
    config = bert_config(vocab_size=29, hidden_size=12, num_attention_heads=4, intermediate_size=17, num_hidden_layers=1,
                         max_position_embeddings=9, type_vocab_size=2, num_labels=1, problem_type="regression")
    inputs = text_inputs(rng, 29, lengths=[5, 8, 2], seq=8, types=2)
    write_model_case(case, BertForSequenceClassification(config), inputs, rng, save_pretrained)


VISION_NAMES = [("layers.", "encoder.layer."), ("attention.q_proj", "attention.attention.query"),
                ("attention.k_proj", "attention.attention.key"), ("attention.v_proj", "attention.attention.value"),
                ("attention.o_proj", "attention.output.dense"), ("mlp.fc1", "intermediate.dense"),
                ("mlp.fc2", "output.dense")]


def stored_vision(name):
    """As `save_pretrained` writes a vision transformer's parameter, which is not what its module is called."""
    for module, file in VISION_NAMES:
        name = name.replace(module, file)
    return name


def attention_in_full(module, query, key, value, attention_mask, scaling, **_):
    """`transformers` takes the softmax of vision transformers in float32 whatever the weights are."""
    weights = torch.softmax(query @ key.transpose(2, 3) * scaling, dim=-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def vision(case, kind, config, images, **options):
    rng = generator(case)
    for module in (modeling_vit, modeling_deit):
        module.eager_attention_forward = attention_in_full
    model = kind(config(attn_implementation="eager", num_labels=3, **options))
    size = model.config.image_size
    other = images[2:] != ((size, size) if isinstance(size, int) else tuple(size))
    extra = {"interpolate_pos_encoding": True} if other else {}
    write_model_case(case, model, {"pixel_values": normal(rng, images)}, rng, save_pretrained, stored_vision, **extra)


def vit():
    """Images that are not square, with pixels that fill no patch."""
    vision("vit", ViTForImageClassification, ViTConfig, (3, 3, 9, 14), hidden_size=20, num_attention_heads=2,
           intermediate_size=27, num_hidden_layers=2, image_size=[9, 14], patch_size=[4, 3])


def vit_interpolated():
    """Images of another size than the positions are for; no biases on query, key and value."""
    vision("vit_interpolated", ViTForImageClassification, ViTConfig, (2, 3, 12, 20), hidden_size=16, num_attention_heads=4,
           intermediate_size=23, num_hidden_layers=1, image_size=16, patch_size=4, qkv_bias=False)


def deit():
    vision("deit", DeiTForImageClassification, DeiTConfig, (2, 1, 8, 8), hidden_size=18, num_attention_heads=3,
           intermediate_size=25, num_hidden_layers=2, image_size=8, patch_size=4, num_channels=1, hidden_act="gelu_new")


def deit_with_teacher():
    vision("deit_with_teacher", DeiTForImageClassificationWithTeacher, DeiTConfig, (2, 3, 8, 8), hidden_size=12,
           num_attention_heads=2, intermediate_size=17, num_hidden_layers=2, image_size=8, patch_size=4)


def mlp():
    case = "mlp"
    rng = generator(case)
    sizes = [12, 9, 7, 5]
    config = {"model_type": "mlp", "sizes": sizes, "layers": ["fc1", "fc2", "fc3"], "hidden_act": "relu", "num_labels": 5}

    def save_model(model, folder):
        write_json(folder / "config.json", config)
        save(folder / "model.safetensors", model.state_dict())

    write_model_case(case, Mlp(sizes), {"pixel_values": normal(rng, (4, 12))}, rng, save_model)


# ---- distances and losses -------------------------------------------------------------------------------------------


def distances():
    """Per-sample values and their gradients with respect to the student's logits. Rows 0 and 1 are large (softmax
    saturates), row 2 is equal logits, row 3 equal up to a shift, row 4 equal and large; the rest are ordinary."""
    rng = generator("distances")
    folder = clean_folder("distances")
    student, teacher = normal(rng, (7, 5), 2.0), normal(rng, (7, 5), 2.0)
    student[0], teacher[0] = torch.tensor([30.0, -30, 0, 5, -2]), torch.tensor([-30.0, 30, 1, 0, 3])
    student[1], teacher[1] = torch.tensor([-30.0, -30, 30, 30, 0]), torch.tensor([-30.0, -29, 30, 29.5, -30])
    teacher[2] = student[2]
    student[3] = torch.tensor([0.5, -1.25, 2, 0.25, -0.75])
    teacher[3] = student[3] + 4
    student[4] = teacher[4] = torch.tensor([30.0, -30, 12, 0, -7])
    labels = torch.tensor([1, 3, 0, 4, 2, 2, 0])
    targets = normal(rng, (7,), 3.0)

    def log_softmaxes(z):
        return F.log_softmax(z, -1), F.log_softmax(teacher.double(), -1)

    def euclidean(z):
        return 0.5 * ((z - teacher.double()) ** 2).sum(-1)

    def bhattacharyya(z):
        log_p, log_q = log_softmaxes(z)
        return -torch.logsumexp(0.5 * (log_p + log_q), -1)

    def kl(z):
        log_p, log_q = log_softmaxes(z)
        return (log_q.exp() * (log_q - log_p)).sum(-1)

    def hellinger(z):
        log_p, log_q = log_softmaxes(z)
        return -torch.expm1(torch.logsumexp(0.5 * (log_p + log_q), -1))

    def cross_entropy(z):
        return F.cross_entropy(z, labels, reduction="none")

    def squared_error(z):
        """Over the outputs, as torch's MSELoss has it: mean_k (z_k - t_k)^2, no half."""
        return ((z - teacher.double()) ** 2).mean(-1)

    def squared_error_one(z):
        """A regression head: one output, here the student's first column."""
        return F.mse_loss(z[:, 0], targets.double(), reduction="none")

    tensors = {"student": student, "teacher": teacher, "labels": labels, "targets": targets}
    for f in (euclidean, bhattacharyya, kl, hellinger, cross_entropy, squared_error, squared_error_one):
        z = student.double().requires_grad_()
        value = f(z)
        # Rows are independent, so the gradient of the sum holds every row's own gradient.
        (grad,) = torch.autograd.grad(value.sum(), z)
        if f in (euclidean, bhattacharyya, kl, hellinger):
            assert value[[2, 4]].abs().max() <= 1e-14 and grad[[2, 4]].abs().max() <= 1e-14, f.__name__
        tensors |= {f"{f.__name__}.value": value, f"{f.__name__}.grad": grad}
    save(folder / "distances.safetensors", tensors)
    print(f"distances: {sum(f.stat().st_size for f in folder.iterdir()) // 1024} KiB")


# ---- training and optimizers ----------------------------------------------------------------------------------------


def training():
    """Ten AdamW steps of the bert_classify_gelu model, mean cross-entropy, no dropout, float64."""
    rng = generator("training")
    folder = clean_folder("training")
    lengths = rng.integers(2, 14, TRAIN_ROWS)
    inputs = text_inputs(rng, 59, lengths, seq=13, types=2)
    labels = torch.from_numpy(rng.integers(0, 3, TRAIN_ROWS))
    order = [rng.permutation(TRAIN_ROWS) for _ in range(TRAIN_STEPS * TRAIN_BATCH // TRAIN_ROWS)]
    batches = torch.from_numpy(np.concatenate(order).reshape(TRAIN_STEPS, TRAIN_BATCH))
    settings = {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}
    # The key bias has no effect on the outputs (softmax does not see it), so its gradient is rounding noise and Adam makes
    # arbitrary steps of it; it is not among the tensors compared.
    compared = ["bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.attention.self.value.weight",
                "bert.encoder.layer.1.intermediate.dense.bias", "bert.pooler.dense.weight", "classifier.weight"]

    def run(dtype):
        model = BertForSequenceClassification.from_pretrained(HERE / "bert_classify_gelu", attn_implementation="eager")
        model = without_padding_idx(model).to(dtype).eval()
        named = dict(model.named_parameters())
        decayed = [n for n, p in named.items() if p.ndim >= 2]
        groups = [{"params": [named[n] for n in decayed]},
                  {"params": [p for p in named.values() if p.ndim < 2], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, **settings)
        losses = []
        for rows in batches:
            out = model(**{k: v[rows] for k, v in inputs.items()})
            loss = F.cross_entropy(out.logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses), {n: named[n].detach() for n in compared}, decayed

    losses, final, decayed = run(torch.float64)
    narrow_losses, narrow_final, _ = run(torch.float32)
    gap = (narrow_losses - losses).abs().max().item()
    worst = max((narrow_final[n] - final[n]).abs().max().item() for n in compared)
    save(folder / "inputs.safetensors", {**inputs, "labels": labels, "batches": batches})
    save(folder / "expected.safetensors", {"losses": losses, **{f"final.{n}": t for n, t in final.items()}})
    write_json(folder / "training.json", {
        "model": "bert_classify_gelu", "optimizer": "adamw", "steps": TRAIN_STEPS, **settings,
        "loss": "mean cross-entropy, before the step", "no_weight_decay": "parameters with fewer than 2 dimensions",
        "weight_decay_on": decayed})
    print(f"training: losses {losses[0]:.4f} to {losses[-1]:.4f}; torch in float32 is off by "
          f"{gap:.1e} (losses), {worst:.1e} (weights)")


def update():
    """One vector under each optimizer: weights after each of five steps, all float64 from float32 weights and gradients.
    The first entries have zero, tiny and huge gradients."""
    rng = generator("update")
    folder = clean_folder("update")
    weights = normal(rng, (UPDATE_SIZE,))
    grads = normal(rng, (UPDATE_STEPS, UPDATE_SIZE)) * torch.from_numpy(
        10.0 ** rng.uniform(-4, 1, UPDATE_SIZE)).float()
    grads[:, 0] = 0
    grads[:, 1] = 1e-12
    grads[:, 2] = 1e6
    grads[1:, 3] = 0
    adam = {"lr": 1e-2, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.1}
    settings = {
        "adamw": (torch.optim.AdamW, adam),
        "adam": (torch.optim.Adam, adam),
        "sgd": (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9, "weight_decay": 0.0}),
        "sgd_decay": (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9, "weight_decay": 0.1}),
    }
    tensors = {"weights": weights, "grads": grads}
    for name, (kind, options) in settings.items():
        w = weights.double().requires_grad_()
        optimizer = kind([w], **options)
        trace = []
        for g in grads.double():
            w.grad = g.clone()
            optimizer.step()
            trace.append(w.detach().clone())
        tensors[name] = torch.stack(trace)
    save(folder / "update.safetensors", tensors)
    notes = {"adamw": "decay decoupled: w -= lr * weight_decay * w", "adam": "decay added to the gradient",
             "sgd": "v = momentum * v + g, v = g at first; w -= lr * v", "sgd_decay": "decay added to the gradient"}
    write_json(folder / "update.json", {n: {**options, "note": notes[n]} for n, (_, options) in settings.items()})
    print(f"update: {sum(f.stat().st_size for f in folder.iterdir()) // 1024} KiB")


# ---- projection -----------------------------------------------------------------------------------------------------


def smallest_mask(w, k):
    """1 where a weight stays. The k smallest magnitudes go; of equal ones the lowest index first."""
    mask = np.ones(w.size, np.uint8)
    mask[np.argsort(np.abs(w), kind="stable")[:k]] = 0
    return mask


def how_many(sparsity, n):
    return int(np.floor(sparsity * n + 0.5))


def project():
    """Masks of the k smallest magnitudes, k = round(p n), halves up. Weights are quantised so that ties are many, and hold
    both zeros, a subnormal and both signs of the same magnitude."""
    rng = generator("project")
    folder = clean_folder("project")
    sparsities = [0.0, 0.1, 0.37, 0.5, 0.8, 0.9, 0.99, 1.0]

    def quantised(*shape):
        return (np.round(rng.standard_normal(shape) * 4) / 4).astype(np.float32)

    tied = quantised(1001)
    tied[:6] = [0.0, -0.0, 1e-40, -1e-40, 0.25, -0.25]
    smooth = rng.standard_normal(777).astype(np.float32)
    matrix = quantised(13, 24)
    layers = {"a": quantised(11, 7), "b": quantised(5, 9) * 8, "c": rng.standard_normal((6, 6)).astype(np.float32)}
    tensors = {"sparsities": np.asarray(sparsities)}

    def masks(name, w):
        tensors[f"{name}.weights"] = w
        tensors[f"{name}.k"] = np.asarray([how_many(p, w.size) for p in sparsities])
        tensors[f"{name}.masks"] = np.stack([smallest_mask(w.ravel(), how_many(p, w.size)) for p in sparsities])

    masks("global_tied", tied)
    masks("global_smooth", smooth)
    for name, w in layers.items():  # scope `layer`: each tensor keeps its own share
        masks(f"layer.{name}", w)
    # Scope `global` over the three tensors laid end to end in this order.
    joined = np.concatenate([w.ravel() for w in layers.values()])
    masks("layer_joined", joined)

    tensors["row.weights"] = matrix
    tensors["row.k"] = np.asarray([how_many(p, matrix.shape[1]) for p in sparsities])
    tensors["row.masks"] = np.stack([[smallest_mask(row, how_many(p, row.size)) for row in matrix] for p in sparsities])
    for keep, group in ((2, 4), (4, 8)):  # n:m keeps n of every m consecutive weights of a row
        cut = [[smallest_mask(part, group - keep) for part in row.reshape(-1, group)] for row in matrix]
        tensors[f"nm_{keep}_{group}.mask"] = np.asarray(cut, np.uint8).reshape(matrix.shape)
    for name, m in tensors.items():
        if name.endswith(".masks"):
            k = tensors[name.replace(".masks", ".k")] * (matrix.shape[0] if name.startswith("row") else 1)
            assert ((m == 0).reshape(len(sparsities), -1).sum(1) == k).all(), name
    save(folder / "project.safetensors", {n: torch.from_numpy(np.ascontiguousarray(t)) for n, t in tensors.items()})
    print(f"project: {sum(f.stat().st_size for f in folder.iterdir()) // 1024} KiB")


def pictures():
    import pictures

    pictures.pictures(clean_folder("pictures"), generator("pictures"), save, write_json)


def write_versions():
    import PIL
    import safetensors

    lines = [f"python {platform.python_version()}", f"torch=={torch.__version__}",
             f"transformers=={transformers.__version__}", f"safetensors=={safetensors.__version__}", f"numpy=={np.__version__}",
             f"pillow=={PIL.__version__}"]
    (HERE / "VERSIONS.txt").write_text("\n".join(lines) + "\n")


CASES = [bert_classify_gelu, bert_classify_gelu_new, bert_masked_lm, distilbert_classify, bert_regression, vit,
         vit_interpolated, deit, deit_with_teacher, mlp, distances, training, update, project, pictures]


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    chosen = sys.argv[1:]
    unknown = set(chosen) - {case.__name__ for case in CASES}
    if unknown:
        sys.exit(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(c.__name__ for c in CASES)}")
    for case in CASES:
        if not chosen or case.__name__ in chosen:
            torch.manual_seed(0)
            case()
    write_versions()


if __name__ == "__main__":
    main()
