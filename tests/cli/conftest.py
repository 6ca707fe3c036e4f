"""The folder that the tests of the command line work in."""

import pytest

from tests.shared import command_line


@pytest.fixture(scope="session")
def shared_files(tmp_path_factory):
    """Everything that users hand to the commands, written once."""
    folder = tmp_path_factory.mktemp("files")
    command_line.write_files(folder)
    return folder


@pytest.fixture
def files(shared_files, tmp_path, monkeypatch):
    """A folder to work in: the current one, with `out` for results and links to the shared files."""
    for path in shared_files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path
