"""The two levels: real tunings of a tiny cooperative, how they go on, and what is said of them."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from proxycoop.agents import make
from proxycoop.credit import RULES, CreditRule
from proxycoop.envs import scenario
from proxycoop.training.evaluate import EVALUATION_SEED, evaluate, held_out_splits
from proxycoop.training.intervals import Estimate
from proxycoop.training.tuning import HeldOut, console_table, planned, sentences, tune, write_tuning
from proxycoop.training.tuning.plan import in_short
from proxycoop.training.tuning.search import JOURNAL, Search
from proxycoop.training.tuning.words import lead_in_search, row_of

from .conftest import PARAMETERS, QUICK

# Python from 3.12 on warns where other threads might hold locks: those of libraries here hold none that a child needs.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture
def picky():
    """A rule whose two arguments are allowed alone and not together; with ``fails`` it fails in the first round."""

    class Picky(CreditRule):
        """Pays everybody the same."""

        def __init__(self, a: int = 0, b: int = 0, fails: bool = False) -> None:
            if a + b > 2:
                raise ValueError(f"a={a} and b={b} do not go together")
            self.fails = fails

        def assign(self, round):
            if self.fails:
                raise ValueError("this rule pays nobody")
            return round.gain[:, None].expand(-1, round.num_agents) / round.num_agents

    RULES.register("picky")(Picky)
    yield
    del RULES._factories["picky"]


def test_the_defaults_are_the_first_trial_and_others_lie_in_the_ranges(whole):
    found, _, _ = whole
    assert [one.number for one in found.trials] == list(range(6))
    assert found.trials[0].values == found.plan.default == found.default.values
    assert [one.is_default for one in found.trials] == [True] + [False] * 5
    for one in found.trials:
        assert 0 <= one.values["scenario:reward.public_share"] <= 0.5
        assert one.values["scenario:screening.governance"] in ("own", "unanimous")
    assert len({in_short(one.values) for one in found.trials}) == 6


def test_a_score_is_the_mean_over_seeds_and_splits_of_what_an_evaluation_measures(whole):
    found, folder, _ = whole
    trial = found.trials[3]
    rule, made = found.plan.made(trial.values)
    (run,) = folder.glob(
        f"trainings/*{trial.values['scenario:reward.public_share']}*{trial.values['scenario:screening.governance']}/seed-0"
    )
    again = evaluate(
        made,
        rule,
        lambda: make("learned", path=run),
        episodes=QUICK["episodes"],
        seed=EVALUATION_SEED,
        splits=[2_000_000, 2_000_001],
        unscreened=False,
    )
    assert trial.scores["welfare"] == [pytest.approx(again.by_split["welfare"], rel=1e-6)]
    assert trial.score == pytest.approx(sum(again.by_split["welfare"]) / 2, rel=1e-6)


def test_the_best_trial_is_compared_on_seeds_and_splits_that_no_trial_used(whole):
    found, folder, _ = whole
    scores = [one.score for one in found.trials]
    assert found.best.score == max(scores)
    assert found.best.number == scores.index(max(scores))
    if found.held_out is None:
        assert found.best.is_default
        return
    assert found.held_out.seeds == (1, 2)
    assert found.held_out.splits == tuple(held_out_splits(2))
    trained = {json.loads(path.read_text())["settings"]["seed"] for path in folder.glob("trainings/*/*/run.json")}
    assert trained == {0, 1, 2}
    assert len(list(folder.glob("trainings/*/seed-0"))) == 6
    for seed in (1, 2):
        assert len(list(folder.glob(f"trainings/*/seed-{seed}"))) == 2


def test_the_difference_on_held_out_seeds_is_paired_with_an_interval_over_seeds_and_splits():
    tuned, default = [[3.0, 5.0], [4.0, 7.0], [3.5, 6.0]], [[2.0, 4.5], [2.5, 6.0], [3.0, 5.0]]
    found = HeldOut((1, 2, 3), (7, 8), {"welfare": tuned}, {"welfare": default})
    gaps = [[a - b for a, b in zip(*rows, strict=True)] for rows in zip(tuned, default, strict=True)]
    assert found.difference("welfare") == Estimate.crossed(torch.tensor(gaps, dtype=torch.float64))
    assert found.difference("welfare").mean == pytest.approx(sum(map(sum, gaps)) / 6)
    assert found.of("tuned", "welfare").mean == pytest.approx(sum(map(sum, tuned)) / 6)
    assert found.of("default", "welfare").mean == pytest.approx(sum(map(sum, default)) / 6)


def test_it_tells_how_far_it_is(whole):
    _, _, told = whole
    done = [number for number, _, _ in told]
    assert done == sorted(done)
    assert told[0] == (0, 6 + 4, "")
    assert told[-1] == (10, 10, "")
    assert "trial 1 of 6, seed 0" in [what for _, _, what in told]


def test_a_tuning_that_was_stopped_after_two_trials_goes_on_as_if_it_had_not_been(whole, plan, tmp_path):
    tune(plan, tmp_path, trials=2, held_out_seeds=2, jobs=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("trainings/*/*/policy.pt")}
    found = tune(plan, tmp_path, trials=6, held_out_seeds=2, jobs=1)
    assert found == whole[0]
    assert {path: path.stat().st_mtime_ns for path in before} == before


class StoppedError(Exception):
    """It was stopped."""


@pytest.mark.parametrize("after", [0, 3, 7])
def test_a_tuning_that_was_stopped_at_any_time_goes_on_as_if_it_had_not_been(whole, plan, tmp_path, after):
    def stop(done, total, what):
        if done > after:
            raise StoppedError

    with pytest.raises(StoppedError):
        tune(plan, tmp_path, trials=6, held_out_seeds=2, jobs=1, told=stop)
    assert tune(plan, tmp_path, trials=6, held_out_seeds=2, jobs=1) == whole[0]


def test_the_number_of_processes_changes_nothing(whole, plan, tmp_path):
    assert tune(plan, tmp_path, trials=6, held_out_seeds=2, jobs=3) == whole[0]


def test_fewer_trials_than_there_are_run_nothing(whole, plan):
    found, folder, _ = whole
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pt")}
    assert tune(plan, folder, trials=1, held_out_seeds=2, jobs=1) == found
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.pt")} == before


def test_another_seed_of_the_search_tries_other_values(whole, plan, tmp_path):
    other = Search(tmp_path, plan.parameters, 1, {}, plan.default).proposed(range(4))
    assert other[0] == plan.default
    ours = [one.values for one in whole[0].trials[1:4]]
    assert all(other[number] not in ours for number in (1, 2, 3))


def test_proposals_depend_on_earlier_batches_alone(plan, tmp_path):
    """Twelve random trials, then eight by the model: told in whole batches, or each batch in two parts."""
    kept = []
    for name, sizes in (("whole", [4] * 5), ("parts", [3, 1] * 5)):
        (tmp_path / name).mkdir()
        search, first = Search(tmp_path / name, plan.parameters, 0, {}, plan.default), 0
        for size in sizes:
            for number, values in search.proposed(range(first, first + size)).items():
                search.tell(number, -abs(values["scenario:reward.public_share"] - 0.2), {})
            first += size
        kept.append([one.values for one in search.trials()])
    assert kept[0] == kept[1]
    late = [values["scenario:reward.public_share"] for values in kept[0][12:]]
    early = [values["scenario:reward.public_share"] for values in kept[0][1:9]]
    assert sum(abs(one - 0.2) for one in late) / len(late) < sum(abs(one - 0.2) for one in early) / len(early)


def test_where_all_trials_are_alike_the_defaults_stay_and_nothing_is_compared(tiny, tmp_path):
    found = tune(planned("shapley", tiny, ["seed=0..1"], **QUICK), tmp_path, trials=5, held_out_seeds=2, jobs=1)
    assert len({one.score for one in found.trials}) == 1
    assert found.best.is_default
    assert found.held_out is None
    assert not found.is_better
    assert len(list(tmp_path.glob("trainings/*/*"))) == 2, "the same values are trained once"
    assert "nothing better than the defaults" in " ".join(sentences(found))
    assert json.loads(json.dumps(found.to_dict()))["held_out"] is None
    assert write_tuning(found, tmp_path / "page.html").read_text().count("<figure>") == 2


def test_values_that_do_not_go_together_are_a_failed_trial(picky, tiny, tmp_path):
    plan = planned("picky", tiny, ["a=0..2", "b=0..2"], **QUICK)
    found = tune(plan, tmp_path, trials=8, held_out_seeds=2, jobs=1)
    for one in found.trials:
        assert bool(one.failed) == (one.values["a"] + one.values["b"] > 2)
        assert (one.score is None) == bool(one.failed)
    failed = [one for one in found.trials if one.failed]
    assert failed
    assert "do not go together" in failed[0].failed
    assert "failed; trial" in " ".join(sentences(found))
    assert row_of(found, failed[0])[-1] == "failed"


def test_where_all_trials_fail_it_says_why(picky, tiny, tmp_path):
    plan = planned("picky(fails=True)", tiny, ["a=0..2"], **QUICK)
    with pytest.raises(ValueError, match=r"^all 2 trials failed; the first: .*this rule pays nobody"):
        tune(plan, tmp_path, trials=2, held_out_seeds=2, jobs=1)


def test_defaults_outside_the_ranges_are_no_trial_and_are_still_compared_with(tiny, tmp_path):
    plan = planned("equal", tiny, ["scenario:reward.public_share=0.2..0.5"], **QUICK)
    found = tune(plan, tmp_path, trials=2, held_out_seeds=2, jobs=1)
    assert found.default is None
    assert lead_in_search(found) is None
    assert found.held_out is not None
    assert "are not within the ranges" in " ".join(sentences(found))
    assert (tmp_path / "trainings" / "reward.public_share=0" / "seed-2" / "policy.pt").exists()


def test_another_tuning_in_the_same_folder_is_refused(whole, tiny):
    _, folder, _ = whole
    with pytest.raises(ValueError, match=r"holds a tuning with another objective \(objective: 'welfare' and 'nash'\).*another --out"):
        tune(planned("equal", tiny, PARAMETERS, objective="nash", **QUICK), folder, trials=6)
    with pytest.raises(ValueError, match="another parameters"):
        tune(planned("equal", tiny, PARAMETERS[:1], **QUICK), folder, trials=6)
    with pytest.raises(ValueError, match="another training"):
        tune(planned("equal", tiny, PARAMETERS, **QUICK | {"total_steps": 61}), folder, trials=6)


def test_a_half_written_line_of_the_journal_is_taken_off_and_a_damaged_one_is_named(whole, plan, tmp_path):
    _, folder, _ = whole
    lines = (folder / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(lines + b'{"op_code": 5, "wor')
    assert len(Search(tmp_path, plan.parameters, 0, plan.settings.plain(), plan.default).trials()) == 6
    (tmp_path / JOURNAL).write_bytes(b"no journal\n" + lines)
    with pytest.raises(ValueError, match=r"study.journal' is damaged .*: delete it and run the command again"):
        Search(tmp_path, plan.parameters, 0, plan.settings.plain(), plan.default)


def test_scores_that_are_lost_from_the_journal_are_read_from_the_trainings(whole, plan, tmp_path):
    import shutil

    found, folder, _ = whole
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / JOURNAL).unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").rglob("*.pt")}
    assert tune(plan, tmp_path / "copy", trials=6, held_out_seeds=2, jobs=1) == found
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").rglob("*.pt")} == before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"objective": "wellfare"}, "unknown objective 'wellfare' (did you mean 'welfare'?)"),
        ({"seeds": 0}, "seeds: "),
        ({"evaluation_splits": 1}, "evaluation_splits: "),
        ({"library": "ipo"}, "unknown library 'ipo'"),
        ({"algo": "nope"}, "has no algorithm 'nope'"),
        ({"total_steps": 0}, "total_steps"),
        ({"gama": 0.5}, "gama"),
        ({"first_seed": 1_000_000}, "seed 1000000 trains on split 1000000 of the data, on which scores are measured"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_trained(tiny, wrong, said):
    with pytest.raises(ValueError, match=r".") as error:
        planned("equal", tiny, PARAMETERS, **QUICK | wrong)
    assert said in str(error.value)


@pytest.mark.parametrize(("name", "value", "said"), [("trials", 0, "trials=0"), ("held_out_seeds", 1, "held_out_seeds=1")])
def test_too_few_trials_or_seeds_are_refused(plan, tmp_path, name, value, said):
    with pytest.raises(ValueError, match=said):
        tune(plan, tmp_path, **{name: value})


def test_without_optuna_it_says_what_to_install(tiny, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"^tune needs optuna, which is not installed: pip install 'proxycoop\[tune\]'$"):
        planned("equal", tiny, PARAMETERS, **QUICK)


def compared(whole, gap, spread=0.1):
    """The same tuning in which trial 3 was the best, and led by a gap on held-out seeds."""
    found, _, _ = whole
    trials = tuple(dataclasses.replace(one, score=10.0 if one.number == 2 else 1.0 + 0.1 * one.number) for one in found.trials)
    default = [[2.0, 3.0], [2.5, 3.5], [1.5, 2.5]]
    tuned = [[one + gap + spread * (i - 1) for one in row] for i, row in enumerate(default)]
    names = ("welfare", "nash", "worst_off", "violations")
    held_out = HeldOut((1, 2, 3), (5, 6), dict.fromkeys(names, tuned), dict.fromkeys(names, default))
    return dataclasses.replace(found, trials=trials, held_out=held_out)


@pytest.mark.parametrize(
    ("gap", "spread", "verdict", "better"),
    [
        (4.0, 0.1, "The tuned parameters are better", True),
        (0.1, 2.0, "found nothing that is certainly better", False),
        (-4.0, 0.1, "The tuned parameters are worse", False),
    ],
)
def test_sentences_say_plainly_whether_the_tuned_parameters_are_better(whole, gap, spread, verdict, better):
    found = compared(whole, gap, spread)
    said = sentences(found)
    assert verdict in said[2]
    assert found.is_better == better
    assert "trial 3 has the highest welfare: 10.00" in said[0]
    assert said[0].endswith("scored 1.00.")
    assert f"{2.5 + gap:.2f}".replace("-", "−") in said[1]
    assert "scored 10.00 in the search" in said[3]
    assert "by 9.00 in the search" in said[3]
    assert "winner’s curse" in said[3]


def test_many_returns_at_the_floor_are_a_caution(whole):
    found = compared(whole, 1.0)
    trials = tuple(dataclasses.replace(one, scores={"at_floor": [[0.5, 0.7]]}) for one in found.trials)
    settings = found.plan.settings.model_copy(update={"objective": "nash"})
    plan = dataclasses.replace(found.plan, settings=settings)
    assert "60 % of the principals’ balanced returns are below 1" in sentences(dataclasses.replace(found, plan=plan, trials=trials))[4]
    assert "at the floor" not in " ".join(sentences(found))


def test_the_page_says_it_all(whole, tmp_path):
    found = compared(whole, 4.0)
    page = write_tuning(found, tmp_path / "tuning.html").read_text()
    assert page.count("<figure>") == 3
    for text in ("The tuned parameters are better", "Held-out seeds", "reward.public_share", "screening.governance", "winner’s curse"):
        assert text in page
    for one in found.trials:
        assert f'class="name">{one.number + 1}</th>' in page
    assert page.count("trial 3: 10.00") == 1
    assert scenario.Scenario.model_validate(found.mechanism[1].to_dict()) == found.mechanism[1]


def test_the_page_is_whole_on_a_telephone_and_on_paper(whole, shown_whole, tmp_path):
    shown_whole(write_tuning(compared(whole, 4.0), tmp_path / "tuning.html").read_text())


def test_the_table_holds_the_best_trials_and_the_defaults(whole):
    found = compared(whole, 1.0)
    table = console_table(found)
    assert [column.header for column in table.columns][:4] == ["trial", "reward.public_share", "screening.governance", "welfare"]
    assert table.row_count == 6
    assert row_of(found, found.best)[-1] == "best"
    assert row_of(found, found.trials[0])[-1] == "default"


def test_a_score_that_is_no_number_is_a_failed_trial(plan, tmp_path):
    from proxycoop.training.tuning.outer_loop import _tell

    search = Search(tmp_path, plan.parameters, 0, {}, plan.default)
    search.proposed(range(1))
    _tell(search, 0, [{"welfare": [1.0, float("nan")], "nash": [1.0, 1.0]}], "welfare")
    (trial,) = search.trials()
    assert trial.score is None
    assert trial.failed == "its welfare is no finite number"
