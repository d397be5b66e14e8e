"""A store of objects that is particular about signatures: every request must be signed with the real key, as AWS writes it
(https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html), and every checksum must be right.

Arguments: certificate, key of the certificate, access key id, secret access key. Prints its port, then a line of JSON for each request.
"""

import base64
import hashlib
import hmac
import http.server
import json
import ssl
import sys
import urllib.parse
import xml.sax.saxutils
import zlib

CERTIFICATE, PRIVATE, KEY_ID, SECRET = sys.argv[1:]
OBJECTS = {}


class Refused(Exception):
    pass


def mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def check(method: str, target: str, headers) -> str:
    """Answers what the request says of its payload."""
    path, _, query = target.partition("?")
    pairs = [tuple(part.partition("=")[::2]) for part in query.split("&") if part]
    presigned = dict(pairs)
    if "X-Amz-Signature" in presigned:
        given = {name: urllib.parse.unquote(presigned[f"X-Amz-{name}"]) for name in ("Credential", "SignedHeaders", "Signature", "Date")}
        pairs = [pair for pair in pairs if pair[0] != "X-Amz-Signature"]
        payload = "UNSIGNED-PAYLOAD"
    else:
        kind, _, fields = headers["authorization"].partition(" ")
        if kind != "AWS4-HMAC-SHA256":
            raise Refused(f"authorization {kind}")
        given = dict(field.strip().split("=", 1) for field in fields.split(","))
        given["Date"] = headers["x-amz-date"]
        payload = headers["x-amz-content-sha256"]
    key_id, day, region, service, end = given["Credential"].split("/")
    names = given["SignedHeaders"].split(";")
    if key_id != KEY_ID or end != "aws4_request" or "host" not in names:
        raise Refused(f"credential {given}")
    lines = [f"{name}:{' '.join(headers[name].split())}" for name in names]
    query = "&".join(f"{name}={value}" for name, value in sorted(pairs))
    canonical = "\n".join([method, path, query, *lines, "", given["SignedHeaders"], payload])
    scope = "/".join([day, region, service, end])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", given["Date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = mac(mac(mac(mac(b"AWS4" + SECRET.encode(), day), region), service), end)
    if not hmac.compare_digest(mac(key, to_sign).hex(), given["Signature"]):
        raise Refused("the signature does not match")
    return payload


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def line(self) -> bytes:
        return self.rfile.readline().rstrip(b"\r\n")

    def raw(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.line().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.line()
        while self.line():
            pass
        return body

    def body(self, payload: str) -> bytes:
        """What was meant to be sent, and was sent as it was signed."""
        raw = self.raw()
        if payload == "STREAMING-UNSIGNED-PAYLOAD-TRAILER":
            data, rest = b"", raw
            while True:
                head, _, rest = rest.partition(b"\r\n")
                if not (size := int(head, 16)):
                    break
                data, rest = data + rest[:size], rest[size + 2:]
            trailers = dict(line.split(":", 1) for line in rest.decode().split("\r\n") if line)
            wanted = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
            if trailers != {"x-amz-checksum-crc32": wanted} or len(data) != int(self.headers["x-amz-decoded-content-length"]):
                raise Refused(f"trailers {trailers}, wanted {wanted}")
            return data
        if payload != "UNSIGNED-PAYLOAD" and hashlib.sha256(raw).hexdigest() != payload:
            raise Refused(f"payload {payload}")
        return raw

    def serve(self):
        payload, body = "", b""
        try:
            payload = check(self.command, self.path, self.headers)
            body = self.body(payload)
            verdict = "fine"
        except Refused as refused:
            self.close_connection = True
            verdict = str(refused)
        kinds = [name for name in self.headers if name.lower() in ("content-encoding", "x-amz-trailer", "expect")]
        print(json.dumps({"method": self.command, "path": self.path, "payload": payload, "verdict": verdict, "kinds": kinds,
                          "authorization": self.headers.get("authorization")}), flush=True)
        path = urllib.parse.urlsplit(self.path).path
        name = urllib.parse.unquote(path)
        if verdict != "fine":
            self.answer(403, f"<Error><Code>SignatureDoesNotMatch</Code><Message>{verdict}</Message></Error>".encode())
        elif self.command == "PUT":
            OBJECTS[name] = body
            self.answer(200, b"")
        elif self.command == "DELETE":
            OBJECTS.pop(name, None)
            self.answer(204, b"")
        elif "list-type=2" in self.path:
            keys = "".join(f"<Contents><Key>{xml.sax.saxutils.escape(key.split('/', 2)[2])}</Key></Contents>" for key in sorted(OBJECTS))
            self.answer(200, f"<ListBucketResult>{keys}<IsTruncated>false</IsTruncated></ListBucketResult>".encode())
        elif name in OBJECTS:
            self.answer(200, OBJECTS[name])
        else:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def answer(self, status: int, body: bytes):
        self.send_response(status)
        self.send_header("content-type", "application/xml" if body.startswith(b"<") else "application/octet-stream")
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = serve

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERTIFICATE, PRIVATE)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
