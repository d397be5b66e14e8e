"""Ten things that break an unmodified client silently, each through the real SDK."""

import datetime
import json
import time

import anthropic
import httpx2
from anthropic.types.beta import BetaEnvironment, BetaManagedAgentsAgent, BetaManagedAgentsSession
from common import KEY, URL, Case, kinds, said, text_message


class Traps(Case):
    def test_01_every_frame_has_an_event_line_that_is_its_type(self):
        session = self.session({"text": "hello"}, initial_events=[text_message("hi")])
        self.until_idle(session)
        headers = {"authorization": f"Bearer {KEY}", "last-event-id": "0"}
        path = f"{URL}/v1/sessions/{session.id}/events/stream"
        names = []
        with httpx2.stream("GET", path, headers=headers, timeout=30) as response:
            frame = {}
            for line in response.iter_lines():
                if line:
                    field, _, value = line.partition(": ")
                    frame[field] = value
                    continue
                if "data" in frame:
                    self.assertEqual(frame.get("event"), json.loads(frame["data"])["type"])
                    names.append(frame["event"])
                if frame.get("event") == "session.status_idle":
                    break
                frame = {}
        self.assertIn("agent.message", names)

    def test_02_the_stream_is_one_whatever_accept_says(self):
        client_, spy = self.spied()
        session = self.session({"text": "hello"}, initial_events=[text_message("hi")])
        with client_.beta.sessions.events.with_streaming_response.stream(session.id) as response:
            self.assertEqual(spy.sent[-1].headers["accept"], "application/json")
            self.assertEqual(response.headers["content-type"].split(";")[0], "text/event-stream")

    def test_03_both_ways_of_showing_a_key(self):
        client_, spy = self.spied()
        client_.beta.agents.list()
        self.assertEqual(spy.sent[-1].headers["authorization"], f"Bearer {KEY}")
        old = {"x-api-key": KEY, "authorization": anthropic.Omit()}
        client_.beta.agents.list(extra_headers=old)
        self.assertNotIn("authorization", spy.sent[-1].headers)
        with anthropic.Anthropic(base_url=URL, api_key="sk-nobody", max_retries=0) as stranger:
            with self.assertRaises(anthropic.AuthenticationError) as refused:
                stranger.beta.agents.list()
        self.assertEqual(refused.exception.type, "authentication_error")
        self.assertTrue(refused.exception.request_id.startswith("req_"))

    def test_04_any_version_date(self):
        for version in ["2026-10-21", "2023-06-01", "2031-01-01"]:
            self.beta.agents.list(extra_headers={"anthropic-version": version})

    def test_05_arrays_in_queries_with_brackets_and_without(self):
        client_, spy = self.spied()
        session = self.session({"text": "hello"}, initial_events=[text_message("hi")])
        self.until_idle(session)
        wanted = ["user.message", "agent.message"]
        listed = client_.beta.sessions.events.list(session.id, types=wanted)
        self.assertIn("types%5B%5D=user.message", str(spy.sent[-1].url))
        self.assertEqual(kinds(listed.data), wanted)
        path = f"/v1/sessions/{session.id}/events"
        for query in ["types[]=user.message&types[]=agent.message", "types=user.message&types=agent.message&beta=true"]:
            rows = self.raw("GET", f"{path}?{query}").json()["data"]
            self.assertEqual([row["type"] for row in rows], wanted, query)
        since = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
        none = client_.beta.sessions.events.list(session.id, created_at_gte=since)
        self.assertIn("created_at%5Bgte%5D=", str(spy.sent[-1].url))
        self.assertEqual(none.data, [])
        mine = {"agent_id": session.agent.id}
        found = client_.beta.sessions.list(**mine, statuses=["idle", "running"])
        self.assertIn("statuses%5B%5D=idle&statuses%5B%5D=running", str(spy.sent[-1].url))
        self.assertEqual([s.id for s in found.data], [session.id])
        self.assertEqual(client_.beta.sessions.list(**mine, statuses=["running"]).data, [])
        for name in ["statuses[]", "statuses%5B%5D", "statuses"]:
            path = f"/v1/sessions?agent_id={session.agent.id}&{name}="
            rows = self.raw("GET", f"{path}running&{name}=idle").json()["data"]
            self.assertEqual([row["id"] for row in rows], [session.id], name)
            self.assertEqual(self.raw("GET", f"{path}running&{name}=terminated").json()["data"], [], name)

    def test_06_every_field_of_every_object_is_there(self):
        agent = self.agent({"text": "hello"})
        environment = self.beta.environments.create(name="tests")
        session = self.beta.sessions.create(
            agent=agent.id, environment_id=environment.id, initial_events=[text_message("hi")]
        )
        events = self.until_idle(session)
        session = self.beta.sessions.retrieve(session.id)
        for model, found in [
            (BetaManagedAgentsAgent, agent),
            (BetaEnvironment, environment),
            (BetaManagedAgentsSession, session),
        ]:
            self.assertIsInstance(found, model)
        for found in [agent, environment, session, session.agent, session.usage, session.stats, *events]:
            required = {name for name, field in type(found).model_fields.items() if field.is_required()}
            self.assertEqual(required - found.model_fields_set, set(), type(found).__name__)
        self.assertEqual((session.resources, session.vault_ids, session.outcome_evaluations), ([], [], []))
        self.assertGreater(session.usage.input_tokens, 0)

    def test_07_a_retry_of_the_sdk_has_one_effect(self):
        session = self.session({"text": "one"}, {"text": "two"}, {"text": "three"})
        unlucky, spy = self.spied(lose=1)
        sent = unlucky.beta.sessions.events.send(session.id, events=[text_message("only once")])
        self.assertEqual([r.headers["x-stainless-retry-count"] for r in spy.sent], ["0", "1"])
        self.until_idle(session)
        messages = self.beta.sessions.events.list(session.id, types=["user.message"]).data
        self.assertEqual([m.id for m in messages], [sent.data[0].id])

        agent = self.agent({"text": "x"})
        careful, spy = self.spied()
        with self.assertRaises(anthropic.ConflictError) as refused:
            careful.beta.agents.update(agent.id, version=7, name="late")
        self.assertEqual(len(spy.sent), 1, "a conflict that time does not mend is not tried again")
        self.assertEqual(refused.exception.response.headers["x-should-retry"], "false")

    def test_08_a_quiet_stream_is_kept_alive(self):
        session = self.session({"text": "hello"})
        started = time.monotonic()
        with self.beta.sessions.events.with_streaming_response.stream(session.id, timeout=40) as response:
            for line in response.iter_lines():
                if line == "event: ping" or line.startswith(":"):
                    break
            else:
                self.fail("the stream ended")
        self.assertLess(time.monotonic() - started, 30)

    def test_09_times_are_rfc_3339(self):
        environment = self.beta.environments.create(name="tests")
        self.assertIsInstance(environment.created_at, str)
        datetime.datetime.fromisoformat(environment.created_at)
        session = self.session({"text": "hello"}, initial_events=[text_message("hi")])
        self.assertIsInstance(session.created_at, datetime.datetime)
        for event in self.until_idle(session):
            self.assertIsInstance(event.processed_at, datetime.datetime, event.type)

    def test_10_who_sends_first_and_looks_later_sees_that_turn(self):
        session = self.session({"text": "first"}, {"text": "second"})
        for expected in ["first", "second"]:
            sent = self.say(session, "go on")
            deadline = time.monotonic() + 30
            while self.beta.sessions.retrieve(session.id).status != "idle":
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)
            events = self.until_idle(session)
            self.assertEqual(said(events), expected, "the turn of this message, and no older one")
            self.assertIn(sent.data[0].id, [event.id for event in events])
