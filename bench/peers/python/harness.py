"""What every Python peer shares: the two tools, and the conversation with the benchmark.

The benchmark writes one JSON object a line, `{"tool": "read", "steps": 10}`; the peer runs one whole turn against the
provider named by OPENAI_BASE_URL and answers one line, `{"calls": 10}`. The provider reads tool and steps from the
model's name. A peer that fails dies with its traceback: there is no answer for a broken turn.
"""

import json
import subprocess
import sys

DESCRIPTIONS = {"read": "Reads a file.", "bash": "Runs a shell command."}


def read(file_path: str) -> str:
    with open(file_path, encoding="utf-8") as file:
        return file.read()


def bash(command: str) -> str:
    done = subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, check=True, text=True)
    return done.stdout


TOOLS = {"read": read, "bash": bash}


def model_name(request: dict) -> str:
    return f"{request['tool']}-{request['steps']}"


def serve(turn) -> None:
    """Answers requests until standard input ends. `turn(request)` returns the number of tool calls that it ran."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        calls = turn(request)
        if calls != request["steps"]:
            raise SystemExit(f"a turn of {request['steps']} steps ran {calls} tool calls")
        print(json.dumps({"calls": calls}), flush=True)
