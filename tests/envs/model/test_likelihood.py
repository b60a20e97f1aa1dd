"""Cross-entropies and their gradients, with labels as a row and as a column."""

import pytest
import torch
from torch import nn

from proxycoop.envs.model.likelihood import column_cross_entropy, cross_entropy, log_softmax, loss_and_residual, residual, rights

DRAWS = torch.Generator().manual_seed(0)
LOGITS = torch.randn(3, 5, 4, generator=DRAWS, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(5,), (3, 5)])  # the same labels for all, and own ones
def test_losses_and_gradients_are_those_of_torch(shape: tuple[int, ...]) -> None:
    labels = torch.randint(4, shape, generator=DRAWS)
    logits = LOGITS.clone().requires_grad_()
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), labels.expand(3, 5).flatten(), reduction="none").reshape(3, 5)
    (gradient,) = torch.autograd.grad(expected.sum(), logits)
    loss, error = loss_and_residual(LOGITS, labels[..., None])
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(error, gradient)
    torch.testing.assert_close(cross_entropy(LOGITS, labels), expected.detach())
    assert torch.equal(column_cross_entropy(LOGITS, labels[..., None]), cross_entropy(LOGITS, labels))
    assert torch.equal(residual(LOGITS, labels), error)
    torch.testing.assert_close(rights(log_softmax(LOGITS), labels[..., None])[..., 0], -expected.detach())


def test_what_was_computed_in_inference_mode_leaves_nothing_behind() -> None:
    with torch.inference_mode():
        loss_and_residual(LOGITS.half(), torch.zeros(5, 1, dtype=torch.int64))
    logits = LOGITS.half().requires_grad_()
    loss_and_residual(logits * 1, torch.zeros(5, 1, dtype=torch.int64))[0].sum().backward()
    assert logits.grad is not None
