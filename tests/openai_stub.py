"""An OpenAI-compatible server in this process, with the faults that real ones have."""

import contextlib
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Stub(ThreadingHTTPServer):
    """says(text) -> (the answer, P(1) or None for no log-probabilities) or (a status, its message);
    fault(n) -> of the n-th request None, "drop", "html" or a status; requests: what was answered.
    """

    daemon_threads, allow_reuse_address, request_queue_size = True, True, 64
    alternatives = 20  # how many a request may ask for

    def __init__(self, says, fault=lambda n: None, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.says, self.fault, self.requests, self.seen = says, fault, [], 0
        self.faults, self.keys, self.lock = [], set(), threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_):
        """A client that has gone is no error of ours."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        server, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        body, key = json.loads(body), self.headers["Authorization"].removeprefix("Bearer ")
        with server.lock:
            server.seen += 1
            server.keys.add(key)
            fault = server.fault(server.seen)
        if fault:
            server.faults.append(fault)
        if fault == "drop":
            self.close_connection = True
            return self.connection.close()
        if fault == "html":
            return self.reply(200, "<html>welcome</html>", "text/html")
        if fault:
            said = f"fault {fault}, and your key is {key}"
            return self.reply(fault, {"error": {"message": said}}, retry="0.01")
        if not self.path.endswith("/chat/completions") or body["model"] == "nobody":
            return self.reply(404, {"error": {"message": f"no model {body['model']}"}})
        if body.get("top_logprobs", 0) > server.alternatives:
            return self.reply(400, {"error": {"message": "top_logprobs is too large"}})
        said, p = server.says(body["messages"][-1]["content"])
        if isinstance(said, int):
            return self.reply(said, {"error": {"message": p}})
        with server.lock:
            server.requests.append(body)
        choice = {"index": 0, "finish_reason": "stop"}
        choice["message"] = {"role": "assistant", "content": said.replace("KEY", key)}
        if p is not None and body.get("logprobs"):
            choice["logprobs"] = {"content": tokens(said, p)}
        told = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
        self.reply(200, told | {"choices": [choice]})

    def reply(self, status, body, kind="application/json", retry=None):
        body = body if isinstance(body, str) else json.dumps(body)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body.encode())))
        if retry:
            self.send_header("Retry-After", retry)
        self.end_headers()
        self.wfile.write(body.encode())


def tokens(said, p):
    """The log-probabilities of an answer: a quotation mark, then the word with alternatives."""
    quote = {"token": '"', "logprob": 0.0, "top_logprobs": [{"token": '"', "logprob": 0.0}]}
    # two spellings of each, and something else that has half of it all
    masses = {"1": 0.3 * p, " 1": 0.2 * p, "0": 0.5 * (1 - p), "The": 0.5, "10": 1e-3}
    top = [{"token": t, "logprob": math.log(m)} for t, m in masses.items() if m > 0]
    return [*[quote] * said.startswith('"'), {"token": said, "logprob": -0.1, "top_logprobs": top}]


@contextlib.contextmanager
def running(*args, **options):
    """A server that answers until the block ends."""
    server = Stub(*args, **options)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
