"""The rows of `osculant michalewicz` in f64 with numpy: an independent reference, from other starting points.

    python3 benches/peers/michalewicz.py [SEEDS]

The Hessian of the function is diagonal, which this program uses for exact steps; the low-rank method multiplies it with a random block, once, as its authors'
program does: no oversampling, no power iteration, the same block in every step.
"""

import sys

import numpy as np

D, STEPS = 100, 100
I = np.arange(1, D + 1)


def f(x):
    return -np.sum(np.sin(x) * np.sin(I * x * x / np.pi) ** 20)


def parts(x):
    a = I * x * x / np.pi
    return np.sin(a), np.cos(a), 2 * I * x / np.pi, 2 * I / np.pi


def gradient(x):
    s, c, da, _ = parts(x)
    return -(np.cos(x) * s**20 + np.sin(x) * 20 * s**19 * c * da)


def hessian(x):
    s, c, da, dda = parts(x)
    second = 380 * s**18 * c**2 * da**2 - 20 * s**20 * da**2 + 20 * s**19 * c * dda
    return np.sin(x) * s**20 - 40 * np.cos(x) * s**19 * c * da - np.sin(x) * second


def low_rank(rank, damping=1e-3):
    omega = np.random.RandomState(0).randn(D, rank)

    def step(x):
        h, g = hessian(x), gradient(x)
        q, _ = np.linalg.qr(h[:, None] * omega)
        values, vectors = np.linalg.eigh(q.T @ (h[:, None] * q))
        u = q @ vectors
        c = u.T @ g
        return u @ (c / (abs(values) + damping)) + (g - u @ c) / damping

    return step


METHODS = {
    "gradient descent": gradient,
    "curvature-scaled gradient descent": lambda x: gradient(x) / abs(hessian(x)).max(),
    "Newton": lambda x: gradient(x) / np.where(hessian(x) == 0, 1e-300, hessian(x)),
    "saddle-free Newton": lambda x: gradient(x) / (abs(hessian(x)) + 1e-4),
} | {f"low-rank saddle-free Newton, rank {r}": low_rank(r) for r in (10, 30, 40, 50, 60, 70, 90)}


def main():
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    np.seterr(all="ignore")
    print(f"{'method':<42} mean best    std  standard error  ({seeds} seeds)")
    for name, step in METHODS.items():
        bests = []
        for seed in range(seeds):
            x = np.random.RandomState(seed).randn(D)
            best = f(x)
            for _ in range(STEPS):
                moved = x - step(x)
                if not np.all(np.isfinite(moved)):
                    break
                x = moved
                best = min(best, f(x))
            bests.append(best)
        std = np.std(bests, ddof=1)
        print(f"{name:<42} {np.mean(bests):9.2f} {std:6.2f} {std / seeds**0.5:15.2f}", flush=True)


if __name__ == "__main__":
    main()
