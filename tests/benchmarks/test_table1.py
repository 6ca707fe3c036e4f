"""Table 1: what is replaced, what is counted, and what the committed report says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from benchmarks import table1
from benchmarks.measuring import ROOT

REPORT = table1.COUNTS


def test_the_inputs_with_the_largest_scores_are_replaced_and_successes_counted():
    images, labels = torch.full((4, 1, 10, 100), 2.0), torch.zeros(4, dtype=torch.int64)
    seen = []

    def predict(batch):
        seen.append(batch)
        return (batch.flatten(1)[:, :10] < 2).any(dim=1).long()  # wrong once one of the first ten has changed

    def last_first(numbers, generator):
        return torch.arange(1000.0).expand(len(numbers), -1)

    fooled, pixels = table1.success(predict, images, labels, last_first, seed=0)
    assert fooled == [0] * 5
    assert pixels == [1.0, 10.0, 100.0, 200.0, 300.0]
    assert [int((batch[0] != 2).sum()) for batch in seen] == [1, 10, 100, 200, 300]
    assert all(bool(batch[0].flatten()[-1] < 1) for batch in seen)
    fooled, _ = table1.success(predict, images, labels, lambda n, g: -last_first(n, g), seed=0)
    assert fooled == [4] * 5


def test_training_is_the_same_for_the_same_seed():
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(256, 1, 28, 28, generator=generator), torch.randint(0, 10, (256,), generator=generator)
    first, second = (table1.train_mnist(images, labels, epochs=1, seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.skipif(not REPORT.is_file(), reason="the table has not been made")
def test_the_report_is_that_of_the_counts_and_near_the_papers_column():
    found = json.loads(REPORT.read_text(encoding="utf-8"))
    text = (ROOT / "reports/table1.md").read_text(encoding="utf-8")
    for name in ("mnist", "cifar"):
        for line in table1.table(name, found[name]):
            assert line in text
    assert found["mnist"]["right"] >= 0.98 * found["mnist"]["images"]
    for k, fraction in enumerate(table1.FRACTIONS[1:], start=1):
        assert abs(table1.rate(found["cifar"], table1.S, fraction) - table1.PAPER["cifar"][table1.S][k]) <= 4
    assert all(np.isfinite(run).all() for run in found["cifar"]["columns"]["random"]["fooled"])
