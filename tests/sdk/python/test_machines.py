"""Sessions in rooms with a kernel of their own. LOOPD_TEST_MACHINES is set where the server has an image of a guest."""

import os
import unittest

from common import TOOLSET, Case, said

LIMITS = {"memory_bytes": 256 << 20, "disk_bytes": 256 << 20, "cpu_millis": 1_000}


@unittest.skipUnless(os.environ.get("LOOPD_TEST_MACHINES"), "the server has no image of a guest")
class Machines(Case):
    def test_an_environment_asks_for_a_kernel_of_its_own(self):
        config = {"type": "cloud", "isolation": "microvm", "limits": LIMITS, "networking": {"type": "none"}}
        environment = self.beta.environments.create(name="machine", config=config)
        kept = self.beta.environments.retrieve(environment.id).config.to_dict(warnings=False)
        self.assertEqual((kept["isolation"], kept["limits"]["memory_bytes"]), ("microvm", LIMITS["memory_bytes"]))
        agent = self.beta.agents.create(name="shell", model="builtin/shell", tools=[TOOLSET])
        session = self.beta.sessions.create(agent=agent.id, environment_id=environment.id)
        self.say(session, "```sh\nuname -r; echo kept > note\n```")
        answer = said(self.until_idle(session))
        self.assertRegex(answer, r"\d+\.\d+\.\d+")
        self.assertNotIn(os.uname().release, answer)
        self.say(session, "```sh\ncat note\n```")
        self.assertIn("kept", said(self.until_idle(session)))
        events = self.raw("GET", f"/v1/sessions/{session.id}/events").json()["data"]
        rooms = [event for event in events if event["type"] == "loopd.room_started"]
        self.assertEqual([(room["isolation"], room["woken"]) for room in rooms], [("microvm", False)])
        self.beta.sessions.delete(session.id)
