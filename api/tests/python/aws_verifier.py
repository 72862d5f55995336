"""AWS's side, by AWS's own signer: verifies Signature Version 4 with botocore, and answers GetCallerIdentity.

Environment: CERTIFICATE and KEY in PEM; KEYS, lines of ACCESS_KEY_ID SECRET_ACCESS_KEY ACCOUNT. Prints its port.
GET /?Action=GetCallerIdentity  the Security Token Service, by a presigned address
POST /presign                   a presigned address, made by botocore
anything else                   an API of a peer: 200 where the signature is good, with what was signed
"""

import datetime
import http.server
import json
import os
import ssl
import urllib.parse

from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

KEYS = {line.split()[0]: line.split()[1:] for line in os.environ["KEYS"].splitlines()}
STAMP = "%Y%m%dT%H%M%SZ"


def signature(kind, key, service, region, stamp, method, url, headers, body, token):
    """What botocore signs the same request with."""
    request = AWSRequest(method=method, url=url, data=body, headers=headers)
    request.context["timestamp"] = stamp
    request.context["payload_signing_enabled"] = True
    auth = kind(Credentials(key, KEYS[key][0], token), service, region)
    canonical = auth.canonical_request(request)
    return auth.signature(auth.string_to_sign(request, canonical), request)


def is_recent(stamp, seconds):
    at = datetime.datetime.strptime(stamp, STAMP).replace(tzinfo=datetime.timezone.utc)
    age = (datetime.datetime.now(datetime.timezone.utc) - at).total_seconds()
    return -60 < age < seconds


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def give(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def whoami(self, query):
        """STS: everything but the signature is signed, with the headers that it names."""
        given = dict(urllib.parse.parse_qsl(query, strict_parsing=True))
        sent = given.pop("X-Amz-Signature")
        key, day, region, service, _ = given["X-Amz-Credential"].split("/")
        names = given["X-Amz-SignedHeaders"].split(";")
        headers = {name: self.headers[name] for name in names}
        url = f"https://{self.headers['host']}/?" + urllib.parse.urlencode(given, quote_via=urllib.parse.quote)
        stamp = given["X-Amz-Date"]
        ours = signature(SigV4QueryAuth, key, service, region, stamp, "GET", url, headers, b"", None)
        good = ours == sent and service == "sts" and given["Action"] == "GetCallerIdentity" and stamp.startswith(day)
        if not good or not is_recent(stamp, int(given["X-Amz-Expires"])):
            return self.give(403, {"Error": {"Code": "SignatureDoesNotMatch"}})
        account = KEYS[key][1]
        result = {"Account": account, "Arn": f"arn:aws:iam::{account}:user/u", "UserId": "AIDAEXAMPLE"}
        answer = {"GetCallerIdentityResult": result, "ResponseMetadata": {"RequestId": "r"}}
        return self.give(200, {"GetCallerIdentityResponse": answer})

    def presign(self):
        wanted = json.loads(self.body())
        url = f"https://{wanted['host']}/?Action=GetCallerIdentity&Version=2011-06-15"
        request = AWSRequest(method="GET", url=url, headers={"x-interconnect-purpose": wanted["purpose"]})
        credentials = Credentials(wanted["key"], KEYS[wanted["key"]][0], wanted.get("token"))
        SigV4QueryAuth(credentials, "sts", "eu-central-1", expires=wanted.get("expires", 60)).add_auth(request)
        return self.give(200, {"url": request.url})

    def peer(self):
        """A peer that wants calls to be signed."""
        body = self.body()
        words = self.headers.get("Authorization", "").replace(",", " ").split()
        given = dict(word.split("=", 1) for word in words[1:])
        if words[:1] != ["AWS4-HMAC-SHA256"]:
            return self.give(401, {"message": "Missing Authentication Token"})
        key, day, region, service, _ = given["Credential"].split("/")
        names = given["SignedHeaders"].split(";")
        headers = {name: self.headers[name] for name in names}
        stamp = self.headers["X-Amz-Date"]
        url = f"https://{self.headers['host']}{self.path}"
        ours = signature(SigV4Auth, key, service, region, stamp, self.command, url, headers, body, None)
        good = ours == given["Signature"] and is_recent(stamp, 300) and (service, region) == ("execute-api", "us-west-2")
        if not good or not {"host", "x-amz-date", "content-type"} - {"content-type" if not body else ""} <= set(names):
            return self.give(403, {"message": "The request signature we calculated does not match"})
        return self.give(200, {"name": " ".join(names), "title": stamp})

    def any(self):
        path, _, query = self.path.partition("?")
        if path == "/presign":
            return self.presign()
        return self.whoami(query) if path == "/" else self.peer()

    do_GET = do_POST = do_PATCH = do_DELETE = any


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(os.environ["CERTIFICATE"], os.environ["KEY"])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
