import importlib
import sys

import pytest


@pytest.mark.parametrize("name", ["proxycoop.flower", "proxycoop.traversal.flower", "proxycoop.traversal.flower_secure"])
def test_without_flwr_the_message_says_what_to_install(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "flwr", None)  # as if it were not installed, where it is
    monkeypatch.setitem(sys.modules, "flwr.app", None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ImportError, match=name.replace(".", r"\.") + r" needs flwr 1\.41 or newer .*pip install 'proxycoop\[flower\]'"):
        importlib.import_module(name)
