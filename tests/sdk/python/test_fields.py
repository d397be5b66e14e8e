"""Every field of every object and event is in the JSON that the SDK is given, by the table of `fields.json`."""

import http.server
import json
import threading

import anthropic
from common import TOOLSET, Case, script, text_message
from fields import TABLE, missing
from test_flow import LOOKUP
from test_vaults import variable

ALLOW = {"permission_policy": {"type": "always_allow"}}
ASK = {"permission_policy": {"type": "always_ask"}}
# What the types of events begin with that the wire format names, previews among them.
DOMAINS = ("user.", "system.", "agent.", "session.", "span.", "event_")
ECHO = {"name": "echo", "description": "Says it again.", "inputSchema": {"type": "object"}}


class ToolServer:
    """An MCP server with one tool, on a port of this machine."""

    def __init__(self):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                results = {
                    "initialize": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                                   "serverInfo": {"name": "tests", "version": "1"}},
                    "tools/list": {"tools": [ECHO]},
                    "tools/call": {"content": [{"type": "text", "text": "echo"}]},
                }
                answer = {"jsonrpc": "2.0", "id": asked.get("id"), "result": results.get(asked["method"])}
                body = json.dumps(answer).encode() if "id" in asked else b""
                self.send_response(200 if body else 202)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/mcp"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def call(name: str, **arguments) -> dict:
    return {"name": name, "input": arguments}


# One answer of the model each: tools of every kind, one of which fails; an answer after a provider that was busy once;
# a call that is interrupted; a refusal; and a provider that will not.
STEPS = [
    {"thinking": "hm", "text": "I do it.", "tools": [
        call("bash", command="echo hi"), call("read", file_path="/no/such"), call("mcp__tests__echo"),
        call("write", file_path="a", content="a"), call("write", file_path="b", content="b"), call("lookup", order="7"),
    ]},
    {"text": "done", "fault": {"class": "overloaded", "status": 529, "retry_after_ms": 10, "message": "busy", "times": 1}},
    {"tools": [call("lookup", order="8")]},
    {"text": "I will not.", "stop": "refusal"},
    {"fault": {"class": "authentication", "status": 401, "message": "no such key"}},
]


class Fields(Case):
    def has_all(self, found, row: str):
        self.assertEqual(missing(found, row), [], json.dumps(found))
        return found

    def tour(self):
        """A session that has seen every event, and its stream as the SDK read it."""
        tests = ToolServer()
        self.addCleanup(tests.close)
        servers = {"tests": tests.url, "absent": "http://127.0.0.1:9/mcp"}
        tools = [{**TOOLSET, "configs": [{"name": "write", **ASK}]}, LOOKUP]
        for name in servers:
            tools.append({"type": "mcp_toolset", "mcp_server_name": name, "default_config": ALLOW, "configs": [{"name": "echo"}]})
        agent = self.beta.agents.create(
            name="scripted", model="builtin/script", system=script(*STEPS), tools=tools,
            mcp_servers=[{"type": "url", "name": name, "url": url} for name, url in servers.items()],
        )
        environment = self.beta.environments.create(name="tests")
        session = self.beta.sessions.create(agent=agent.id, environment_id=environment.id)
        seen = []
        with self.beta.sessions.events.stream(session.id, event_deltas=["agent.message"]) as stream:

            def send(*events) -> list:
                """The events up to the next rest, after these."""
                echoed = self.beta.sessions.events.with_raw_response.send(session.id, events=list(events)).json()
                for event in echoed["data"]:
                    # What waits has no time yet; it says so.
                    self.has_all({**event, "processed_at": event["processed_at"] or "later"}, event["type"])
                turn = []
                for event in stream:
                    turn.append(event.to_dict(mode="json", warnings=False))
                    if event.type == "session.status_idle":
                        break
                seen.extend(turn)
                return turn

            def uses(turn: list, kind: str, permission=None) -> list[str]:
                return [e["id"] for e in turn if e["type"] == kind and e.get("evaluated_permission") == permission]

            turn = send(text_message("go"), {"type": "system.message", "content": [{"type": "text", "text": "note"}]})
            yes, no = uses(turn, "agent.tool_use", "ask")
            lookup, = uses(turn, "agent.custom_tool_use")
            send({"type": "user.tool_confirmation", "tool_use_id": yes, "result": "allow"})
            send({"type": "user.tool_confirmation", "tool_use_id": no, "result": "deny", "deny_message": "not that"})
            turn = send({"type": "user.custom_tool_result", "custom_tool_use_id": lookup, "content": [{"type": "text", "text": "x"}]})
            self.assertEqual(turn[-1]["stop_reason"], {"type": "end_turn"})
            send(text_message("wait"))
            send({"type": "user.interrupt"})
            idle = send(text_message("worse"))[-1]
            self.assertEqual((idle["stop_reason"], idle["stop_details"]["type"]), ({"type": "refusal"}, "refusal"))
            self.assertEqual(send(text_message("more"))[-1]["stop_reason"], {"type": "retries_exhausted"})
        self.beta.sessions.update(session.id, title="named", metadata={"k": "v"}, agent={"tools": [TOOLSET], "mcp_servers": []})
        self.beta.sessions.archive(session.id)
        return session, seen

    def test_events(self):
        session, streamed = self.tour()
        listed = self.has_all(self.beta.sessions.events.with_raw_response.list(session.id, limit=1000).json(), "page")["data"]
        for event in streamed + listed:
            if not event["type"].startswith("loopd."):
                with self.subTest(event["type"]):
                    self.has_all(event, event["type"])
        kinds = {event["type"] for event in streamed + listed}
        self.assertEqual({row for row in TABLE if row.startswith(DOMAINS)} - kinds, {"session.deleted"})
        faults = [event["is_error"] for event in listed if event["type"] == "agent.tool_result"]
        self.assertEqual(sorted(faults), [False, False, True, True, True], "no file, denied, interrupted")
        denied, = (event for event in listed if event.get("result") == "deny")
        self.assertEqual(denied["deny_message"], "not that")
        errors = {(event["error"]["type"], event["error"]["retry_status"]["type"]) for event in listed if "error" in event}
        self.assertLessEqual({("model_overloaded_error", "retrying"), ("model_request_failed_error", "exhausted")}, errors)
        self.assertEqual({event["error"].get("mcp_server_name") for event in listed if "error" in event}, {None, "absent"})

        threads = self.has_all(self.beta.sessions.threads.with_raw_response.list(session.id).json(), "page")["data"]
        thread = self.beta.sessions.threads.with_raw_response.retrieve(threads[0]["id"], session_id=session.id).json()
        events = self.beta.sessions.threads.events.with_raw_response.list(thread["id"], session_id=session.id).json()
        self.has_all(events, "page")
        for found in [*threads, thread]:
            self.has_all(found, "session_thread")
        self.has_all(self.beta.sessions.with_raw_response.retrieve(session.id).json(), "session")

    def test_the_last_event(self):
        session = self.session({"text": "never"})
        with self.beta.sessions.events.stream(session.id) as stream:
            self.beta.sessions.delete(session.id)
            *_, last = [event.to_dict(mode="json", warnings=False) for event in stream]
        self.has_all(last, "session.deleted")
        self.assertEqual(last["type"], "session.deleted")

    def rows(self, resource, row: str, made, page="page", own=(), **options):
        """What making, retrieving and listing show."""
        found = resource.with_raw_response.retrieve(made["id"], **options).json()
        listed = self.has_all(resource.with_raw_response.list(*own).json(), page)["data"]
        self.assertTrue(listed)
        for each in [made, found, *listed]:
            self.has_all(each, row)

    def test_objects(self):
        beta = self.beta
        tools = [TOOLSET, LOOKUP, {"type": "mcp_toolset", "mcp_server_name": "m", "configs": [{"name": "echo", "enabled": False}]}]
        servers = [{"type": "url", "name": "m", "url": "http://127.0.0.1:9/mcp"}]
        agents = beta.agents.with_raw_response
        agent = agents.create(name="full", model="builtin/shell", tools=tools, mcp_servers=servers).json()
        self.assertEqual([len(agent[name]) for name in ("tools", "mcp_servers")], [3, 1])
        self.rows(beta.agents, "agent", agent)
        self.has_all(agents.update(agent["id"], name="new").json(), "agent")
        for version in self.has_all(beta.agents.versions.with_raw_response.list(agent["id"]).json(), "page")["data"]:
            self.has_all(version, "agent")

        limited = {"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["example.com"]}}
        for options in [{}, {"config": limited}]:
            place = beta.environments.with_raw_response.create(name="tests", **options).json()
            self.rows(beta.environments, "environment", place)

        session = beta.sessions.with_raw_response.create(agent=agent["id"], environment_id=place["id"]).json()
        self.rows(beta.sessions, "session", session, page="page.sessions")
        self.assertEqual([session[name] for name in ("resources", "vault_ids", "outcome_evaluations")], [[], [], []])
        self.has_all(beta.sessions.with_raw_response.update(session["id"], title="t").json(), "session")

        vault = beta.vaults.with_raw_response.create(display_name="of a test").json()
        self.rows(beta.vaults, "vault", vault)
        credentials, of = beta.vaults.credentials, {"vault_id": vault["id"]}
        bearer = {"type": "static_bearer", "mcp_server_url": "https://mcp.example.com/", "token": "0123456789"}
        for auth in [variable("A"), {**variable("B"), "networking": {"type": "unrestricted"}}, bearer]:
            credential = credentials.with_raw_response.create(vault["id"], auth=auth).json()
            self.rows(credentials, "vault_credential", credential, own=[vault["id"]], **of)

        for archived, row in [
            (credentials.with_raw_response.archive(credential["id"], **of), "vault_credential"),
            (beta.vaults.with_raw_response.archive(vault["id"]), "vault"),
            (beta.sessions.with_raw_response.archive(session["id"]), "session"),
            (beta.environments.with_raw_response.archive(place["id"]), "environment"),
            (agents.archive(agent["id"]), "agent"),
        ]:
            self.assertIsNotNone(self.has_all(archived.json(), row)["archived_at"], row)

    def test_models(self):
        first = self.client.models.with_raw_response.list().json()["data"][0]
        self.rows(self.client.models, "model", first, "page.models")

    def test_a_refusal(self):
        with self.assertRaises(anthropic.NotFoundError) as refused:
            self.beta.agents.retrieve("agent_0")
        self.has_all(refused.exception.body, "refusal")
