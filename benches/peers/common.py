"""What the scripts share: devices, number formats, clocks that wait for the device, peak memory."""

import contextlib
import json
import platform
import resource
import statistics
import time

import torch

WARM_UP = 3


def add_arguments(parser):
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--dtype", choices=["f32", "tf32", "bf16"], default="f32",
                        help="f32 throughout; products in tf32; autocast to bf16 over f32 weights")
    parser.add_argument("--compile", action="store_true", help="torch.compile what is timed")
    parser.add_argument("--compile-mode", choices=["default", "reduce-overhead", "max-autotune"], default="default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=WARM_UP)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def set_up(parser, args):
    """Checks and applies the arguments that `add_arguments` added."""
    args.device = torch.device(args.device)
    if args.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this torch finds no CUDA device")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high" if args.dtype == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = args.dtype != "f32"


def autocast(args):
    if args.dtype != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(args.device.type, dtype=torch.bfloat16)


def compiled(args, function):
    if not args.compile:
        return function
    mode = None if args.compile_mode == "default" else args.compile_mode
    return torch.compile(function, mode=mode)


def describe(args):
    result = {"torch": torch.__version__, "cpu": cpu_name(), "device": str(args.device), "dtype": args.dtype,
              "compile": args.compile_mode if args.compile else None, "threads": args.threads}
    if args.device.type == "cuda":
        result["gpu"] = torch.cuda.get_device_name(args.device)
    return result


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Phases:
    """Milliseconds of each named phase, one list entry a step; the device is waited for on both sides."""

    def __init__(self, device):
        self.device, self.times = device, {}

    @contextlib.contextmanager
    def __call__(self, name):
        synchronize(self.device)
        start = time.perf_counter()
        yield
        synchronize(self.device)
        self.times.setdefault(name, []).append((time.perf_counter() - start) * 1e3)

    def median(self, name):
        return statistics.median(self.times[name])


class Unwatched:
    """In place of `Phases` where the whole is timed: nothing is waited for in between."""

    def __call__(self, name):
        return contextlib.nullcontext()


def median_ms(args, work):
    for i in range(args.warm_up):
        work(i)
    phase = Phases(args.device)
    for i in range(args.steps):
        with phase("it"):
            work(i)
    return phase.median("it")


def peak_rss_mib():
    """High-water mark of resident memory. Linux counts KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_memory(args):
    peak = {"peak_rss_mib": peak_rss_mib()}
    if args.device.type == "cuda":
        peak["peak_device_mib"] = torch.cuda.max_memory_allocated(args.device) / 2**20
        peak["peak_reserved_mib"] = torch.cuda.max_memory_reserved(args.device) / 2**20
    return peak


def show(args, result):
    result = {k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}
    print(json.dumps(result) if args.json else "\n".join(f"{k:24} {v}" for k, v in result.items()))


def cpu_name():
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":")[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
