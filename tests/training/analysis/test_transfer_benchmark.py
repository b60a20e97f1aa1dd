"""What the benchmark of transfer makes of its measurements."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def transfer(benchmark_script):
    return benchmark_script("training/transfer")


def test_what_home_is_worth_is_found_whatever_policies_and_splits_are_worth(transfer) -> None:
    policies, splits = torch.tensor([3.0, -1.0, 10.0, 2.0]), torch.tensor([0.5, 7.0, -4.0, 1.0])
    matrix = policies[:, None] + splits + 2.5 * torch.eye(4)
    found = transfer.worth_of_home(matrix)
    assert found.mean == pytest.approx(2.5)
    assert found.half_width == pytest.approx(0, abs=1e-6)


def test_its_interval_holds_what_home_is_worth_in_95_of_100_tables(transfer) -> None:
    draws = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(1000):
        policies, splits = torch.randn(2, 10, generator=draws, dtype=torch.float64)
        noise = torch.randn(10, 10, generator=draws, dtype=torch.float64)
        found = transfer.worth_of_home(3 * policies[:, None] + 2 * splits + torch.eye(10) + noise)
        inside += abs(found.mean - 1) <= found.half_width
    assert 930 <= inside <= 970


def test_a_row_tells_home_from_elsewhere(transfer) -> None:
    one = {"welfare": torch.full((3, 3), 10.0) + 5 * torch.eye(3), "clean_share": torch.full((3, 3), 0.25) + 0.5 * torch.eye(3)}
    many = {"welfare": torch.full((3, 3), 12.0)}
    row = transfer.row("digits", "loo", one, many)
    assert row == "| `digits` | `loo` | 15.0 ± 0.0 | 10.0 ± 0.0 | 5.0 ± 0.0 | 25 to 25 | 12.0 ± 0.0 | 2.0 ± 0.0 |"
