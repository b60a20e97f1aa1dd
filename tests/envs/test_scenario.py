"""Scenarios: loading, overriding, extending, round trips, and errors that name the key, the line and what is allowed."""

import json
import pickle
import re
from pathlib import Path

import pytest
import yaml

from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.envs.model.substrates import Traversal
from proxycoop.envs.values import Disparity

UNSCALED = {"reward.scale": 1.0}

KINDS = "class_loss, confidence, disparity, drift, group_loss, miss_rate, worst_group_loss"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def fails(source: str | Path, **overrides: object) -> str:
    """The message of the ValueError that loading, or else building the cooperative, ends in."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the caller looks at the message)
        Engine(scenario.load(source, **overrides), None)
    message = str(caught.value)
    assert "pydantic.dev" not in message
    assert "validation error" not in message
    return message


@pytest.mark.parametrize("name", scenario.names())
def test_shipped_scenarios_load_under_their_own_name_and_describe_themselves(name: str) -> None:
    made = scenario.load(name)
    assert made.name == name
    assert len(made.description) > 100


def test_the_shipped_scenarios_are_the_documented_ones() -> None:
    digits, cancer = {"digits", "digits-mean", "digits-provenance"}, {"breast_cancer", "breast_cancer-hospitals", "breast_cancer-vertical"}
    interacting = {"complement", "redundant", "giant", "digits-steep", "digits-graded", "breast_cancer-steep", "adult-steep"}
    people = {"adult", "adult-mean", "compas", "german"}
    assert digits | cancer | people | interacting | {"breast_cancer-stale", "fashion"} == set(scenario.names())


@pytest.mark.parametrize("name", scenario.names())
def test_shipped_scenarios_survive_a_round_trip_through_a_file(name: str, tmp_path: Path) -> None:
    made = scenario.load(name)
    again = scenario.load(write(tmp_path / "again.yaml", made.to_yaml()))
    assert again.to_yaml() == made.to_yaml()
    assert again == made


def test_a_changed_scenario_survives_a_round_trip_with_every_kind_of_part(tmp_path: Path) -> None:
    made = scenario.load(
        "breast_cancer",
        substrate={"kind": "traversal", "batch": 30},
        server={"kind": "adam", "tau": 0.01},
        model={"kind": "mlp", "hidden": [5, 4]},
        **{
            "data.groups": {"large": {"column": "mean area", "above": 0.5}},
            "values": {"gap": {"kind": "disparity", "group": "large", "label": "malignant"}},
            "lots.rows": [1, 2, 3, 4, 5, 6],
            "lots.tags": {"b": 0.5, "a": 0.5},
        },
    )
    again = scenario.load(write(tmp_path / "again.yaml", made.to_yaml()))
    assert again == made
    assert list(again.lots.tags) == ["b", "a"]  # their order gives tags their numbers
    assert again.values["gap"] == Disparity(group="large", label="malignant")


def test_classes_given_by_number_work_where_classes_have_names(tmp_path: Path) -> None:
    made = scenario.load("breast_cancer", **UNSCALED, **{"data.test.thin": {1: 0.6}})
    again = scenario.load(write(tmp_path / "again.yaml", made.to_yaml()))
    assert again.data.test.thin[1] == 0.6
    assert Engine(made, None).splits.test.y.sum() == Engine(scenario.load("breast_cancer", **UNSCALED), None).splits.test.y.sum()


def test_defaults_alone_make_a_cooperative() -> None:
    engine = Engine(Scenario(), "shapley")
    engine.reset([1])
    assert engine.num_agents == 6


def test_a_scenario_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        scenario.load("digits").horizon = 3  # type: ignore[misc]


# Overrides


def test_dotted_overrides_change_one_setting_and_leave_its_neighbours() -> None:
    made, plain = scenario.load("digits", horizon=5, **{"lots.mixture.concentration": 7, "lots.rows": 3}), scenario.load("digits")
    assert (made.horizon, made.lots.rows, made.lots.mixture.concentration) == (5, 3, 7)
    assert made.lots.mixture.model_copy(update={"concentration": 3}) == plain.lots.mixture
    assert made.lots.corruption == plain.lots.corruption


def test_a_mapping_is_merged_and_a_list_replaces() -> None:
    made = scenario.load("digits", lots={"rows": 5, "corruption": {"rate": 0.5}}, profiles=[{"holders": 1}])
    assert (made.lots.rows, made.lots.corruption.rate, made.lots.corruption.share) == (5, 0.5, 0.5)
    assert len(made.profiles) == 1


@pytest.mark.parametrize("override", [{"substrate.kind": "traversal"}, {"substrate": {"kind": "traversal"}}, {"substrate": Traversal()}])
def test_another_kind_drops_the_settings_of_the_old(override: dict[str, object]) -> None:
    assert scenario.load("digits", **override).substrate == Traversal()


def test_a_kind_and_its_settings_can_be_overridden_together() -> None:
    made = scenario.load("digits", **{"substrate.kind": "traversal", "substrate.lr": 0.1})
    assert made.substrate == Traversal(lr=0.1)


def test_naming_the_same_kind_keeps_its_settings() -> None:
    assert scenario.load("digits", **{"substrate.kind": "fedavg"}).substrate.local_lr == 0.375
    assert scenario.load("digits", substrate={"kind": "fedavg", "local_steps": 2}).substrate.local_lr == 0.375


def test_a_part_that_a_file_leaves_to_its_default_can_be_overridden_without_its_kind() -> None:
    assert scenario.load("digits", **{"server.momentum": 0.9}).server.momentum == 0.9


def test_a_value_object_can_be_given_as_an_override() -> None:
    gap = Disparity(group="dark", label=8)
    assert scenario.load("digits", **{"values.gap": gap}).values["gap"] == gap


def test_overrides_do_not_leak_into_the_next_load() -> None:
    before = scenario.load("digits")
    scenario.load("digits", **{"lots.rows": 1, "values.eights.label": 7, "data.test.thin": {1: 0.5}})
    assert scenario.load("digits") == before


def test_an_override_into_what_is_no_mapping_says_so() -> None:
    assert "'horizon' is 16 and has no settings of its own" in fails("digits", **{"horizon.x": 1})


def test_an_override_changes_one_item_of_a_list() -> None:
    made, plain = scenario.load("digits", **{"profiles.1.tolerances.nines": 0.5, "profiles.0": {"stake": 3.0}}), scenario.load("digits")
    assert made.profiles[1] == plain.profiles[1].model_copy(update={"tolerances": {"nines": 0.5}})
    assert made.profiles[0] == plain.profiles[0].model_copy(update={"stake": 3.0})
    assert scenario.load("digits") == plain


@pytest.mark.parametrize(
    ("dotted", "complaint"),
    [
        ("profiles.2.stake", "'2' must be a place in the list profiles, from 0 to 1; or set all of it, as in profiles=[{…}, {…}]"),
        ("profiles.-1", "'-1' must be a place in the list profiles, from 0 to 1"),
        ("profiles.kind", "'kind' must be a place in the list profiles, from 0 to 1"),
        ("lots.corruption.pairs.0.2", "'2' must be a place in the list lots.corruption.pairs.0, from 0 to 1"),
        ("lots.mixture.protected.0.x", "'0' is 8 and has no settings of its own"),
        ("profiles.0.forbidden_tags.0", "profiles.0.forbidden_tags is an empty list: set all of it"),
    ],
)
def test_an_override_into_a_list_needs_a_place_in_it(dotted: str, complaint: str) -> None:
    given = {dotted: 1} if "tags" not in dotted else {"profiles": [{"forbidden_tags": []}], dotted: 1}
    assert fails("digits", **given).startswith(f"override {dotted}: {complaint}")


@pytest.mark.parametrize("given", ["on", "yes", "true", "False", 1, 0, 1.0, None])
@pytest.mark.parametrize("switch", ["screening.guard", "profiles_drawn", "observations.marginal_gains"])
def test_a_switch_is_true_or_false_and_nothing_else(switch: str, given: object) -> None:
    text = ", which is text in YAML 1.2" if given in ("on", "yes") else ""
    assert fails("digits", **{switch: given}) == f"override {switch}: {switch}: must be true or false (got {given!r}{text})"


# Extending


def test_a_file_extends_a_shipped_scenario_and_what_it_says_wins(tmp_path: Path) -> None:
    made = scenario.load(write(tmp_path / "mine.yaml", "extends: digits\nname: mine\nlots: {rows: 7}\nmodel: {kind: mlp}\n"))
    assert (made.name, made.lots.rows, made.model.kind) == ("mine", 7, "mlp")
    assert made.lots.corruption == scenario.load("digits").lots.corruption


def test_files_extend_files_beside_them(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: digits\nhorizon: 3\nprincipals: 5\nprofiles: []\n")
    made = scenario.load(write(tmp_path / "b.yaml", "extends: a.yaml\nhorizon: 4\n"))
    assert (made.horizon, made.principals, made.name) == (4, 5, "digits")


def test_learning_rates_of_another_model_are_known_with_their_places(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("extends: digits-mean\nmodel: {kind: mlp}\nstart: {lr: 0.25}\n")
    (tmp_path / "deeper.yaml").write_text("extends: deep.yaml\nname: deeper\nserver: {lr: 0.5}\n")
    (tmp_path / "own.yaml").write_text("extends: deeper.yaml\nmodel: {kind: module, factory: 'a:b'}\nsubstrate: {local_lr: 0.1}\n")
    read = {name: scenario.load(tmp_path / f"{name}.yaml").rates_of_another_model for name in ("deep", "deeper", "own")}
    assert [(one.setting, one.rate, one.model, one.place.partition(":")[0]) for one in read["deep"]] == [
        ("substrate.local_lr", 0.1875, "softmax", "digits-mean.yaml")
    ]
    assert read["deeper"] == read["deep"]  # the rate of the server was set for the model that it has
    assert {(one.setting, one.model) for one in read["own"]} == {("start.lr", "mlp"), ("server.lr", "mlp")}
    assert scenario.load("digits-mean").rates_of_another_model == ()


def test_a_rate_that_is_set_anew_or_replaced_is_no_one_elses() -> None:
    deep = {"model": {"kind": "mlp"}, "start.lr": 0.5}
    assert [one.setting for one in scenario.load("digits", **deep).rates_of_another_model] == ["substrate.local_lr"]
    for also in ({"substrate.local_lr": 0.375}, {"substrate.kind": "traversal"}, {"model": {"kind": "softmax"}}):
        assert scenario.load("digits", **(deep | also)).rates_of_another_model == ()


def test_where_rates_come_from_makes_no_difference_to_what_a_scenario_is() -> None:
    read = scenario.load("digits", **{"model.kind": "mlp"})
    plain = Scenario.model_validate(read.to_dict())
    assert read.rates_of_another_model
    assert plain.rates_of_another_model == ()
    assert read == plain
    assert read.to_yaml(full=True) == plain.to_yaml(full=True)
    assert read.model_dump() == plain.model_dump()
    for copy in (read.on_split(3), pickle.loads(pickle.dumps(read))):
        assert copy.rates_of_another_model == read.rates_of_another_model
    other = read.substrate.model_copy(update={"local_lr": 0.1})
    assert [one.setting for one in read.model_copy(update={"substrate": other}).rates_of_another_model] == ["start.lr"]


@pytest.mark.parametrize("link", ["a.yaml", "b.yaml", "{folder}/a.yaml", "../{name}/a.yaml"])
def test_circular_extends_is_refused_however_it_is_spelt(tmp_path: Path, link: str) -> None:
    write(tmp_path / "b.yaml", "extends: a.yaml\n")
    path = write(tmp_path / "a.yaml", f"extends: {link.format(folder=tmp_path, name=tmp_path.name)}\n")
    assert "extends itself" in fails(path)


def test_a_file_may_extend_the_shipped_scenario_of_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "digits.yaml", "extends: digits\nhorizon: 3\n")
    assert scenario.load("digits.yaml").horizon == 3


def test_extending_what_does_not_exist_lists_the_known(tmp_path: Path) -> None:
    assert "unknown scenario 'digts' (did you mean 'digits'?)" in fails(write(tmp_path / "a.yaml", "extends: digts\n"))


# Errors


def test_an_unknown_scenario_lists_the_known_and_suggests_the_nearest() -> None:
    message = fails("digts")
    assert "did you mean 'digits'" in message
    assert all(name in message for name in scenario.names())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "nowhere.yaml' cannot be read: No such file" in fails(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("lots: [1, 2", "not valid YAML"),
        ("a: b: c", "bad.yaml:1: not valid YAML: mapping values are not allowed here"),
        ("- 1\n- 2\n", "holds a list, must hold a mapping"),
        ("", "holds nothing, must hold a mapping"),
        ("lots: !!python/object:os.system {}", "not valid YAML"),
    ],
)
def test_bad_yaml_is_a_value_error_that_names_the_file(tmp_path: Path, text: str, complaint: str) -> None:
    message = fails(write(tmp_path / "bad.yaml", text))
    assert complaint in message
    assert "bad.yaml" in message


def test_a_file_that_is_no_text_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00\x80")
    assert "cannot be read" in fails(tmp_path / "bad.yaml")


BASE = "name: mine\nlots:\n  rows: 5\n"


@pytest.mark.parametrize(
    ("text", "line", "key", "suggestion"),
    [
        (BASE + "horizn: 3\n", 4, "horizn", "horizon"),
        (BASE + "  per_pricipal: 3\n", 4, "lots.per_pricipal", "per_principal"),
        (BASE + "  corruption:\n    share: 0.5\n    rat: 0.5\n", 6, "lots.corruption.rat", "rate"),
        (BASE + "profiles:\n  - holders: 1\n  - holder: 2\n", 6, "profiles.1.holder", "holders"),
        (BASE + "substrate:\n  kind: fedavg\n  local_rl: 0.4\n", 6, "local_rl", "local_lr"),
        (BASE + "  mixture:\n    kind: dirichlet\n    concentraton: 3\n", 6, "concentraton", "concentration"),
        (BASE + "values:\n  eights:\n    kind: class_loss\n    lable: 8\n", 7, "lable", "label"),
    ],
    ids=["top", "part", "deeper", "list", "kind", "deeper kind", "value"],
)
def test_a_misspelt_key_is_named_with_its_line_and_the_nearest_known(
    tmp_path: Path, text: str, line: int, key: str, suggestion: str
) -> None:
    message = fails(write(tmp_path / "mine.yaml", text))
    assert f"mine.yaml:{line}:" in message
    assert key in message
    assert repr(suggestion) in message


def test_a_key_under_a_part_with_kinds_is_named_as_it_stands_in_the_file() -> None:
    assert "'substrate.local_rl'" in fails("digits", **{"substrate.local_rl": 1})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("reward: {scale: 100}\nreward: {contribution_cost: 0.5}\n", "mine.yaml:3: not valid YAML: the key 'reward' is given twice"),
        ("horizon: yes\n", "mine.yaml:2: horizon: Input should be a valid integer, .* \\(got 'yes', which is text in YAML 1.2\\)"),
        ("horizon: true\n", "mine.yaml:2: horizon: must be a number, not true or false \\(got True\\)"),
        ("lots: {rows: [9, 9, 9, 9, 9, true]}\n", "mine.yaml:2: lots.rows: must be a number, not true or false"),
        ("lots: {rows: off}\n", "mine.yaml:2: lots.rows: .*got 'off'"),
        ("lots:\n  corruption: {share: no}\n", "mine.yaml:3: lots.corruption.share: Input should be a valid number, .*got 'no'"),
        ("horizon: 1:30\n", "mine.yaml:2: horizon: .*got '1:30'"),
        ("extends: digits\nvalues: &v {x: *v}\n", "mine.yaml:2: not valid YAML: the key 'extends' is given twice"),
        ("values: &v {x: *v}\n", "mine.yaml:2: not valid YAML: the alias 'v' stands inside what it names"),
        ("3: 1\n", "mine.yaml:2: 3: Keys should be strings"),
        ('values: {"\\x1b[31m": {kind: drift}}\n', r"mine.yaml:2: values.\\x1b\[31m: "),
    ],
)
def test_what_yaml_1_1_read_as_something_else_is_refused_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    assert re.match(f"{tmp_path}/{complaint}", fails(write(tmp_path / "mine.yaml", f"extends: digits\n{text}")))


def test_scalars_are_read_as_yaml_1_2_says(tmp_path: Path) -> None:
    text = "name: no\ndescription: 2024-01-01\nhorizon: 010\nlots: {rows: 0o10}\nreward: {scale: 1e2}\nscreening: {guard: true}\n"
    made = scenario.load(write(tmp_path / "mine.yaml", f"extends: digits\n{text}"))
    assert (made.name, made.description, made.horizon, made.lots.rows, made.reward.scale) == ("no", "2024-01-01", 10, 8, 100.0)
    assert made.screening.guard is True
    assert scenario.load(write(tmp_path / "again.yaml", made.to_yaml())) == made


def test_an_override_of_one_copy_leaves_what_an_alias_copied(tmp_path: Path) -> None:
    text = "extends: digits\nvalues:\n  a: &a {kind: class_loss, label: 1}\n  b: *a\n"
    made = scenario.load(write(tmp_path / "mine.yaml", text), **{"values.a.label": 2})
    assert (made.values["a"].label, made.values["b"].label) == (2, 1)


def test_a_problem_is_blamed_on_what_set_it(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "extends: digits\n\nlots:\n  rows: 3\n  per_principal: 0\n")
    mine = write(tmp_path / "mine.yaml", "extends: base.yaml\nlots:\n  rows: 4\n")
    assert fails(mine).startswith(f"{tmp_path}/base.yaml:5: lots.per_principal: ")
    assert fails(mine, **{"lots.per_principal": -1}).startswith("override lots.per_principal: lots.per_principal: ")
    assert fails(mine, lots={"per_principal": 2, "rows": 0}).startswith(f"{mine}:2 with override lots: lots: ")
    assert fails(mine, lots={"rows": 9}).startswith(f"{tmp_path}/base.yaml:5: ")
    assert fails("digits", horizon={3: 4}).startswith("override horizon: horizon: Input should be a valid integer (got {3: 4})")
    assert fails("digits", principals=2).startswith("digits.yaml with override principals: profiles have 4 holders")
    assert fails("digits", profiles=[{"holder": 1}]).startswith("override profiles: unknown key 'profiles.0.holder'")
    asks = write(tmp_path / "asks.yaml", "extends: digits\nprofiles:\n  - tolerances: {eights: .1}\n    limits:\n      eigths: .1\n")
    assert fails(asks).startswith(f"{asks}:5: profiles.0.limits.eigths: unknown value 'eigths' (did you mean 'eights'?)")
    assert fails(asks, **{"profiles.0.limits": {"eights": -1}}).startswith("override profiles.0.limits: profiles.0.limits.eights: must")


def test_several_problems_are_listed_one_a_line() -> None:
    message = fails("digits", horizon=0, principals=0)
    assert len(message.splitlines()) == 2
    assert "horizon" in message
    assert "principals" in message


@pytest.mark.parametrize(
    ("overrides", "key", "allowed"),
    [
        ({"horizon": 0}, "horizon", "greater than or equal to 1"),
        ({"principals": 0}, "principals", "greater than or equal to 1"),
        ({"principals": 2000}, "principals", "less than or equal to 1024"),
        ({"utility": "acuracy"}, "utility", "'neg_log_loss' or 'accuracy'"),
        ({"weights": "equal"}, "weights", "'fixed' or 'participants'"),
        ({"screening.governance": "majority"}, "screening.governance", "'quorum'"),
        ({"screening.quorum": 0}, "screening.quorum", "greater than 0"),
        ({"screening.quorum": 1.5}, "screening.quorum", "less than or equal to 1"),
        ({"model.kind": "forest"}, "model", "'softmax', 'mlp', 'cnn', 'module'"),
        ({"reward.scale": -1}, "reward.scale", "positive, or 'auto'"),
        ({"reward.scale": "much"}, "reward.scale", "'auto'"),
        ({"reward.contribution_cost": -0.1}, "reward.contribution_cost", "greater than or equal to 0"),
        ({"profiles": [{"tolerances": {"eights": -0.1}}]}, "profiles.0", "finite and at least 0"),
        ({"profiles": [{"tolerances": {"eights": float("inf")}}]}, "profiles.0", "finite"),
        ({"profiles": [{"tolerances": {"eights": float("nan")}}]}, "profiles.0", "finite"),
        ({"profiles": [{"holders": 0}]}, "profiles.0.holders", "greater than or equal to 1"),
        ({"profiles": [{"max_norm": 0}]}, "profiles.0.max_norm", "greater than 0"),
        ({"lots.rows": 0}, "lots", "at least one row"),
        ({"lots.tags": {"a": 0.7}}, "lots", "sum to 1"),
        ({"lots.corruption.what": "rows"}, "lots.corruption.what", "'labels', 'links', 'features' or 'stale'"),
        ({"lots.corruption.rate": 1.5}, "lots.corruption.rate", "less than or equal to 1"),
        ({"lots.corruption.rate": [0.6, 0.1]}, "lots.corruption", "the smaller number must come first"),
        ({"lots.corruption.rate": [0.0, 0.0]}, "lots.corruption", "give pairs and a rate above 0"),
        ({"lots.corruption.size": 2.0}, "lots.corruption", "nothing has a size: leave it out"),
        ({"lots.corruption.what": "stale"}, "lots.corruption", "leave pairs out, or use what: labels"),
        ({"lots.corruption": {"what": "stale", "pairs": [], "size": 0}}, "lots.corruption", "give a rate and a size above 0"),
        ({"lots.corruption": {"what": "features", "pairs": [], "size": -1}}, "lots.corruption.size", "greater than or equal to 0"),
        ({"lots.holders": 0}, "lots.holders", "greater than or equal to 1"),
        ({"lots.holders": 7}, "lots.holders", "there are only 6 principals: lower holders"),
        ({"lots.holders": 2, "lots.rows": [9, 8, 8, 8, 8, 8]}, "lots", "lots that are the same have equally many rows"),
        ({"lots.mixture.classes_per_principal": 0}, "lots.mixture.classes_per_principal", "greater than or equal to 1"),
        ({"lots.corruption.what": "links"}, "lots.corruption", "leave pairs out, or use what: labels"),
        ({"substrate": {"kind": "vertical", "lr": 0}}, "substrate.lr", "greater than 0"),
        ({"name": "../etc"}, "name", "match pattern"),
        ({"values": 3}, "values", "dictionary"),
        ({"values.eights": {"kind": "clas_loss", "label": 8}}, "values", KINDS),
        ({"values.new": {"label": 8}}, "new", f"'kind', one of {KINDS}"),
        ({"values.a/b": {"kind": "class_loss", "label": 8}}, "a/b", "should match pattern"),
        ({"values.eights.label": [1]}, "label", "valid integer"),
    ],
)
def test_a_value_out_of_bounds_names_the_key_and_what_is_allowed(overrides: dict[str, object], key: str, allowed: str) -> None:
    message = fails("digits", **overrides)
    assert re.match(r"(digits\.yaml(:\d+)? with )?override ", message)
    assert key in message
    assert allowed in message


@pytest.mark.parametrize("kind", [["class_loss"], {"class_loss": 1}, 3, None])
def test_a_value_kind_that_is_no_name_is_a_value_error(kind: object) -> None:
    assert KINDS in fails("digits", **{"values.eights": {"kind": kind, "label": 8}})


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"profiles": [{"holders": 4}, {"holders": 3}]}, "7 holders in all, but there are only 6 principals"),
        ({"profiles": [{"tolerances": {"eigths": 0.1}}]}, "profiles.0.tolerances.eigths: unknown value 'eigths' (did you mean 'eights'?)"),
        ({"profiles": [{"forbidden_tags": ["x"]}]}, "profiles.0.forbidden_tags.0: unknown tag 'x'"),
        ({"profiles": [{"forbidden_tags": ["scrapd"]}], "lots.tags": {"scraped": 1.0}}, "did you mean 'scraped'?"),
        ({"values.tens": {"kind": "class_loss", "label": 10}}, "unknown class 10"),
        ({"values.g": {"kind": "group_loss", "group": "x"}}, "unknown group 'x'"),
        ({"data.source": "digts"}, "unknown data source 'digts' (did you mean 'digits'?)"),
        ({"data.public_rows": 0}, "public"),
        ({"lots.rows": [1, 2]}, "2 entries for 6 principals"),
        ({"lots.corruption": {"what": "links", "pairs": []}}, "lots.corruption.what=links needs substrate vertical"),
        ({"substrate": {"kind": "vertical"}}, "substrate vertical does not go with lots.mixture.kind=dirichlet"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused_before_the_first_round(overrides: dict[str, object], complaint: str) -> None:
    assert complaint in fails("digits", **{**UNSCALED, **overrides})


def test_auto_scale_without_a_gain_to_measure_says_what_to_do() -> None:
    message = fails("digits", **{"substrate.local_lr": 500.0})
    assert "reward.scale" in message
    assert "learning rate" in message


def test_yaml_of_a_scenario_is_plain_data() -> None:
    data = yaml.safe_load(scenario.load("digits").to_yaml())
    assert data == scenario.load("digits").to_dict()
    assert data["values"]["eights"] == {"kind": "class_loss", "label": 8, "group": None}


def test_settings_beside_a_kind_are_kept_in_whatever_order_they_come():
    for overrides in (
        {"settlement.revenue.per_unit": 5, "settlement.revenue.kind": "level"},
        {"settlement.revenue.kind": "level", "settlement.revenue.per_unit": 5},
        {"settlement": {"revenue": {"per_unit": 5}}, "settlement.revenue.kind": "level"},
    ):
        revenue = scenario.load("digits", **overrides).settlement.revenue
        assert (revenue.kind, revenue.per_unit) == ("level", 5)


@pytest.mark.fairness
@pytest.mark.parametrize("name", scenario.names())
def test_a_scenario_read_from_a_file_of_a_run_does_not_differ_from_itself(name: str) -> None:
    plain = scenario.load(name).to_dict()
    kept = json.loads(json.dumps(plain))  # keys that are numbers are text there
    assert scenario.differences(plain, kept) == []
    assert scenario.differences(kept, plain) == []


def test_a_key_that_is_a_number_is_found_where_it_differs() -> None:
    plain = scenario.load("digits").to_dict()
    kept = json.loads(json.dumps(scenario.load("digits", **{"data.validation.thin": {8: 0.5}}).to_dict()))
    assert scenario.differences(plain, kept) == ["data.validation.thin.8: 0.15, was 0.5"]
