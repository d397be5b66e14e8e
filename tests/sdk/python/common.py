"""What every test of the Python SDK needs: a client, and agents whose model plays a script.

The server is given by the environment: LOOPD_URL, and the key that it wants in LOOPD_API_KEY.
"""

import json
import os
import time
import unittest

import anthropic
import httpx2

URL = os.environ["LOOPD_URL"]
KEY = os.environ["LOOPD_API_KEY"]
STEP_LIMIT_S = 60


class Spy(httpx2.HTTPTransport):
    """Sends requests as the SDK made them and keeps them; `lose` answers are dropped on their way back."""

    def __init__(self, lose: int = 0):
        super().__init__()
        self.sent: list[httpx2.Request] = []
        self.at: list[float] = []
        self.lose = lose

    def handle_request(self, request):
        self.sent.append(request)
        self.at.append(time.monotonic())
        response = super().handle_request(request)
        if self.lose > 0:
            self.lose -= 1
            response.read()
            response.close()
            raise httpx2.ReadError("the connection was lost before the answer came", request=request)
        return response


def client(**options) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=URL, api_key=KEY, timeout=STEP_LIMIT_S, **options)


def script(*steps, **rest) -> str:
    """The system prompt of `builtin/script`."""
    return json.dumps({"steps": list(steps), **rest})


def bash(command: str, **rest) -> dict:
    return {"text": "I run it.", "tools": [{"name": "bash", "input": {"command": command}}], **rest}


def text_message(text: str) -> dict:
    return {"type": "user.message", "content": [{"type": "text", "text": text}]}


TOOLSET = {"type": "agent_toolset_20260401"}


class Case(unittest.TestCase):
    """A test with a client of its own."""

    longMessage = True

    def setUp(self):
        self.client = client()
        self.beta = self.client.beta
        self.addCleanup(self.client.close)

    def spied(self, lose: int = 0) -> tuple[anthropic.Anthropic, Spy]:
        spy = Spy(lose)
        watched = client(http_client=httpx2.Client(transport=spy))
        self.addCleanup(watched.close)
        return watched, spy

    def agent(self, *steps, tools=(TOOLSET,), **rest):
        system = script(*steps, **rest)
        return self.beta.agents.create(name="scripted", model="builtin/script", system=system, tools=list(tools))

    def session(self, *steps, tools=(TOOLSET,), initial_events=(), **rest):
        agent = self.agent(*steps, tools=tools, **rest)
        environment = self.beta.environments.create(name="tests")
        return self.beta.sessions.create(
            agent=agent.id, environment_id=environment.id, initial_events=list(initial_events)
        )

    def say(self, session, text: str):
        return self.beta.sessions.events.send(session.id, events=[text_message(text)])

    def until_idle(self, session, **options) -> list:
        """The stream's events up to the session's next rest."""
        seen = []
        with self.beta.sessions.events.stream(session.id, **options) as stream:
            for event in stream:
                seen.append(event)
                if event.type == "session.status_idle":
                    return seen
        self.fail(f"the stream ended before the session was idle: {[e.type for e in seen]}")

    def raw(self, method: str, path: str, **options) -> httpx2.Response:
        headers = {"authorization": f"Bearer {KEY}", **options.pop("headers", {})}
        return httpx2.request(method, URL + path, headers=headers, timeout=STEP_LIMIT_S, **options)


def kinds(events) -> list[str]:
    return [event.type for event in events]


def said(events) -> str:
    blocks = [block for event in events if event.type == "agent.message" for block in event.content]
    return "".join(block.text for block in blocks)
