"""Whole programs, as the SDK's own examples are written."""

import asyncio

import anthropic
from anthropic.lib.sessions import accumulate_managed_agents_event
from common import TOOLSET, URL, KEY, Case, bash, kinds, said, text_message

LOOKUP = {
    "type": "custom",
    "name": "lookup",
    "description": "Looks an order up.",
    "input_schema": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
}
ASK = {**TOOLSET, "default_config": {"permission_policy": {"type": "always_ask"}}}


class Flow(Case):
    def test_agent_environment_session_send_stream(self):
        agent = self.beta.agents.create(name="shell", model="builtin/shell", tools=[TOOLSET])
        environment = self.beta.environments.create(name="simple")
        session = self.beta.sessions.create(agent={"type": "agent", "id": agent.id}, environment_id=environment.id)
        self.assertEqual((session.status, session.agent.version), ("idle", 1))
        self.say(session, "```sh\necho $((6 * 7)) > answer; cat answer\n```")
        events = self.until_idle(session)
        order = ["user.message", "session.status_running", "span.model_request_start", "agent.tool_use",
                 "agent.tool_result", "agent.message", "session.usage", "session.status_idle"]
        found = [kind for kind in kinds(events) if kind in order]
        self.assertEqual(sorted(set(found)), sorted(order))
        result = next(event for event in events if event.type == "agent.tool_result")
        self.assertIn("42", result.content[0].text)
        self.assertIn("42", said(events))
        self.assertEqual(events[-1].stop_reason.type, "end_turn")

    def test_a_session_remembers_its_room(self):
        session = self.session(bash("echo kept > note"), {"text": "a"}, bash("cat note"), {"text": "{{last_result}}"})
        self.say(session, "write")
        self.until_idle(session)
        self.say(session, "read")
        self.assertIn("kept", said(self.until_idle(session)))

    def test_previews_add_up_to_the_message(self):
        session = self.session({"text": "one two three four", "chunk_delay_ms": 5})
        grown, last = None, None
        with self.beta.sessions.events.stream(session.id, event_deltas=["agent.message"]) as stream:
            self.say(session, "speak")
            deltas = 0
            for event in stream:
                if event.type == "event_delta":
                    deltas += 1
                    grown = accumulate_managed_agents_event(grown, event)
                    last = "".join(block.text for block in grown.content)
                elif event.type in ("event_start", "agent.message"):
                    grown = accumulate_managed_agents_event(grown, event)
                if event.type == "session.status_idle":
                    break
        self.assertGreater(deltas, 1)
        self.assertEqual((last, grown.content[0].text), ("one two three four",) * 2)

    def test_how_far_a_room_is_breaks_no_stream(self):
        # No index has it, so there is no room in the end.
        environment = self.beta.environments.create(
            name="slow", config={"type": "cloud", "packages": {"type": "packages", "pip": ["absent-of-the-python-sdk"]}}
        )
        session = self.beta.sessions.create(agent=self.agent({"text": "never"}).id, environment_id=environment.id)
        seen = []
        previews = ["agent.message", "loopd.room_progress"]
        with self.beta.sessions.events.stream(session.id, event_deltas=previews) as stream:
            self.say(session, "go")
            for event in stream:
                seen.append(event)
                if event.type == "session.status_idle":
                    break
        told = [event for event in seen if event.type == "loopd.room_progress"]
        self.assertEqual({(event.stage, event.what) for event in told}, {("install", "packages by pip")})
        order = [kind for kind in kinds(seen) if kind in ("user.message", "session.error", "session.status_idle")]
        self.assertEqual(order, ["user.message", "session.error", "session.status_idle"])
        self.assertEqual(seen[-1].stop_reason.type, "retries_exhausted")

    def test_a_custom_tool_is_run_by_the_client(self):
        call = {"tools": [{"name": "lookup", "input": {"order": "7"}}]}
        session = self.session(call, {"text": "It is {{last_result}}."}, tools=[LOOKUP])
        self.say(session, "where is order 7?")
        events = self.until_idle(session)
        use = next(event for event in events if event.type == "agent.custom_tool_use")
        self.assertEqual((use.name, use.input), ("lookup", {"order": "7"}))
        self.assertEqual(events[-1].stop_reason.type, "requires_action")
        self.assertEqual(events[-1].stop_reason.event_ids, [use.id])
        answer = {"type": "user.custom_tool_result", "custom_tool_use_id": use.id,
                  "content": [{"type": "text", "text": "on its way"}]}
        with self.beta.sessions.events.stream(session.id) as stream:
            self.beta.sessions.events.send(session.id, events=[answer])
            after = []
            for event in stream:
                after.append(event)
                if event.type == "session.status_idle" and event.stop_reason.type == "end_turn":
                    break
        self.assertIn("It is on its way.", said(after))
        with self.assertRaises(anthropic.BadRequestError):
            self.beta.sessions.events.send(session.id, events=[answer])

    def test_the_sdks_tool_runner(self):
        call = {"tools": [{"name": "lookup", "input": {"order": "7"}}]}
        session = self.session(call, {"text": "It is {{last_result}}."}, tools=[LOOKUP],
                               initial_events=[text_message("where is order 7?")])

        @anthropic.beta_async_tool
        async def lookup(order: str) -> str:
            """Looks an order up."""
            return f"order {order} is packed"

        async def run():
            async with anthropic.AsyncAnthropic(base_url=URL, api_key=KEY) as client:
                calls = []
                async for call in client.beta.sessions.events.tool_runner(session.id, tools=[lookup], max_idle=1):
                    calls.append(call)
                return calls

        calls = asyncio.run(asyncio.wait_for(run(), 60))
        self.assertEqual([call.name for call in calls], ["lookup"])
        events = self.beta.sessions.events.list(session.id, types=["agent.message"]).data
        self.assertEqual(said(events), "It is order 7 is packed.")

    def test_a_call_that_needs_a_yes(self):
        session = self.session(bash("echo ran > flag; echo yes"), {"text": "{{last_result}}"}, tools=[ASK])
        self.say(session, "do it")
        use = next(event for event in self.until_idle(session) if event.type == "agent.tool_use")
        self.assertEqual(use.evaluated_permission, "ask")
        with self.beta.sessions.events.stream(session.id) as stream:
            self.beta.sessions.events.send(
                session.id, events=[{"type": "user.tool_confirmation", "tool_use_id": use.id, "result": "allow"}]
            )
            texts = []
            for event in stream:
                texts.append(event)
                if event.type == "session.status_idle" and event.stop_reason.type == "end_turn":
                    break
        self.assertIn("yes", said(texts))

    def test_a_call_that_gets_a_no(self):
        session = self.session(bash("echo ran > flag"), {"text": "{{last_result}}"}, tools=[ASK])
        self.say(session, "do it")
        use = next(event for event in self.until_idle(session) if event.type == "agent.tool_use")
        no = {"type": "user.tool_confirmation", "tool_use_id": use.id, "result": "deny", "deny_message": "not on a Friday"}
        with self.beta.sessions.events.stream(session.id) as stream:
            self.beta.sessions.events.send(session.id, events=[no])
            seen = []
            for event in stream:
                seen.append(event)
                if event.type == "session.status_idle" and event.stop_reason.type == "end_turn":
                    break
        result = next(event for event in seen if event.type == "agent.tool_result")
        self.assertTrue(result.is_error)
        self.assertIn("not on a Friday", said(seen))

    def test_an_interrupt_ends_the_turn_and_not_the_session(self):
        session = self.session(bash("sleep 300"), {"text": "never"}, then="still here")
        with self.beta.sessions.events.stream(session.id) as stream:
            self.say(session, "wait")
            seen = []
            for event in stream:
                seen.append(event)
                if event.type == "agent.tool_use":
                    self.beta.sessions.events.send(session.id, events=[{"type": "user.interrupt"}])
                if event.type == "session.status_idle":
                    break
        self.assertEqual(seen[-1].stop_reason.type, "end_turn")
        result = next(event for event in seen if event.type == "agent.tool_result")
        self.assertTrue(result.is_error)
        self.say(session, "again")
        self.assertEqual(self.until_idle(session)[-1].stop_reason.type, "end_turn")

    def test_lists_are_paged(self):
        made = [self.beta.environments.create(name=f"page {n}").id for n in range(5)]
        first = self.beta.environments.list(limit=2)
        self.assertEqual(len(first.data), 2)
        self.assertTrue(first.next_page)
        listed = [environment.id for _, environment in zip(range(5), self.beta.environments.list(limit=2))]
        self.assertEqual(listed, made[::-1])
        session = self.session(*[{"text": str(n)} for n in range(3)], initial_events=[text_message("hi")])
        self.until_idle(session)
        whole = [event.id for event in self.beta.sessions.events.list(session.id, limit=1000)]
        paged = [event.id for event in self.beta.sessions.events.list(session.id, limit=2)]
        self.assertEqual(paged, whole)
        self.assertEqual([e.id for e in self.beta.sessions.events.list(session.id, limit=3, order="desc")], whole[::-1])

    def test_sessions_are_listed_both_ways(self):
        agent = self.agent({"text": "x"})
        environment = self.beta.environments.create(name="tests")
        made = [self.beta.sessions.create(agent=agent.id, environment_id=environment.id).id for _ in range(3)]
        newest = self.beta.sessions.list(agent_id=agent.id, limit=2)
        self.assertEqual([s.id for s in newest.data], [made[2], made[1]])
        self.assertIsNone(newest.prev_page)
        older = newest.get_next_page()
        self.assertEqual([s.id for s in older.data], [made[0]])
        self.assertTrue(older.prev_page)
        self.assertEqual([s.id for s in self.beta.sessions.list(agent_id=agent.id, order="asc")], made)

    def test_versions_of_an_agent(self):
        agent = self.agent({"text": "x"})
        renamed = self.beta.agents.update(agent.id, version=1, name="renamed")
        self.assertEqual((renamed.version, renamed.name), (2, "renamed"))
        self.assertEqual(self.beta.agents.update(agent.id, name="renamed").version, 2, "nothing changed")
        self.assertEqual(self.beta.agents.retrieve(agent.id, version=1).name, "scripted")
        self.assertEqual([a.version for a in self.beta.agents.versions.list(agent.id)], [2, 1])
        self.assertIsNotNone(self.beta.agents.archive(agent.id).archived_at)
        with self.assertRaises(anthropic.BadRequestError):
            self.beta.agents.update(agent.id, name="too late")

    def test_overrides_of_a_session(self):
        agent = self.agent({"text": "x"})
        environment = self.beta.environments.create(name="tests")
        session = self.beta.sessions.create(
            agent={"type": "agent_with_overrides", "id": agent.id, "model": "builtin/shell", "system": None},
            environment_id=environment.id,
        )
        self.assertEqual((session.agent.model.id, session.agent.system), ("builtin/shell", None))
        self.assertEqual((session.agent.id, session.agent.version), (agent.id, 1))

    def test_deleting_and_archiving(self):
        session = self.session({"text": "x"}, initial_events=[text_message("hi")])
        self.until_idle(session)
        updated = self.beta.sessions.update(session.id, title="named", metadata={"k": "v"})
        self.assertEqual((updated.title, updated.metadata), ("named", {"k": "v"}))
        archived = self.beta.sessions.archive(session.id)
        self.assertEqual(archived.status, "terminated")
        with self.assertRaises(anthropic.BadRequestError):
            self.say(session, "hello?")
        self.assertTrue(self.beta.sessions.events.list(session.id).data)
        self.assertEqual(self.beta.sessions.delete(session.id).type, "session_deleted")
        with self.assertRaises(anthropic.NotFoundError):
            self.beta.sessions.retrieve(session.id)
        environment = self.beta.environments.create(name="short-lived")
        self.assertEqual(self.beta.environments.delete(environment.id).type, "environment_deleted")

    def test_what_a_provider_refuses_is_an_event(self):
        fault = {"fault": {"class": "authentication", "status": 401, "message": "no such key"}}
        session = self.session(fault, initial_events=[text_message("hi")])
        events = self.until_idle(session)
        error = next(event for event in events if event.type == "session.error")
        self.assertIn("no such key", error.error.message)
        self.assertEqual(events[-1].stop_reason.type, "retries_exhausted")

    def test_models_are_listed(self):
        self.assertIn("builtin/shell", [model.id for model in self.client.models.list(limit=100)])
