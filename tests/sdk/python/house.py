"""Servers of a test's own, with a configuration of its own: the executable is the one that LOOPD_BINARY names."""

import os
import pathlib
import subprocess
import tempfile

BINARY = os.environ["LOOPD_BINARY"]


def clean(**more) -> dict:
    """No setting of whoever runs the tests takes part in them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOOPD_", "ANTHROPIC_"))}
    return {**kept, "LOOPD_LOG": "warn", "NO_COLOR": "1", **more}


class House:
    """A server, and its directory."""

    def __init__(self, config: str = "", **environment):
        self.directory = tempfile.TemporaryDirectory(prefix="loopd-sdk-")
        self.place = pathlib.Path(self.directory.name)
        (self.place / "loopd.toml").write_text(config)
        command = [BINARY, "serve", "--listen", "127.0.0.1:0", "--data", "data"]
        self.process = subprocess.Popen(command, cwd=self.place, env=clean(**environment), stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline().strip()
        self.url = line.removeprefix("loopd serves ")
        if not self.url.startswith("http://"):
            raise AssertionError(f"loopd said `{line}` and not where it serves")

    def run(self, *arguments: str) -> str:
        """A command of the operator's, to its end."""
        command = [BINARY, *arguments, "--data", "data"]
        done = subprocess.run(command, cwd=self.place, env=clean(), capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"{command}: {done.stderr}")
        return done.stdout

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()
        self.directory.cleanup()
