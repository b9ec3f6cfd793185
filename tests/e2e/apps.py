"""Small apps for the tests, from Python's standard library alone."""

SERVER = """\
import os, signal, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer({answer})
    def do_POST(self):
        id = self.rfile.read(int(self.headers["Content-Length"]))
        with open(os.environ["RECORD"], "ab", buffering=0) as file:
            file.write(id + b"\\n")
        self.answer("recorded")
    def log_message(self, *args):
        pass

class Server(ThreadingHTTPServer):
    request_queue_size = 128

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready", flush=True)
Server(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"""


def answering(expression: str) -> dict[str, str]:
    """Answers GET with the value of a Python expression, and records the body of each POST in $RECORD."""
    return {"Procfile": "web: exec python3 app.py\n", "app.py": SERVER.format(answer=expression)}


SILENT = {
    "Procfile": "web: python3 -u silent.py\n",
    "silent.py": "import time\nprint('thinking about it')\ntime.sleep(3600)\n",
}
CRASHING = {
    "Procfile": "web: python3 -u crash.py\n",
    "crash.py": "print('cannot find my database')\nraise SystemExit(3)\n",
}
STUBBORN = {
    "Procfile": "web: python3 -u stubborn.py\n",
    "stubborn.py": (
        "import os, signal\n"
        "from http.server import HTTPServer, SimpleHTTPRequestHandler\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "HTTPServer(('127.0.0.1', int(os.environ['PORT'])), SimpleHTTPRequestHandler).serve_forever()\n"
    ),
}
