"""A listener of oslo.messaging: a line of JSON for each notification.

Run with the Python of tests/locks/oslo_messaging.lock: URL EXCHANGE TOPIC. Its first line is `{}`,
when it listens.
"""
# pyright: basic, reportMissingImports=false

import json
import sys
import threading

import oslo_messaging
from oslo_config import cfg


class Endpoint:
    """Prints what comes, by priority."""

    def info(self, context, publisher_id, event_type, payload, metadata):
        """Take an event of priority INFO."""
        show("INFO", context, publisher_id, event_type, payload, metadata)

    def error(self, context, publisher_id, event_type, payload, metadata):
        """Take an event of priority ERROR."""
        show("ERROR", context, publisher_id, event_type, payload, metadata)


def show(priority, context, publisher_id, event_type, payload, metadata):
    line = {
        "priority": priority,
        "context": dict(context),
        "publisher_id": publisher_id,
        "event_type": event_type,
        "payload": payload,
        "metadata": metadata,
    }
    sys.stdout.write(f"{json.dumps(line, default=str)}\n")
    sys.stdout.flush()


def main() -> None:
    url, exchange, topic = sys.argv[1:]
    configuration = cfg.ConfigOpts()
    configuration([])
    oslo_messaging.set_transport_defaults(exchange)
    transport = oslo_messaging.get_notification_transport(configuration, url=url)
    listener = oslo_messaging.get_notification_listener(
        transport,
        [oslo_messaging.Target(topic=topic, exchange=exchange)],
        [Endpoint()],
        executor="threading",
    )
    # One after the other, so that they are told in the order in which they came.
    configuration.set_override("executor_thread_pool_size", 1)
    listener.start()
    sys.stdout.write("{}\n")
    sys.stdout.flush()
    threading.Event().wait()


main()
