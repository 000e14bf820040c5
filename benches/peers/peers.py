"""The networks of osculant's benchmark in PyTorch on the CPU, with curvlinops and BackPACK.

Prints one JSON with the keys of `bench.json`; progress goes to standard error. README.md beside this file says what each figure includes.
"""

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
import warnings
from importlib.metadata import version

import numpy as np
import torch
from backpack.hessianfree.ggnvp import ggn_vector_product_from_plist
from backpack.hessianfree.hvp import hessian_vector_product
from curvlinops import GGNLinearOperator, HessianLinearOperator
from torch import nn

CLASSES = 10
COLUMNS = 32
# Name, widths, hidden activation, batch: those of src/bin/osculant/synthetic.rs.
NETWORKS = [
    ("digits-mlp", [64, 32, CLASSES], nn.Tanh, 64),
    ("fashion-mlp", [784, 128, CLASSES], nn.ReLU, 256),
    ("mnist-autoencoder", [784, 32, 784], nn.Softplus, 64),
    ("wide-mlp", [1024, 1024, 1024, CLASSES], nn.Tanh, 256),
]


def uniform(tensor: int, shape: tuple) -> np.ndarray:
    """The numbers `u(t, i)` of src/bin/osculant/synthetic.rs, which has the formula."""
    count = math.prod(shape)
    z = np.arange(count, dtype=np.uint64) + np.uint64((tensor << 32) + 1)
    z = z * np.uint64(0x9E3779B97F4A7C15)  # arrays of unsigned integers wrap
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)).reshape(shape)


def check_formula() -> None:
    """Compares with the numbers that the tests of synthetic.rs expect."""
    units = lambda value: int(value * (1 << 24))
    assert units(uniform(0, (1,))[0]) == 0xE220A8
    assert units(uniform(2, (12346,))[12345]) == 0x2453C9


def symmetric(tensor: int, shape: tuple, bound: float) -> np.ndarray:
    """Numbers between `-bound` and `bound`."""
    return (np.float32(2) * uniform(tensor, shape) - np.float32(1)) * np.float32(bound)


class Problem:
    """A network with its batch: `model`, `loss_function`, `x`, `y`, `parameters`."""

    def __init__(self, sizes: list, hidden: type, batch: int):
        is_autoencoder = sizes[0] == sizes[-1]
        layers = []
        for index, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
            dense = nn.Linear(inputs, outputs)
            bound = math.sqrt(6 / (inputs + outputs))
            weight = symmetric(2 + 2 * index, (inputs, outputs), bound)
            with torch.no_grad():
                # PyTorch keeps weights as [outputs, inputs].
                dense.weight.copy_(torch.from_numpy(weight.T.copy()))
                dense.bias.copy_(torch.from_numpy(symmetric(3 + 2 * index, (outputs,), 0.1)))
            layers += [dense, hidden()]
        layers[-1:] = [nn.Sigmoid()] if is_autoencoder else []
        self.model = nn.Sequential(*layers)
        self.x = torch.from_numpy(uniform(0, (batch, sizes[0])))
        labels = (np.float32(CLASSES) * uniform(1, (batch,))).astype(np.int64)
        self.y = self.x if is_autoencoder else torch.from_numpy(labels)
        self.loss_function = nn.MSELoss() if is_autoencoder else nn.CrossEntropyLoss()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]

    def loss(self) -> torch.Tensor:
        """Loss of the batch."""
        return self.loss_function(self.model(self.x), self.y)

    def gradient(self) -> tuple:
        """Forward and backward."""
        return torch.autograd.grad(self.loss(), self.parameters)


class Timer:
    """Warms up, then takes samples; the first call never counts."""

    def __init__(self, samples: int, warm_up: float):
        self.samples = samples
        self.warm_up = warm_up

    def milliseconds(self, label: str, function) -> dict:
        """Median, least and greatest time of a call."""
        function()
        began = time.perf_counter()
        calls = 0
        # At least this long; three calls at least, unless they take seconds.
        while (elapsed := time.perf_counter() - began) < self.warm_up or (calls < 3 and elapsed < 4):
            function()
            calls += 1
        times = []
        for _ in range(self.samples):
            start = time.perf_counter()
            function()
            times.append(1e3 * (time.perf_counter() - start))
        result = {"median": statistics.median(times), "min": min(times), "max": max(times), "samples": len(times)}
        print(f"{label:44s} {result['median']:10.3f} ms  [{result['min']:.3f} to {result['max']:.3f}]", file=sys.stderr, flush=True)
        return result


def time_problem(name: str, problem: Problem, timer: Timer) -> dict:
    """All figures of one network."""
    model, loss_function, parameters = problem.model, problem.loss_function, problem.parameters
    data = [(problem.x, problem.y)]
    count = sum(p.numel() for p in parameters)
    torch.manual_seed(0)
    vector = torch.randn(count)
    block = torch.randn(count, COLUMNS)
    as_list = [part.view_as(p) for part, p in zip(vector.split([p.numel() for p in parameters]), parameters)]
    flat = lambda tensors: torch.cat([t.reshape(-1) for t in tensors])

    hessian = HessianLinearOperator(model, loss_function, parameters, data, check_deterministic=False)
    gauss_newton = GGNLinearOperator(model, loss_function, parameters, data, check_deterministic=False)

    # BackPACK's products start from graphs that exist, as a product at a fixed quadratic does.
    outputs = model(problem.x)
    loss = loss_function(outputs, problem.y)
    gradient = torch.autograd.grad(loss, parameters, create_graph=True)

    def backpack_hvp():
        return hessian_vector_product(loss, parameters, as_list, grad_params=gradient)

    def backpack_ggn():
        return ggn_vector_product_from_plist(loss, outputs, parameters, as_list)

    # Two implementations that share nothing but autograd must agree, or one of them answers another question.
    for label, ours, theirs in [("Hessian", backpack_hvp, hessian), ("Gauss-Newton", backpack_ggn, gauss_newton)]:
        a, b = flat(ours()), theirs @ vector
        difference = ((a - b).norm() / b.norm()).item()
        if not difference < 1e-3:
            raise SystemExit(f"{name}: BackPACK's and curvlinops' {label} products differ by {difference:.1e} of their length")

    calls = {
        "gradient_ms": problem.gradient,
        "hvp_ms": lambda: hessian @ vector,
        "ggn_ms": lambda: gauss_newton @ vector,
        "ggn_block_32_ms": lambda: gauss_newton @ block,
        "backpack_hvp_ms": backpack_hvp,
        "backpack_ggn_ms": backpack_ggn,
    }
    times = {key: timer.milliseconds(f"{name} {key}", call) for key, call in calls.items()}
    return {
        "parameters": count,
        "loss": problem.loss().item(),
        "gradient_norm": flat(problem.gradient()).double().norm().item(),
        **{key: result["median"] for key, result in times.items()},
        "spread": times,
    }


def time_gemm(timer: Timer) -> list:
    """Square matrix products, operands stored by rows: N as it stands, T transposed."""
    rows = []
    for size in (512, 1024):
        a, b = (torch.from_numpy(symmetric(tensor, (size, size), 1.0)) for tensor in (0, 1))
        c = torch.empty(size, size)
        for transpose, left, right in [("NN", a, b), ("NT", a, b.t()), ("TN", a.t(), b)]:
            result = timer.milliseconds(f"gemm {size} {transpose}", lambda: torch.mm(left, right, out=c))
            gflops = lambda key: 2e-6 * size**3 / result[key]
            shape = {"m": size, "n": size, "k": size, "transpose": transpose}
            rates = {"gflops": gflops("median"), "gflops_max": gflops("min"), "gflops_min": gflops("max")}
            rows.append({**shape, **rates, "samples": result["samples"]})
    return rows


def time_axpy(timer: Timer) -> float:
    """Gigabytes per second of `y += a x` on 2^24 floats: two reads and one write of 4 bytes each."""
    count = 1 << 24
    x, y = torch.ones(count), torch.zeros(count)
    return 12e-6 * count / timer.milliseconds("axpy", lambda: y.add_(x, alpha=1e-3))["median"]


def cpu_name() -> str:
    """The processor as the system names it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    """Times everything and prints the JSON."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="10 samples and a short warm-up in place of 21 and a second")
    quick = arguments.parse_args().quick
    # curvlinops and BackPACK warn about the versions of their own dependencies.
    warnings.filterwarnings("ignore")
    check_formula()
    # The cores that this process may use.
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads)
    timer = Timer(samples=10, warm_up=0.2) if quick else Timer(samples=21, warm_up=1.0)
    result = {
        "environment": {
            "cpu": cpu_name(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "curvlinops": version("curvlinops-for-pytorch"),
            "backpack": version("backpack-for-pytorch"),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "blas": "MKL" if torch.backends.mkl.is_available() else "without MKL",
            "quick": quick,
        },
        "gemm": time_gemm(timer),
        "vector": {"axpy_gbps": time_axpy(timer)},
        "problems": {},
    }
    for name, sizes, hidden, batch in NETWORKS:
        result["problems"][name] = time_problem(name, Problem(sizes, hidden, batch), timer)
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
