"""Vaults and credentials through the real SDK: secrets go in, and nothing brings them out again."""

import anthropic
from common import TOOLSET, Case

SECRET = "s3cr3t-0123456789-of-the-sdk"


def variable(name: str, secret: str = SECRET, **rest) -> dict:
    networking = {"type": "limited", "allowed_hosts": ["api.example.com"]}
    return {"type": "environment_variable", "secret_name": name, "secret_value": secret, "networking": networking, **rest}


class Vaults(Case):
    def vault(self, **rest):
        return self.beta.vaults.create(display_name="of a test", **rest)

    def test_a_vault_is_made_changed_listed_archived_and_deleted(self):
        vault = self.vault(metadata={"team": "a"})
        self.assertEqual((vault.type, vault.archived_at, vault.metadata), ("vault", None, {"team": "a"}))
        self.assertEqual(self.beta.vaults.retrieve(vault.id), vault)
        changed = self.beta.vaults.update(vault.id, display_name="other", metadata={"team": None, "k": "v"})
        self.assertEqual((changed.display_name, changed.metadata), ("other", {"k": "v"}))
        others = [self.vault().id for _ in range(3)]
        listed = [found.id for found in self.beta.vaults.list(limit=2)]
        self.assertLessEqual({vault.id, *others}, set(listed))
        self.assertEqual(len(listed), len(set(listed)))
        self.assertIsNotNone(self.beta.vaults.archive(vault.id).archived_at)
        self.assertNotIn(vault.id, [found.id for found in self.beta.vaults.list()])
        self.assertIn(vault.id, [found.id for found in self.beta.vaults.list(include_archived=True)])
        self.assertEqual(self.beta.vaults.delete(vault.id).type, "vault_deleted")
        with self.assertRaises(anthropic.NotFoundError):
            self.beta.vaults.retrieve(vault.id)

    def test_a_credential_lives_without_its_secret_being_seen(self):
        vault = self.vault()
        credentials = self.beta.vaults.credentials
        made = credentials.create(vault.id, auth=variable("API_TOKEN"), display_name="d")
        self.assertEqual((made.type, made.vault_id, made.auth.secret_name), ("vault_credential", vault.id, "API_TOKEN"))
        self.assertEqual(made.auth.networking.allowed_hosts, ["api.example.com"])
        self.assertEqual((made.auth.injection_location.header, made.auth.injection_location.body), (True, True))
        self.assertNotIn(SECRET, made.to_json())
        rotated = credentials.update(
            made.id,
            vault_id=vault.id,
            auth={"type": "environment_variable", "secret_value": SECRET + "-2", "injection_location": {"body": False}},
        )
        self.assertEqual((rotated.auth.injection_location.header, rotated.auth.injection_location.body), (True, False))
        self.assertNotIn(SECRET, rotated.to_json())
        with self.assertRaises(anthropic.ConflictError):
            credentials.create(vault.id, auth=variable("API_TOKEN"))
        bearer = {"type": "static_bearer", "mcp_server_url": "https://mcp.example.com/", "token": SECRET}
        server = credentials.create(vault.id, auth=bearer)
        self.assertEqual(server.auth.mcp_server_url, "https://mcp.example.com/")
        self.assertEqual({c.id for c in credentials.list(vault.id)}, {made.id, server.id})
        self.assertIsNotNone(credentials.archive(made.id, vault_id=vault.id).archived_at)
        self.assertEqual(credentials.retrieve(made.id, vault_id=vault.id).auth.secret_name, "API_TOKEN")
        again = credentials.create(vault.id, auth=variable("API_TOKEN"))
        self.assertEqual(credentials.delete(again.id, vault_id=vault.id).type, "vault_credential_deleted")
        for bad in [{"type": "mcp_oauth", "mcp_server_url": "https://h/", "access_token": SECRET}, variable("PATH")]:
            with self.assertRaises(anthropic.BadRequestError) as told:
                credentials.create(vault.id, auth=bad)
            self.assertNotIn(SECRET, str(told.exception))
        with self.assertRaises(anthropic.BadRequestError):
            credentials.mcp_oauth_validate(server.id, vault_id=vault.id)

    def test_a_session_is_given_vaults(self):
        vault = self.vault()
        agent = self.agent({"text": "hi"}, tools=[TOOLSET])
        environment = self.beta.environments.create(name="tests")
        session = self.beta.sessions.create(agent=agent.id, environment_id=environment.id, vault_ids=[vault.id])
        self.assertEqual(session.vault_ids, [vault.id])
        self.assertEqual(self.beta.sessions.retrieve(session.id).vault_ids, [vault.id])
        self.beta.vaults.archive(vault.id)
        with self.assertRaises(anthropic.BadRequestError):
            self.beta.sessions.create(agent=agent.id, environment_id=environment.id, vault_ids=[vault.id])
        with self.assertRaises(anthropic.NotFoundError):
            self.beta.sessions.create(agent=agent.id, environment_id=environment.id, vault_ids=["vlt_0"])

    def test_a_lost_answer_puts_one_credential_in(self):
        vault = self.vault()
        watched, spy = self.spied(lose=1)
        made = watched.beta.vaults.credentials.create(vault.id, auth=variable("ONCE"))
        self.assertEqual(len(spy.sent), 2)
        self.assertEqual([c.id for c in self.beta.vaults.credentials.list(vault.id)], [made.id])
