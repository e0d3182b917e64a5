"""The `pictures` golden: PIL's resizing by every filter, PNG and JPEG files of every mode with what PIL opens them as, and
what image processors of `transformers` make of them. Called by make.py; needs pillow, whose version goes into VERSIONS.txt.
"""

import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch

SIZES = {  # (height, width) from and to: smaller, larger, one of each, by odd factors, next to nothing
    "down": ((37, 53), (16, 24)),
    "up": ((13, 9), (40, 31)),
    "mixed": ((33, 17), (12, 41)),
    "rows_first": ((48, 20), (12, 11)),
    "one_axis": ((20, 31), (20, 13)),
    "far_down": ((97, 83), (5, 3)),
    "from_one": ((1, 1), (4, 5)),
}
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


def draw(rng, height, width):
    """Waves, an edge and noise: bytes that over- and undershoot where a kernel is negative."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [127 + 120 * np.sin(0.3 * (c + 1) * x + 0.2 * y) for c in range(3)]
    image = np.stack(planes, -1) + 20 * rng.standard_normal((height, width, 3))
    image[height // 3 : height // 2, width // 4 : width // 2] = (0, 255, 0)
    return np.clip(image, 0, 255).astype(np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(array):
    """A PNG of 16-bit grey or RGB, which PIL does not write."""
    kind = {2: 0, 3: 2}[array.ndim]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    head = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def write(folder, rng):
    """One file a mode, small."""
    rgb = PIL.Image.fromarray(draw(rng, 19, 26))
    alpha = PIL.Image.fromarray(rng.integers(0, 256, (19, 26), np.uint8))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    files = {"rgb.png": rgb, "grey.png": rgb.convert("L"), "rgba.png": rgba, "grey_alpha.png": rgba.convert("LA"),
             "palette.png": rgb.quantize(16), "bits.png": rgb.convert("1")}
    for name, image in files.items():
        image.save(folder / name)
    rgb.quantize(9).save(folder / "palette_transparent.png", transparency=2)
    deep = (draw(rng, 19, 26).astype(np.uint16) << 8) + rng.integers(0, 256, (19, 26, 3), np.uint16)
    (folder / "rgb16.png").write_bytes(png16(deep))
    (folder / "grey16.png").write_bytes(png16(deep[..., 0]))
    smooth = PIL.Image.fromarray(draw(rng, 9, 12)).resize((50, 35), PIL.Image.Resampling.BICUBIC)
    smooth.save(folder / "half_chroma.jpg", quality=90)
    smooth.save(folder / "full_chroma.jpg", quality=95, subsampling=0)
    smooth.save(folder / "progressive.jpg", quality=90, progressive=True)
    smooth.convert("L").save(folder / "grey.jpg", quality=90)
    smooth.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    smooth.save(folder / "turned.jpg", quality=95, subsampling=0, exif=exif)
    rgb.save(folder / "turned.png", exif=exif)


def opened(path):
    """As `transformers.image_utils.load_image` opens a file; grey stays grey."""
    image = PIL.ImageOps.exif_transpose(PIL.Image.open(path))
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))


PROCESSORS = {
    "vit": {"image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 20, "width": 20},
            "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]},
    "deit": {"image_processor_type": "DeiTImageProcessor", "do_resize": True, "size": {"height": 25, "width": 25},
             "resample": 3, "do_center_crop": True, "crop_size": {"height": 20, "width": 18}, "do_rescale": True,
             "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.485, 0.456, 0.406],
             "image_std": [0.229, 0.224, 0.225]},
    "convnext": {"image_processor_type": "ConvNextImageProcessor", "do_resize": True, "size": {"shortest_edge": 21},
                 "resample": 3, "crop_pct": 0.875, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
                 "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
}


def processed(config, image):
    """What the processor's PIL backend gives, [3, height, width]."""
    import transformers

    kind = getattr(transformers, config["image_processor_type"] + "Pil", None) or getattr(
        transformers, config["image_processor_type"])
    return np.asarray(kind(**config)(images=image, return_tensors="np")["pixel_values"][0])


def pictures(folder, rng, save, write_json):
    tensors = {}
    for name, (size, to) in SIZES.items():
        array = draw(rng, *size)
        tensors[f"resize.{name}.input"] = array
        for kind, number in FILTERS.items():
            image = PIL.Image.fromarray(array).resize((to[1], to[0]), PIL.Image.Resampling(number))
            tensors[f"resize.{name}.{kind}"] = np.asarray(image)
    write(folder, rng)
    for path in sorted(folder.glob("*.[pj]*g")):
        tensors[f"open.{path.name}"] = opened(path)
    for name, config in PROCESSORS.items():
        write_json(folder / f"{name}.json", config)
        for size in ("down", "up"):
            tensors[f"process.{name}.{size}"] = processed(config, PIL.Image.fromarray(tensors[f"resize.{size}.input"]))
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}
    save(folder / "pictures.safetensors", tensors)
    print(f"pictures: {sum(f.stat().st_size for f in folder.iterdir()) // 1024} KiB")
