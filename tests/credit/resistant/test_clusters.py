"""Clusters of names: connected components of like updates, and how often they are wrong."""

import itertools

import pytest
import torch

from proxycoop.credit.resistant import clusters


def slow_labels(updates, similarity):
    """Components by repeated merging, environment by environment."""
    found = []
    for agents in updates.tolist():
        label = list(range(len(agents)))
        for i, j in itertools.combinations(range(len(agents)), 2):
            a, b = agents[i], agents[j]
            lengths = sum(x * x for x in a) ** 0.5 * sum(x * x for x in b) ** 0.5
            if lengths > 0 and sum(x * y for x, y in zip(a, b, strict=True)) / lengths >= similarity:
                old, new = max(label[i], label[j]), min(label[i], label[j])
                label = [new if one == old else one for one in label]
        found.append(label)
    return torch.tensor(found)


@pytest.mark.parametrize("similarity", [0.2, 0.5, 0.8, 0.95])
def test_clusters_are_the_connected_components_of_like_updates(similarity):
    updates = torch.randn(40, 7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    updates[:, 3] = 0
    labels = clusters.similar(updates, similarity)
    assert labels.equal(slow_labels(updates, similarity))
    assert len(labels.unique(dim=0)) > 5  # so that environments differ


def test_a_chain_of_like_updates_is_one_cluster_although_its_ends_are_unlike():
    angle = torch.arange(8, dtype=torch.float64)[[0, 4, 1, 6, 2, 7, 5, 3]] * 0.3  # cos 0.3 is above 0.95, cos 0.6 is not
    updates = torch.stack([angle.cos(), angle.sin()], dim=-1)[None]
    assert clusters.similar(updates, 0.95).tolist() == [[0] * 8]
    updates[0, 4] = 0  # the third link is gone
    assert clusters.similar(updates, 0.95).tolist() == [[0, 1, 0, 1, 4, 1, 1, 1]]


def test_copies_are_alike_whatever_their_size_and_zero_or_infinite_updates_are_like_nobody():
    one = torch.tensor([0.1, 0.7, -0.3])
    updates = torch.stack([one, 1e-6 * one, -one, 0 * one, 0 * one, one / 0, one * 1e5])[None]
    assert clusters.similar(updates, 1.0).tolist() == [[0, 0, 2, 3, 4, 5, 0]]


def test_labels_of_given_clusters():
    assert clusters.labels_of([[3, 0], [1], [4, 2]]).tolist() == [0, 1, 2, 0, 2]


@pytest.mark.parametrize("wrong", [[], [[]], [[0], [0]], [[0], [2]], [[0], []], [[1, 2]]])
def test_clusters_that_are_no_partition_are_refused(wrong):
    with pytest.raises(ValueError, match="every agent from 0 on must be in exactly one cluster"):
        clusters.labels_of(wrong)


@pytest.mark.parametrize("wrong", [[0, 1], [["a"]], 3, [[0.0]]])
def test_what_is_no_list_of_lists_of_agents_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must be 'updates', or clusters as lists of agents, such as \[\[0, 3\], \[1\], \[2\]\]"):
        clusters.labels_of(wrong)


def test_false_merges_and_false_splits_are_counted_over_pairs():
    generator = torch.Generator().manual_seed(1)
    labels, principals = (torch.randint(0, 3, (20, 6), generator=generator) for _ in range(2))
    merged, split = clusters.false_merge_rate(labels, principals), clusters.false_split_rate(labels, principals)
    for e in range(20):
        pairs = [(labels[e, i] == labels[e, j], principals[e, i] == principals[e, j]) for i, j in itertools.combinations(range(6), 2)]
        others, own = [together for together, one in pairs if not one], [together for together, one in pairs if one]
        assert merged[e] == pytest.approx(sum(others) / len(others))
        assert split[e] == pytest.approx(1 - sum(own) / len(own))


def test_rates_where_there_is_no_such_pair_are_0():
    assert clusters.false_merge_rate(torch.tensor([[0, 0]]), torch.tensor([5, 5])).tolist() == [0.0]
    assert clusters.false_split_rate(torch.tensor([[0, 1]]), torch.tensor([5, 6])).tolist() == [0.0]


def test_rates_refuse_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"labels must be of shape \(E, N\) and principals \(E, N\) or \(N,\), got \(1, 3\) and \(2,\)"):
        clusters.false_merge_rate(torch.zeros(1, 3), torch.zeros(2))
