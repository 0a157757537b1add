"""Switches: nodes and runners that come and go, clusters, settings, the way to etcd."""

from __future__ import annotations

from typing import Any

from ..switching import NEVER_S, PROMISES, TAKEOVER, change, switch

# -- nodes come and go -------------------------------------------------------------------------------------------------


@switch("E5 T37", f"{PROMISES}: jobs_outlive_all_nodes", "rota.cluster.master.duties.takeover",
        fails=r"results = .* -> .*ResultTimeout", patience_s=NEVER_S)
def what_was_left_is_run_again(takeover: Any) -> None:
    """What lies under a node that is gone stays there."""
    _no_takeover(takeover)


def _no_takeover(takeover: Any) -> None:
    async def take_over(*arguments: Any, **more: Any) -> int:
        return 0

    takeover.take_over = take_over


@switch("E16 X6", f"{TAKEOVER}: test_kill_9_of_nodes_and_masters", "rota.cluster.master.duties.takeover",
        fails=r"moved_s\(rig, victim\) < 3\.0 -> AssertionError: not within", patience_s=NEVER_S)
def takeover(module: Any) -> None:
    """The jobs of a node that was killed stay where they are."""
    _no_takeover(module)


@switch("T19 X6", f"{TAKEOVER}: test_kill_9_of_nodes_and_masters", "rota.worker.guard.guard",
        fails=r"moved_s\(rig, victim\) < 3\.0 -> AssertionError")
def the_lease_of_the_dead_is_revoked(guard: Any) -> None:
    """The guard leaves the lease of its dead node to run out."""
    guard.Etcd.revoke = lambda self, lease: "not revoked"


@switch("T19", f"{TAKEOVER}: test_a_lost_machine", "rota.cluster.master.duties.takeover",
        fails=r"moved_s\(rig, victim\) < .* -> AssertionError: not within", patience_s=NEVER_S)
def takeover_of_a_lost_machine(module: Any) -> None:
    """The jobs of a machine that is gone stay where they are."""
    _no_takeover(module)


@switch("Q6", f"{TAKEOVER}: test_a_frozen_node_does_no_harm", "rota.worker.guard.guard",
        fails=r"runners are dead.* -> AssertionError: not within")
def the_deadline_of_the_runners(guard: Any) -> None:
    """The guard does not look at the lease's deadline."""
    guard.Guard._check_deadline = lambda self: None


@switch("E17", f"{TAKEOVER}: test_sigterm_hands_over_and_uses_up_no_attempt", "rota.cluster.node.life",
        fails=r"len\(starts\) == len\(set\(starts\)\) == 100 -> AssertionError")
def grace(life: Any) -> None:
    """A node that is told to leave kills what it runs."""
    async def at_once(self: Any) -> None:
        return

    def hasty(leave: Any) -> Any:
        async def _leave(self: Any, leading: Any) -> None:
            standing = self._parts.standing
            await standing.leaving.wait()
            standing.in_a_hurry.set()
            await leave(self, leading)

        return _leave

    change(life.Life, "_leave_when_asked", hasty)


@switch("E17", f"{PROMISES}: what_has_not_begun_moves_at_once", "rota.cluster.node.running.executor",
        fails=r"only what runs lies under it.* -> AssertionError: not within", patience_s=NEVER_S)
def handing_back(executor: Any) -> None:
    """A node that leaves keeps what it has not begun."""
    async def release_unstarted(self: Any) -> int:
        return 0

    executor.Executor.release_unstarted = release_unstarted


@switch("X4", f"{PROMISES}: what_waits_behind_long_jobs_moves", "rota.cluster.node.running.running",
        fails=r"behind\.aresult.* -> .*ResultTimeout", patience_s=NEVER_S)
def nothing_is_stuck(running: Any) -> None:
    """What was given ahead to a node stays there, however long it waits."""
    running.Running._review_after = lambda self, held, seconds: None


@switch("E16", f"{PROMISES}: test_orphans", "rota.cluster.node.running.running",
        fails=r"may not run twice has failed.* -> AssertionError: not within", patience_s=NEVER_S)
def on_orphan_fail(running: Any) -> None:
    """What must not run twice is not marked when it begins."""
    running.must_not_repeat = lambda tasks, claim: False


@switch("B11", f"{PROMISES}: test_orphans", "rota.cluster.state.moves",
        fails=r"\.at - killed >= 2\.0.* -> AssertionError")
def requeue_delay(moves: Any) -> None:
    """An orphan is queued again at once."""
    change(moves, "take_over", lambda move: lambda *arguments, due_ms=0, **more: move(*arguments, **more))


@switch("X4", f"{PROMISES}: load_is_spread_over_the_nodes", "rota.cluster.master.dispatch.aggregator",
        fails=r"gather\(.* -> .*ResultTimeout", patience_s=NEVER_S)
def load_is_spread(aggregator: Any) -> None:
    """The master does not keep account of what a node has, nor of what came back."""
    aggregator.NodeLoad.idle = lambda self, mode: self.member.capacity.get(mode, 0)
    aggregator.NodeLoad.gave_back = lambda self, mode, now: None


@switch("X4", "cluster/master/dispatch/test_dispatch.py: test_work_spreads_to_the_node_with_most_room",
        "rota.cluster.master.dispatch.aggregator",
        fails=r"sorted\(nodes\) == .* -> AssertionError")
def the_node_with_most_room(aggregator: Any) -> None:
    """Work goes to any node that has room."""
    aggregator.NodeLoad.room = lambda self, mode, now: 1
    aggregator.NodeLoad.idle = lambda self, mode: 1


@switch("X5", f"{PROMISES}: a_node_that_joins_is_given_work", "rota.cluster.master.dispatch.claims",
        fails=r"the last one runs, too.* -> AssertionError: not within", patience_s=NEVER_S)
def joining(claims: Any) -> None:
    """A master knows the nodes that were there when it became master."""
    def closed(see: Any) -> Any:
        def see_node(self: Any, event: Any) -> Any:
            node = event.record.key[len(self._keys.nodes):].decode(errors="replace")
            return see(self, event) if node in self.nodes or len(self.nodes) < 3 else None

        return see_node

    change(claims.Claims, "see_node", closed)


@switch("X8", f"{PROMISES}: a_node_serves_only_its_queues",
        "rota.cluster.node.identities", fails=r"is has_it -> AssertionError")
def queues_of_a_node(identities: Any) -> None:
    """`--queues` is not heard."""
    def all_of_them(member: Any) -> Any:
        from msgspec.structs import replace  # not at the top: the guard, which has no packages, reads this module

        return lambda self: replace(member(self), queues=["*"])

    change(identities.Identities, "_member", all_of_them)


@switch("X8", "cluster/master/dispatch/test_dispatch.py: test_a_node_gets_only_its_queues_and_only_while_active",
        "rota.cluster.master.dispatch.aggregator", fails=r"table\.given\(\) == \[\] -> AssertionError")
def nodes_that_leave(aggregator: Any) -> None:
    """A node that is leaving is still given work."""
    from msgspec.structs import replace  # not at the top: the guard, which has no packages, reads this module

    def staying(may_run: Any) -> Any:
        def _may_run(self: Any, queue: str, lane: Any) -> bool:
            self.member = replace(self.member, state="active")
            return bool(may_run(self, queue, lane))

        return _may_run

    change(aggregator.NodeLoad, "may_run", staying)


@switch("T4", "worker/pool/test_runners.py: test_async_capacity_is_kept", "rota.worker.pool.dispatch",
        fails=r"== 3\) -> TimeoutError", patience_s=NEVER_S)
def async_capacity(dispatch: Any) -> None:
    """An async runner is given whatever there is."""
    change(dispatch.Dispatch, "_room", lambda room: lambda self, runner, task: 1_000)


@switch("T3", "worker/pool/test_harm.py: test_only_the_job_that_harms_its_runner_fails",
        "rota.worker.pool.runner_handle", fails=r"status == .ok. .* -> AssertionError")
def isolation(handle: Any) -> None:
    """All that was sent to a runner shares its fate."""
    def together(autopsy: Any) -> Any:
        def _autopsy(self: Any) -> Any:
            started, waiting = autopsy(self)
            return started + waiting, []

        return _autopsy

    change(handle.RunnerHandle, "autopsy", together)


@switch("T25", "worker/pool/test_harm.py: test_a_runner_killed_mid_job_is_replaced_and_the_job_retried",
        "rota.worker.pool.staff", fails=r"rig\.outcome\(waiting\).* -> TimeoutError", patience_s=NEVER_S)
def runners_are_replaced(staff: Any) -> None:
    """A runner that has died is not replaced."""
    def once(maintain: Any) -> Any:
        def _maintain(self: Any) -> None:
            if self.started is None or not self.started.done():
                maintain(self)

        return _maintain

    change(staff.Staff, "maintain", once)


@switch("T26 T25",
        "worker/guard/test_guard.py: test_the_node_is_restarted_after_its_runners_are_reaped_and_the_lease_revoked",
        "rota.worker.guard.guard", fails=r"gateway\.requests == .* -> AssertionError")
def the_monitor(guard: Any) -> None:
    """The guard starts its node again, and tells the store nothing."""
    guard.Etcd.revoke = lambda self, lease: "not revoked"


# -- clusters, settings, etcd ------------------------------------------------------------------------------------------


@switch("T42 Q13 B2", f"{PROMISES}: clusters_on_one_etcd_never_meet", "rota.cluster.state.keys",
        fails=r"rig\.members\(\)\) == 3 .* -> AssertionError")
def namespaces(keys: Any) -> None:
    """All clusters on one etcd share their keys."""
    change(keys.Keys, "__init__", lambda init: lambda self, cluster: init(self, "shared"))


@switch("T42", "client/wire/test_codec.py: test_a_body_is_for_one_cluster", "rota.client.wire.keyring",
        fails=r"with pytest\.raises.*DID NOT RAISE")
def bodies_are_for_one_cluster(keyring: Any) -> None:
    """A signature does not say for which cluster."""
    def anywhere(made: Any) -> Any:
        return lambda self, *arguments, **named: made(
            self, *["" if it in ("prod", "staging") else it for it in arguments], **named
        )

    change(keyring.Keyring, "sign", anywhere)
    change(keyring.Keyring, "verify", anywhere)


@switch("Q7", "client/wire/test_codec.py: test_a_newer_schema_is_refused_by_name", "rota.client.wire.codec",
        fails=r"with pytest\.raises.* -> ")
def schema_versions(codec: Any) -> None:
    """A body of a schema that is not known is read all the same."""
    import msgspec

    change(codec, "_fault_of", lambda fault: lambda header, count: fault(msgspec.structs.replace(header, v=1), count))


@switch("Q8", "cluster/boot/test_settings.py: test_flags_win_over_the_environment_and_that_over_the_file",
        "rota.cluster.boot.settings", fails=r"-> AssertionError")
def flags(settings: Any) -> None:
    """Flags are not heard (but for where the key and the token are, without which nothing is allowed)."""
    def without(load: Any) -> Any:
        def _load(said: Any, *more: Any, **others: Any) -> Any:
            heard = {name: value for name, value in said.items() if name in ("key_file", "token_file")}
            return load(heard, *more, **others)

        return _load

    change(settings, "load", without)


@switch("T17", "acceptance/test_cli.py: test_errors_name_the_cause", "rota.client.errors",
        fails=r"assert said in done\.stderr -> AssertionError")
def errors_say_why(errors: Any) -> None:
    """An error says that there was an error."""
    errors.RotaError.__str__ = lambda self: "an error occurred"


@switch("T17", "cluster/boot/test_settings.py: test_a_wrong_setting_is_named_with_what_to_do",
        "rota.cluster.boot.settings",
        fails=r"assert said in str\(raised\.value\) -> AssertionError")
def wrong_settings_are_named(settings: Any) -> None:
    """A wrong setting is called by the name that the code has for it."""
    settings._in_their_words = lambda message: "a field has the wrong type"


@switch("B1", "cluster/ledger/test_etcd_security.py: test_tls", "rota.cluster.ledger.http2.member",
        fails=r"EtcdLedger\(good\).*|ledger\.commit.* -> .*Ledger")
def tls_to_etcd(member: Any) -> None:
    """Certificates are not used."""
    member.split_endpoint = lambda url: (url.rpartition("/")[2], False)


@switch("B1", "cluster/ledger/test_etcd_security.py: test_users", "rota.cluster.ledger.endpoints",
        fails=r"-> .*LedgerDenied|-> .*LedgerUnavailable|-> .*TokenRefused")
def users_of_etcd(endpoints: Any) -> None:
    """Nobody tells etcd who we are."""
    async def _authenticate(self: Any, endpoint: Any, refused: Any) -> None:
        self._token = ""

    endpoints.Endpoints._authenticate = _authenticate
