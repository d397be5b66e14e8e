"""Who calls: workspaces that do not see each other, rates, and tokens of an issuer whose keys change."""

import base64
import http.server
import json
import pathlib
import subprocess
import tempfile
import threading
import time
import unittest

import anthropic
import httpx2
from common import STEP_LIMIT_S, TOOLSET, Spy, text_message
from house import House

AUDIENCE = "loopd-tests"


class Identity(unittest.TestCase):
    def house(self, config: str = "", **environment) -> House:
        house = House(config, **environment)
        self.addCleanup(house.close)
        return house

    def client(self, house: House, **options) -> anthropic.Anthropic:
        client = anthropic.Anthropic(base_url=house.url, timeout=STEP_LIMIT_S, **options)
        self.addCleanup(client.close)
        return client

    def test_who_calls_too_often_is_told_when_to_come_back_and_the_sdk_does(self):
        house = self.house("[limits]\nrequests_per_second = 1\nrequests_burst = 2\n")
        hasty = self.client(house, api_key="any", max_retries=0)
        with self.assertRaises(anthropic.RateLimitError) as refused:
            for _ in range(50):
                hasty.beta.agents.list()
        self.assertEqual(refused.exception.response.headers["retry-after"], "1")
        self.assertNotEqual(refused.exception.response.headers.get("x-should-retry"), "false")
        self.assertEqual(refused.exception.body["error"]["type"], "rate_limit_error")
        # As it is made: it waits as it was told, and its caller notices nothing.
        spy = Spy()
        patient = self.client(house, api_key="any", max_retries=5, http_client=httpx2.Client(transport=spy))
        agents = [patient.beta.agents.create(name=f"a{n}", model="builtin/shell").id for n in range(4)]
        retries = [request.headers["x-stainless-retry-count"] for request in spy.sent]
        self.assertIn("1", retries)
        # Of its own accord it would come back after half a second at first.
        waits = [after - before for before, after, retry in zip(spy.at, spy.at[1:], retries[1:]) if retry != "0"]
        self.assertGreater(min(waits), 0.95, waits)
        self.assertEqual(len(set(agents)), 4)
        self.assertEqual(sum(1 for _ in patient.beta.agents.list()), 4, "what was refused was not done")

    def test_a_key_sees_nothing_of_another_workspace(self):
        house = self.house()
        house.run("workspaces", "create", "other")
        key = house.run("keys", "create", "--name", "stranger", "--workspace", "other").strip()
        own = house.run("keys", "create", "--name", "owner").strip()
        owner, stranger = (self.client(house, api_key=key, max_retries=0) for key in (own, key))
        mine, theirs = owner.beta, stranger.beta
        agent = mine.agents.create(name="a", model="builtin/shell", tools=[TOOLSET])
        environment = mine.environments.create(name="e")
        vault = mine.vaults.create(display_name="v")
        networking = {"type": "limited", "allowed_hosts": ["api.example.com"]}
        variable = {"type": "environment_variable", "secret_name": "T", "secret_value": "0123456789", "networking": networking}
        credential = mine.vaults.credentials.create(vault.id, auth=variable)
        session = mine.sessions.create(agent=agent.id, environment_id=environment.id, vault_ids=[vault.id])
        mine.sessions.events.send(session.id, events=[text_message("```sh\necho hi\n```")])
        events = []
        with mine.sessions.events.stream(session.id) as stream:
            for event in stream:
                events.append(event.type)
                if event.type == "session.status_idle":
                    break
        self.assertIn("agent.tool_use", events)
        thread = next(iter(mine.sessions.threads.list(session.id)))
        foreign = theirs.agents.create(name="b", model="builtin/shell")
        place = theirs.environments.create(name="e")
        v, c, s = vault.id, credential.id, session.id
        calls = {
            "agents.retrieve": lambda: theirs.agents.retrieve(agent.id),
            "agents.update": lambda: theirs.agents.update(agent.id, version=1, name="mine"),
            "agents.archive": lambda: theirs.agents.archive(agent.id),
            "agents.versions": lambda: list(theirs.agents.versions.list(agent.id)),
            "environments.retrieve": lambda: theirs.environments.retrieve(environment.id),
            "environments.update": lambda: theirs.environments.update(environment.id, name="mine"),
            "environments.archive": lambda: theirs.environments.archive(environment.id),
            "environments.delete": lambda: theirs.environments.delete(environment.id),
            "vaults.retrieve": lambda: theirs.vaults.retrieve(v),
            "vaults.update": lambda: theirs.vaults.update(v, display_name="mine"),
            "vaults.archive": lambda: theirs.vaults.archive(v),
            "vaults.delete": lambda: theirs.vaults.delete(v),
            "credentials.create": lambda: theirs.vaults.credentials.create(v, auth={**variable, "secret_name": "U"}),
            "credentials.list": lambda: list(theirs.vaults.credentials.list(v)),
            "credentials.retrieve": lambda: theirs.vaults.credentials.retrieve(c, vault_id=v),
            "credentials.update": lambda: theirs.vaults.credentials.update(c, vault_id=v, display_name="mine"),
            "credentials.archive": lambda: theirs.vaults.credentials.archive(c, vault_id=v),
            "credentials.delete": lambda: theirs.vaults.credentials.delete(c, vault_id=v),
            "sessions.retrieve": lambda: theirs.sessions.retrieve(s),
            "sessions.update": lambda: theirs.sessions.update(s, title="mine"),
            "sessions.archive": lambda: theirs.sessions.archive(s),
            "sessions.delete": lambda: theirs.sessions.delete(s),
            "events.list": lambda: list(theirs.sessions.events.list(s)),
            "events.send": lambda: theirs.sessions.events.send(s, events=[text_message("hi")]),
            "events.stream": lambda: theirs.sessions.events.stream(s).__enter__(),
            "threads.list": lambda: list(theirs.sessions.threads.list(s)),
            "threads.retrieve": lambda: theirs.sessions.threads.retrieve(thread.id, session_id=s),
            "threads.events": lambda: list(theirs.sessions.threads.events.list(thread.id, session_id=s)),
            "a session with their agent": lambda: theirs.sessions.create(agent=agent.id, environment_id=place.id),
            "a session in their room": lambda: theirs.sessions.create(agent=foreign.id, environment_id=environment.id),
            "a session with their vault": lambda: theirs.sessions.create(
                agent=foreign.id, environment_id=place.id, vault_ids=[v]
            ),
            "trace": lambda: stranger.get(f"/v1/sessions/{s}/trace", cast_to=object),
            "export": lambda: stranger.get(f"/v1/sessions/{s}/export", cast_to=object),
            "verify": lambda: stranger.get(f"/v1/sessions/{s}/verify", cast_to=object),
            "fork": lambda: stranger.post(f"/v1/sessions/{s}/fork", body={}, cast_to=object),
            "invoke": lambda: stranger.post("/v1/invoke", body={"session": s, "input": "hi"}, cast_to=object),
            "revoke": lambda: stranger.post(f"/v1/keys/{self.key_id(house, 'owner')}/revoke", body={}, cast_to=object),
        }
        for name, call in calls.items():
            with self.subTest(name), self.assertRaises(anthropic.NotFoundError):
                call()
        for pages in (theirs.agents.list(), theirs.environments.list(), theirs.vaults.list(), theirs.sessions.list()):
            ids = {found.id for found in pages}
            self.assertFalse(ids & {agent.id, environment.id, v, s}, ids)
        # And nothing has happened to what is the owner's.
        self.assertEqual(mine.agents.retrieve(agent.id), agent)
        self.assertEqual(mine.environments.retrieve(environment.id).name, "e")
        self.assertEqual(mine.vaults.credentials.retrieve(c, vault_id=v).archived_at, None)
        self.assertEqual((mine.sessions.retrieve(s).title, mine.sessions.retrieve(s).archived_at), (session.title, None))

    def key_id(self, house: House, name: str) -> str:
        keys = [json.loads(line) for line in house.run("keys", "list", "--json").splitlines()]
        return next(key["id"] for key in keys if key["name"] == name)

    def test_tokens_of_an_issuer_are_taken_through_a_change_of_its_keys(self):
        issuer = Issuer()
        self.addCleanup(issuer.close)
        first, second, strange = Signer("first"), Signer("second"), Signer("first")
        issuer.keys = [first.jwk]
        house = self.house(
            f'[oidc]\nissuer = "{issuer.url}"\naudience = ["{AUDIENCE}"]\nworkspace_claim = "team"\n'
            '[oidc.scopes]\n"use" = ["agents:write", "sessions:write"]\n"look" = ["agents:read"]\n'
        )
        house.run("workspaces", "create", "blue")

        def caller(signer: Signer, **claims) -> anthropic.Anthropic:
            now = int(time.time())
            all_claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "ada", "team": "blue", "scope": "use", "iat": now, "exp": now + 600}
            token = signer.sign({**all_claims, **claims})
            return self.client(house, auth_token=token, api_key=None, max_retries=0)

        ada = caller(first)
        agent = ada.beta.agents.create(name="a", model="builtin/shell")
        self.assertEqual(ada.beta.agents.retrieve(agent.id).name, "a")
        reader = caller(first, scope="look", sub="eve")
        self.assertEqual(reader.beta.agents.retrieve(agent.id).name, "a")
        with self.assertRaises(anthropic.PermissionDeniedError):
            reader.beta.agents.create(name="b", model="builtin/shell")
        refused = {
            "expired": caller(first, exp=int(time.time()) - 3600),
            "for somebody else": caller(first, aud="another"),
            "of another issuer": caller(first, iss="http://127.0.0.1:9"),
            "forged": caller(strange),
            "of a key that is not known": caller(second),
        }
        for name, client in refused.items():
            with self.subTest(name), self.assertRaises(anthropic.AuthenticationError):
                client.beta.agents.list()
        # The issuer's keys change. A key that is not known is asked for, and not at every request.
        issuer.keys = [second.jwk]
        deadline = time.monotonic() + STEP_LIMIT_S
        grace = caller(second, sub="grace")
        while True:
            try:
                found = grace.beta.agents.retrieve(agent.id)
                break
            except anthropic.AuthenticationError:
                self.assertLess(time.monotonic(), deadline, "the new key is never taken")
                time.sleep(0.2)
        self.assertEqual(found.id, agent.id)
        with self.assertRaises(anthropic.AuthenticationError):
            ada.beta.agents.retrieve(agent.id)
        self.assertLessEqual(issuer.asked, 4, "a stranger's tokens make the server ask its issuer again and again")
        # Who did it stands in the audit log.
        rows = [json.loads(line) for line in house.run("audit", "--workspace", "blue", "--json").splitlines()]
        subjects = {row["actor"].get("subject") for row in rows if row["action"] == "agents.create"}
        self.assertIn("ada", subjects)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Signer:
    """A key of an issuer: Ed25519, by openssl."""

    def __init__(self, name: str):
        self.name = name
        self.pem = subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519"], check=True, capture_output=True).stdout
        command = ["openssl", "pkey", "-pubout", "-outform", "DER"]
        public = subprocess.run(command, input=self.pem, check=True, capture_output=True).stdout
        # What stands before the 32 bytes of the key is its kind.
        self.jwk = {"kty": "OKP", "crv": "Ed25519", "kid": name, "use": "sig", "alg": "EdDSA", "x": b64(public[-32:])}

    def sign(self, claims: dict) -> str:
        header = {"alg": "EdDSA", "typ": "JWT", "kid": self.name}
        message = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
        with tempfile.TemporaryDirectory() as directory:
            key, text = pathlib.Path(directory, "key"), pathlib.Path(directory, "text")
            key.write_bytes(self.pem)
            text.write_text(message)
            command = ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", text]
            signature = subprocess.run(command, check=True, capture_output=True).stdout
        return f"{message}.{b64(signature)}"


class Issuer:
    """The two documents of an OpenID Connect issuer, on a port of this machine."""

    def __init__(self):
        self.keys, self.asked = [], 0
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == "/.well-known/openid-configuration":
                    document = {"issuer": issuer.url, "jwks_uri": issuer.url + "/keys"}
                else:
                    issuer.asked += 1
                    document = {"keys": issuer.keys}
                body = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
