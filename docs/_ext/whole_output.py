"""A cell magic ``%%bash`` for tutorials, which shows in one piece what commands print where there is no terminal.

IPython's own sends pieces of 100 characters, which a page then shows on lines of their own.
"""

import os
import subprocess

from IPython.core.interactiveshell import InteractiveShell


def bash(line: str, cell: str) -> None:
    """Run commands, print their output, and fail if they do."""
    env = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}  # Jupyter sets it
    words = ["bash", "-e", "-c", cell]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, check=False)
    print(done.stdout, end="")
    done.check_returncode()


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magic in place of IPython's."""
    shell.register_magic_function(bash, "cell", "bash")
