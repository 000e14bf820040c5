"""A step of low-rank saddle-free Newton in PyTorch with curvlinops: what examples/lrsfn_step.rs times in osculant.

Network 784-128-10 with tanh, rank 32, gradient and losses on 256 examples, Hessian on 64. The last eigenvectors are multiplied by the Hessian, made
orthonormal, multiplied again, and the eigenpairs of the small matrix make the step, which is taken back where the loss rises. Prints one JSON.
"""

import json
import statistics
import time

import torch
from curvlinops import HessianLinearOperator
from torch import nn

RANK, STEPS, DAMPING = 32, 25, 0.1


def batch(rows: int, seed: int) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, 784, generator=generator), torch.randint(0, 10, (rows,), generator=generator)


def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 128), nn.Tanh(), nn.Linear(128, 10))
    loss_function = nn.CrossEntropyLoss()
    parameters = list(model.parameters())
    sizes = [p.numel() for p in parameters]
    (x, y), curvature_batch = batch(256, 1), batch(64, 2)
    hessian = HessianLinearOperator(model, loss_function, parameters, [curvature_batch], check_deterministic=False)
    basis = torch.randn(sum(sizes), RANK)
    damping, times, losses = DAMPING, [], []
    for step in range(STEPS):
        start = time.perf_counter()
        basis, _ = torch.linalg.qr(hessian @ basis)
        small = basis.T @ (hessian @ basis)
        values, vectors = torch.linalg.eigh((small + small.T) / 2)
        order = values.abs().argsort(descending=True)
        values, basis = values[order], basis @ vectors[:, order]

        before = loss_function(model(x), y)
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(before, parameters)])
        gamma = max(damping, values[-1].abs().item())
        projected = basis.T @ gradient
        direction = -(gradient - basis @ projected) / gamma - basis @ (projected / (values.abs() + gamma))
        with torch.no_grad():
            for p, d in zip(parameters, direction.split(sizes)):
                p += d.view_as(p)
            after = loss_function(model(x), y)
            if not after <= before:
                for p, d in zip(parameters, direction.split(sizes)):
                    p -= d.view_as(p)
                damping *= 1.5
        if step >= 5:
            times.append(1e3 * (time.perf_counter() - start))
        losses.append(before.item())
    print(json.dumps({"milliseconds": {"median": statistics.median(times), "min": min(times), "max": max(times)}, "losses": losses[:3]}))


main()
