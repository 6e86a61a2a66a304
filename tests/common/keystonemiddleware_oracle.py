"""The real keystonemiddleware, to compare with. Run with the Python of its own environment.

`serve NAME=FILE…` serves one `auth_token` for each configuration file on a loopback port that is
printed first; the header `X-Oracle` of a request chooses by name. What passes is answered with the
identity headers that an application would see, as JSON in the header `X-Seen`. `paths` reads pairs
of path and pattern from standard input, and prints for each whether an access rule with that
pattern covers the path.
"""
# pyright: basic, reportMissingImports=false

import json
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from keystonemiddleware import auth_token

PREFIXES = ("HTTP_X_", "HTTP_OPENSTACK_")


def application(environ, start_response):
    headers = {
        key.removeprefix("HTTP_").replace("_", "-").lower(): value
        for key, value in environ.items()
        if key.startswith(PREFIXES)
    }
    start_response("200 OK", [("X-Seen", json.dumps(headers))])
    return []


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class SilentHandler(WSGIRequestHandler):
    def log_message(self, format, *args):
        pass


def serve(files):
    guarded = {
        name: auth_token.AuthProtocol(
            application, {"oslo_config_project": name, "oslo_config_file": file}
        )
        for name, file in files.items()
    }

    def chosen(environ, start_response):
        return guarded[environ["HTTP_X_ORACLE"]](environ, start_response)

    server = make_server("127.0.0.1", 0, chosen, server_class=Server, handler_class=SilentHandler)
    print(server.server_port, flush=True)  # noqa: T201
    server.serve_forever()


def paths():
    pairs = json.load(sys.stdin)
    covered = [bool(auth_token._path_matches(path, pattern)) for path, pattern in pairs]
    print(json.dumps(covered))  # noqa: T201


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "serve":
        serve(dict(argument.split("=", 1) for argument in arguments))
    else:
        paths()
