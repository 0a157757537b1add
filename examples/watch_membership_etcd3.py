"""Watch a rota cluster from outside: who is a member, who joins and leaves, who is master.

Membership is plain keys in etcd, so this needs nothing of rota's, only the `etcd3` package (and its old protobuf, hence
an environment of its own):

    python3 -m venv etcd3-env
    etcd3-env/bin/pip install -r examples/etcd3-requirements.txt
    etcd3-env/bin/python examples/watch_membership_etcd3.py --etcd 127.0.0.1:2379 --cluster default
"""

import argparse
import json

import etcd3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--etcd", default="127.0.0.1:2379", metavar="HOST:PORT")
    parser.add_argument("--cluster", default="default")
    options = parser.parse_args()
    host, _, port = options.etcd.rpartition(":")
    watch(etcd3.client(host=host, port=int(port)), f"/rota/{options.cluster}/")


def watch(client, root):
    """List first, then watch from the next revision on: nothing is missed in between."""
    nodes, masters = root + "nodes/", root + "master/"
    listed = client.get_prefix_response(nodes)
    candidates = {}                             # key -> (create revision, node)
    for record in listed.kvs:
        say("member", name(record.key, nodes), json.loads(record.value)["address"])
    for record in client.get_prefix_response(masters).kvs:
        candidates[record.key] = (record.create_revision, record.value.decode())
    master = announce(candidates, None)

    events, _ = client.watch_prefix(root, start_revision=listed.header.revision + 1)
    for event in events:
        gone = isinstance(event, etcd3.events.DeleteEvent)
        key = event.key.decode()
        if key.startswith(nodes):
            if gone:
                say("left", name(event.key, nodes))
            elif event.version == 1:
                say("joined", name(event.key, nodes), json.loads(event.value)["address"])
        elif key.startswith(masters):
            if gone:
                candidates.pop(event.key, None)
            else:
                candidates[event.key] = (event._event.kv.create_revision, event.value.decode())
            master = announce(candidates, master)


def announce(candidates, before):
    """The master is the candidate whose key was created first: etcd's own election recipe."""
    master = min(candidates.values())[1] if candidates else None
    if master != before:
        say("master", master or "nobody")
    return master


def name(key, prefix):
    return key.decode()[len(prefix):]


def say(*words):
    print(*words, flush=True)


if __name__ == "__main__":
    main()
