"""The command line in this process."""

import pytest

import wtdiag


@pytest.fixture
def run(capsys):
    """Run the command line; return exit code, standard output, standard error."""

    def call(*words):
        with pytest.raises(SystemExit) as end:
            wtdiag.main([str(word) for word in words])
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return call
