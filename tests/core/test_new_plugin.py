"""Where `epitaxy new-plugin` stops before it writes."""

from pathlib import Path

import pytest

from epitaxy.commands.new_plugin import write_plugin
from epitaxy.errors import ConfigError, EpitaxyError


@pytest.mark.parametrize("name", ["painn", "silicon", "ensemble"])
def test_the_name_of_an_installed_component_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=f"{name}.*choose another name"):
        write_plugin(name, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_the_folder_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(EpitaxyError, match="new: No space left on device; nothing was written"):
        write_plugin("my-potential", tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
