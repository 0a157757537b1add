"""`rota demo`: three nodes count the files of a folder, and the master is killed on the way.

Start reading at `performance.py`. `tasks.py` is what the nodes run, `observer.py` what an onlooker can tell from the
keys in etcd, `troupe.py` the processes, `screen.py` what is shown, `verdict.py` whether it all adds up.
"""
