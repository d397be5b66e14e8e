"""The smallest agent loop in Python: the `openai` SDK, a list of messages, nothing stored.

`sdk_loop.py` waits for whole answers, `sdk_loop.py --stream` reads them as they come.
"""

import json
import sys

from openai import OpenAI

from harness import DESCRIPTIONS, TOOLS, model_name, serve

ARGUMENT = {"read": "file_path", "bash": "command"}


def schema(name: str) -> dict:
    argument = ARGUMENT[name]
    parameters = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": DESCRIPTIONS[name], "parameters": parameters}}


def whole(client: OpenAI, request: dict) -> dict:
    message = client.chat.completions.create(**request).choices[0].message
    return message.model_dump(exclude_none=True)


def streamed(client: OpenAI, request: dict) -> dict:
    text, calls = "", {}
    for chunk in client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **request):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            for piece in choice.delta.tool_calls or []:
                call = calls.setdefault(piece.index, {"id": piece.id, "name": piece.function.name, "arguments": ""})
                call["arguments"] += piece.function.arguments or ""
    message = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = [
            {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
            for c in calls.values()
        ]
    return message


def main() -> None:
    client = OpenAI()
    ask = streamed if "--stream" in sys.argv else whole

    def turn(request: dict) -> int:
        messages = [{"role": "system", "content": "You are a benchmark."}, {"role": "user", "content": "go"}]
        done = 0
        while True:
            answer = ask(client, {"model": model_name(request), "messages": messages, "tools": [schema(request["tool"])]})
            messages.append(answer)
            if not answer.get("tool_calls"):
                return done
            for call in answer["tool_calls"]:
                function = call["function"]
                result = TOOLS[function["name"]](**json.loads(function["arguments"]))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
                done += 1

    serve(turn)


main()
