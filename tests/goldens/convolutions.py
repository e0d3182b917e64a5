"""Goldens of convolutional networks; `make.py` runs them. Hugging Face's ResNets are its own; the others are written
here from their published architectures, with the names of the sources that trained them."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification


class CifarBlock(nn.Module):
    """Two convolutions and a shortcut: pixels left out and channels of zeros (A), or a convolution (B)."""

    def __init__(self, before, planes, stride, option):
        super().__init__()
        self.conv1 = nn.Conv2d(before, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.pad = None
        self.shortcut = nn.Sequential()
        if stride != 1 or before != planes:
            if option == "A":
                self.pad = planes // 4
            else:
                self.shortcut = nn.Sequential(nn.Conv2d(before, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        same = self.shortcut(x) if self.pad is None else F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(y + same)


class CifarResNet(nn.Module):
    def __init__(self, depth, option, labels):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        before = 16
        for stage, planes in enumerate((16, 32, 64)):
            blocks = []
            for i in range((depth - 2) // 6):
                blocks.append(CifarBlock(before, planes, 2 if stage and not i else 1, option))
                before = planes
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, labels)

    def forward(self, pixel_values):
        x = F.relu(self.bn1(self.conv1(pixel_values)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class Vgg(nn.Module):
    def __init__(self, features, batch_norm, pool, hidden, labels):
        super().__init__()
        layers, before = [], 3
        for f in features:
            if f == "M":
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers.append(nn.Conv2d(before, f, 3, padding=1))
            layers += [nn.BatchNorm2d(f)] if batch_norm else []
            layers.append(nn.ReLU())
            before = f
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(pool)
        widths, layers = [before * pool * pool, *hidden, labels], []
        for a, b in zip(widths, widths[1:]):
            layers += [nn.Linear(a, b), nn.ReLU(), nn.Dropout()]
        self.classifier = nn.Sequential(*layers[:-2])

    def forward(self, pixel_values):
        return self.classifier(self.avgpool(self.features(pixel_values)).flatten(1))


class LeNet5(nn.Module):
    def __init__(self, labels):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, labels)

    def forward(self, pixel_values):
        x = F.max_pool2d(F.relu(self.conv1(pixel_values)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


def statistics(model, rng, normal):
    """Running averages that no fresh network has."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(normal(rng, module.running_mean.shape, 0.3))
            module.running_var.copy_(normal(rng, module.running_var.shape, 0.2, 1.0).abs() + 0.1)


def cases(make):
    """(name, writer) of each case, with the helpers of `make.py`."""

    def own(case, model, description, shape):
        def save(model, folder):
            make.write_json(folder / "config.json", description)
            tensors = {n: t for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked")}
            make.save(folder / "model.safetensors", tensors)

        def write():
            rng = make.generator(case)
            made = model()
            statistics(made, rng, make.normal)
            make.write_model_case(case, made, {"pixel_values": make.normal(rng, shape)}, rng, save)

        return case, write

    def hugging_face(case, **config):
        def write():
            rng = make.generator(case)
            whole = ResNetConfig(num_labels=3, embedding_size=4, **config)
            made = ResNetForImageClassification(whole)
            statistics(made, rng, make.normal)
            pixels = make.normal(rng, (2, 3, 21, 18))
            make.write_model_case(case, made, {"pixel_values": pixels}, rng, make.save_pretrained)

        return case, write

    cifar = {"model_type": "resnet_cifar", "depth": 8, "num_channels": 3, "num_labels": 4}
    vgg = {"model_type": "vgg", "features": [4, "M", 6, 6, "M"], "image_size": 12, "num_labels": 3}
    return [
        hugging_face("resnet_basic", hidden_sizes=[4, 6], depths=[1, 2], layer_type="basic"),
        hugging_face("resnet_bottleneck", hidden_sizes=[8, 12], depths=[2, 1], layer_type="bottleneck",
                     downsample_in_first_stage=True),
        own("resnet_cifar", lambda: CifarResNet(8, "B", 4), {**cifar, "shortcut": "B", "image_size": 9}, (2, 3, 9, 9)),
        own("vgg", lambda: Vgg(vgg["features"], False, 2, [5, 7], 3),
            {**vgg, "pool_size": 2, "hidden": [5, 7]}, (2, 3, 12, 12)),
        own("vgg_bn", lambda: Vgg(vgg["features"], True, 3, [], 3),
            {**vgg, "pool_size": 3, "hidden": [], "batch_norm": True}, (2, 3, 12, 12)),
        own("lenet5", lambda: LeNet5(3), {"model_type": "lenet5", "num_labels": 3}, (2, 1, 28, 28)),
    ]
