"""Train an equilibrium network (monDEQ) of 90 states on scikit-learn's 8x8 digits and write it as A, B, C, b, d.

    x = relu(W x + U u + b),   W = (1 - m) I - A^T A + B - B^T,   y = C x + d

W has one equilibrium for every input by its parametrisation. The equilibrium is found by Peaceman-Rachford splitting;
on its activation pattern it solves a linear system, through which torch differentiates. Half of every batch are FGSM
images, as in train.py, whose split and attack this script uses. Seeds are fixed and one thread is used.

    python sample_models/train_equilibrium.py [--out DIR]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from train import BATCH, FLOOR, SEED, attack, load_split, robust_accuracy

import idl_audit

STATES = 90
M = 1.0
EPOCHS = 30
EPSILON = 0.1
STEPS = 60
AUDITED = (0.02, 0.05, 0.1)


class Equilibrium(nn.Module):
    """A monotone equilibrium layer and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.A = nn.Linear(STATES, STATES, bias=False)
        self.B = nn.Linear(STATES, STATES, bias=False)
        self.U = nn.Linear(64, STATES)
        self.Wout = nn.Linear(STATES, 10)

    def loop(self) -> Tensor:
        """Return W."""
        A, B = self.A.weight, self.B.weight
        return (1 - M) * torch.eye(STATES) - A.T @ A + B - B.T

    def forward(self, u: Tensor) -> Tensor:
        W, drive = self.loop(), self.U(u)
        with torch.no_grad():
            pattern = (self.settled(W, drive) > 0).to(u.dtype)
        systems = torch.eye(STATES) - pattern[:, :, None] * W
        x = torch.linalg.solve(systems, pattern * drive)
        return self.Wout(x)

    def settled(self, W: Tensor, drive: Tensor) -> Tensor:
        """Return x near the equilibrium: t <- (R x' + ...) by Peaceman-Rachford with the step that suits W."""
        identity = torch.eye(STATES)
        alpha = 1 / torch.sqrt(M * torch.linalg.matrix_norm(identity - W, 2))
        inverse = torch.linalg.inv(identity + alpha * (identity - W))
        t = torch.zeros_like(drive)
        x = torch.zeros_like(drive)
        for _ in range(STEPS):
            half = 2 * x - t
            z = (half + alpha * drive) @ inverse.T
            t = 2 * z - half
            x = torch.relu(t)
        return x


def train(images: Tensor, labels: Tensor) -> Equilibrium:
    """Cross-entropy; the first half of every batch is replaced by FGSM images of the network as it stands."""
    torch.manual_seed(SEED)
    model = Equilibrium()
    per_epoch = len(images) // BATCH
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=EPOCHS * per_epoch)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images))[: per_epoch * BATCH].reshape(-1, BATCH)
        for number, rows in enumerate(order):
            batch, target = images[rows], labels[rows]
            half = BATCH // 2
            batch[:half] = attack(model, batch[:half], target[:half], EPSILON, 1, epoch * per_epoch + number)
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(model(batch), target))
            optimizer.step()
            schedule.step()
    return model.eval()


def main() -> None:
    """Train, check, write."""
    parser = argparse.ArgumentParser(description="Train and export the sample equilibrium network.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for the file")
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    start, digits = time.perf_counter(), load_split()
    network = train(digits.train_images, digits.train_labels)
    with torch.no_grad():
        accuracy = float((network(digits.images).argmax(1) == digits.labels).double().mean())
    print(f"digits_mondeq: held-out accuracy {accuracy:.2%}, {time.perf_counter() - start:.0f} s")
    for epsilon in AUDITED:
        print(f"  under PGD at {epsilon}: {robust_accuracy(network, digits.images, digits.labels, epsilon):.2%}")
    if accuracy < FLOOR:
        raise SystemExit(f"digits_mondeq: held-out accuracy is below {FLOOR:.0%}")
    path = out / "digits_mondeq.npz"
    path.unlink(missing_ok=True)
    model = idl_audit.from_mondeq(network.state_dict(), m=M, save=path)
    mine = torch.from_numpy(model(digits.images.double().numpy()))
    with torch.no_grad():
        difference = float((mine - network(digits.images)).abs().max())
    print(f"  largest difference between the file and the network: {difference:.1e}")


if __name__ == "__main__":
    main()
