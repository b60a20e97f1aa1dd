"""The network's gradient in closed form."""

from __future__ import annotations

import pytest
import torch

from proxycoop.agents.network import LotNetwork
from proxycoop.training.libraries.shared.closed_form import ClosedFormNetwork


def network_and_observations():
    torch.manual_seed(0)
    network = LotNetwork(5, 4, hidden=8).double()
    torch.nn.init.normal_(network.decide.weight)
    for layer in (network.actor[0], network.critic[2], network.decide, network.value):
        torch.nn.init.normal_(layer.bias)
    return network, torch.randn(7, 3 * 5 + 4, dtype=torch.float64)


@pytest.mark.parametrize("has_critic", [True, False])
def test_outputs_and_gradient_are_those_of_the_network(has_critic):
    network, observations = network_and_observations()
    d_logits, d_values = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    logits, values = network.logits(observations), network.state_value(observations)
    loss = (logits * d_logits).sum() + has_critic * (values * d_values).sum()
    expected = dict(
        zip(dict(network.named_parameters()), torch.autograd.grad(loss, list(network.parameters()), materialize_grads=True), strict=True)
    )

    closed = ClosedFormNetwork(network, has_critic)
    given_logits, given_values = closed.forward(observations)
    assert torch.allclose(given_logits, logits, atol=1e-12)
    assert torch.allclose(given_values, values if has_critic else torch.zeros(7, dtype=torch.float64), atol=1e-12)
    closed.backward(d_logits, d_values)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    with torch.no_grad():
        closed.vector -= closed.vector.grad
    for name, parameter in network.named_parameters():  # the step went into the network itself, each part of it to its place
        assert torch.allclose(parameter, before[name] - expected[name], atol=1e-12), name


def test_the_gradient_of_one_batch_does_not_stay_for_the_next():
    network, observations = network_and_observations()
    closed = ClosedFormNetwork(network, True)
    for _ in range(2):
        closed.forward(observations)
        closed.backward(torch.ones(7, 3, dtype=torch.float64), torch.ones(7, dtype=torch.float64))
        gradient = closed.vector.grad.clone()
    closed.forward(observations)
    closed.backward(torch.ones(7, 3, dtype=torch.float64), torch.ones(7, dtype=torch.float64))
    assert torch.equal(closed.vector.grad, gradient)
    closed.forward(observations)
    closed.backward(torch.zeros(7, 3, dtype=torch.float64), torch.zeros(7, dtype=torch.float64))
    assert not closed.vector.grad.any()


@pytest.mark.parametrize("has_critic", [True, False])
def test_batches_of_several_sizes_in_turn_do_not_disturb_each_other(has_critic):
    network, observations = network_and_observations()
    closed = ClosedFormNetwork(network, has_critic)
    given = []
    for rows in (slice(2, 5), slice(7), slice(1), slice(3, 7)):
        outputs = closed.forward(observations[rows])
        closed.backward(*(torch.ones_like(output) for output in outputs))
        given.append((rows, outputs, closed.vector.grad.clone()))
    for rows, outputs, gradient in given:
        alone = ClosedFormNetwork(network_and_observations()[0], has_critic)
        expected = alone.forward(observations[rows])
        alone.backward(*(torch.ones_like(output) for output in expected))
        assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))
        assert torch.equal(gradient, alone.vector.grad)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
def test_in_single_precision_it_differs_from_the_network_by_rounding(scale):
    network, observations = network_and_observations()
    observations = observations * scale
    logits, values = network.logits(observations), network.state_value(observations)
    closed = ClosedFormNetwork(network.float(), True)
    given_logits, given_values = closed.forward(observations.float())
    assert torch.allclose(given_logits.double(), logits, atol=1e-5)
    assert torch.allclose(given_values.double(), values, atol=1e-5)


def test_without_a_critic_only_the_actor_is_trained():
    network, observations = network_and_observations()
    closed = ClosedFormNetwork(network, False)
    assert len(closed.vector) == sum(p.numel() for part in (network.actor, network.decide) for p in part.parameters())
    values = network.state_value(observations).detach()
    with torch.no_grad():
        closed.vector.zero_()
    assert not network.logits(observations).any()
    assert torch.equal(network.state_value(observations), values)
