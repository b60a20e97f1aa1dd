from importlib.metadata import EntryPoint

import pytest

from proxycoop import registry
from proxycoop.registry import Registry, unknown_name

GROUP = "proxycoop.test_fruits"


class Fruit:
    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight


class Apple(Fruit):
    pass


@pytest.fixture
def fruits() -> Registry[Fruit]:
    return Registry("fruit", GROUP)


@pytest.fixture
def installed(monkeypatch):
    """Sets which entry points the installed packages declare; answers with the groups that were asked for."""

    def install(**values: str) -> list[str]:
        asked = []

        def entry_points(*, group):
            asked.append(group)
            return [EntryPoint(name, value, group) for name, value in values.items()]

        monkeypatch.setattr(registry, "entry_points", entry_points)
        return asked

    return install


def test_register_hands_back_what_it_registers_and_make_builds_it(fruits):
    assert fruits.register("apple")(Apple) is Apple
    assert type(fruits.make("apple")) is Apple
    assert fruits.make("apple", weight=2.5).weight == 2.5
    assert fruits["apple"] is Apple


def test_a_function_is_a_factory_too(fruits):
    @fruits.register("heavy")
    def heavy(times: int = 2) -> Fruit:
        return Fruit(100.0 * times)

    assert fruits.make("heavy", times=3).weight == 300.0


def test_names_are_sorted_and_iteration_and_membership_agree(fruits):
    for name in ["pear", "apple", "fig"]:
        fruits.register(name)(Fruit)
    assert fruits.names() == list(fruits) == ["apple", "fig", "pear"]
    assert "fig" in fruits
    assert "plum" not in fruits
    assert None not in fruits


def test_a_taken_name_is_refused_and_keeps_its_owner(fruits):
    fruits.register("apple")(Apple)
    with pytest.raises(ValueError, match=r"fruit 'apple' is registered already, as .*Apple.*choose another name"):
        fruits.register("apple")(Fruit)
    assert fruits["apple"] is Apple


def test_registering_the_same_factory_again_is_harmless(fruits):
    fruits.register("apple")(Apple)
    assert fruits.register("apple")(Apple) is Apple


def test_two_registries_do_not_share_names(fruits):
    fruits.register("apple")(Apple)
    assert "apple" not in Registry("vegetable", GROUP)


@pytest.mark.parametrize("look_up", [lambda fruits: fruits["aple"], lambda fruits: fruits.make("aple")])
def test_unknown_name_lists_the_known_ones_and_suggests_the_closest(fruits, look_up):
    fruits.register("apple")(Apple)
    fruits.register("fig")(Fruit)
    with pytest.raises(ValueError, match=r"unknown fruit 'aple' \(did you mean 'apple'\?\): the known ones are apple, fig"):
        look_up(fruits)


def test_nothing_is_suggested_when_nothing_is_close():
    assert str(unknown_name("fruit", "zzz", ["apple", "fig"])) == "unknown fruit 'zzz': the known ones are apple, fig"


@pytest.mark.parametrize("name", [None, 3, ("apple",)])
def test_a_name_that_is_no_text_is_unknown(fruits, name):
    fruits.register("apple")(Apple)
    with pytest.raises(ValueError, match="unknown fruit"):
        fruits[name]


def test_arguments_that_the_factory_does_not_take_are_refused_with_what_came(fruits):
    fruits.register("apple")(Apple)
    with pytest.raises(ValueError, match=r"fruit 'apple' does not take .*'colour'.*\{'colour': 'red'\}"):
        fruits.make("apple", colour="red")


def test_missing_arguments_are_refused_too(fruits):
    @fruits.register("weighed")
    def weighed(weight: float) -> Fruit:
        return Fruit(weight)

    with pytest.raises(ValueError, match=r"fruit 'weighed' does not take .*missing a required argument: 'weight'"):
        fruits.make("weighed")


def test_an_error_inside_the_factory_is_passed_on_as_it_is(fruits):
    @fruits.register("rotten")
    def rotten() -> Fruit:
        raise TypeError("rotten inside")

    with pytest.raises(TypeError, match="rotten inside"):
        fruits.make("rotten")


# entry points


def test_entry_points_are_read_at_the_first_look_up_and_never_again(fruits, installed):
    asked = installed(theirs="fractions:Fraction")
    fruits.register("apple")(Apple)
    assert asked == []
    assert fruits.names() == ["apple", "theirs"]
    assert fruits.make("theirs", numerator=3) == 3
    assert "theirs" in fruits
    assert asked == [GROUP]


def test_a_name_of_the_house_is_not_taken_over_by_an_entry_point(fruits, installed):
    installed(apple="fractions:Fraction")
    fruits.register("apple")(Apple)
    assert fruits["apple"] is Apple


def test_a_loaded_entry_point_s_name_is_not_taken_over_later(fruits, installed):
    installed(theirs="fractions:Fraction")
    fruits["theirs"]
    with pytest.raises(ValueError, match=r"'theirs' is registered already, as .*Fraction"):
        fruits.register("theirs")(Apple)


def test_unknown_name_lists_the_names_of_entry_points_too(fruits, installed):
    installed(theirs="fractions:Fraction")
    with pytest.raises(ValueError, match="the known ones are theirs"):
        fruits["mine"]


def test_a_broken_plug_in_is_named_as_often_as_it_is_asked_for(fruits, installed):
    installed(broken="proxycoop_no_such_plugin:Rule")
    for _ in range(2):
        with pytest.raises(Exception, match="proxycoop_no_such_plugin"):
            fruits.make("broken")


def test_a_broken_plug_in_does_not_hide_the_others(fruits, installed):
    installed(broken="proxycoop_no_such_plugin:Rule", theirs="fractions:Fraction")
    fruits.register("apple")(Apple)
    assert fruits["apple"] is Apple
    assert fruits.make("theirs", numerator=3) == 3


@pytest.mark.parametrize("name", ["", " ", "apple ", "apple(red)", ")", 3, None])
def test_a_name_that_could_not_be_looked_up_is_refused(fruits, name):
    with pytest.raises(ValueError, match="a name must be text without brackets"):
        fruits.register(name)


def test_what_builds_nothing_is_not_registered(fruits):
    with pytest.raises(TypeError, match="'pear' is 3: register a class or a function"):
        fruits.register("pear")(3)
