"""What the drivers in Python share: the protocol, and records in files."""

import base64
import json
import sys


class Coded(Exception):
    """An error with the code that the broker or the library gave it."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def data(text):
    return None if text is None else base64.b64decode(text)


def text(content):
    return None if content is None else base64.b64encode(content).decode()


def load(path):
    """Yields key, value, headers and timestamp (None: the client's clock) of each record."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            r = json.loads(line)
            headers = [(h["n"], data(h["v"])) for h in r["h"] or []]
            yield data(r["k"]), data(r["v"]), headers, r.get("ts")


def save(path, records):
    """Writes (key, value, headers, timestamp, offset) of each record."""
    with open(path, "w", encoding="utf-8") as out:
        for key, value, headers, ts, offset in records:
            headers = [{"n": n, "v": text(v)} for n, v in headers or []]
            out.write(json.dumps({"k": text(key), "v": text(value), "h": headers, "ts": ts, "o": offset}) + "\n")
    return {"count": len(records)}


def token(login):
    """Reads the token of a login by OAUTHBEARER."""
    with open(login["token"], encoding="utf-8") as file:
        return file.read().strip()


def answer(do, line):
    q = json.loads(line)
    try:
        reply = do[q["op"]](q)
        return {"ok": True, **(reply or {})}
    except Coded as e:
        return {"ok": False, "error": str(e), "code": e.code}
    except Exception as e:  # the suite decides what an error means
        return {"ok": False, "error": f"{type(e).__name__}: {e}", "code": getattr(e, "errno", None) or 0}


def send(reply):
    sys.stdout.write("@leat " + json.dumps(reply) + "\n")
    sys.stdout.flush()


def serve(do):
    """Answers requests with the functions in do until input ends."""
    for line in sys.stdin:
        send(answer(do, line))
