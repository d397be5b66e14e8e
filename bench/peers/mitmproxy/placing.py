"""What loopd does with a credential, as an addon of mitmproxy: a placeholder in a header becomes the secret."""

import os

PLACEHOLDER = os.environ["PLACEHOLDER"]
SECRET = os.environ["SECRET"]


def requestheaders(flow):
    for name, value in flow.request.headers.items():
        if PLACEHOLDER in value:
            flow.request.headers[name] = value.replace(PLACEHOLDER, SECRET)
