"""The operator's orders: what they change, what moves because of them, and the story of it.

Owns the tasks, the moves that they need, and the events.  Every order is a change in the journal, answered
when it is durable; questions are answered from memory.
"""

from __future__ import annotations

from collections.abc import Callable

from fabric.master.audit import Audits
from fabric.master.deletion import Deletion
from fabric.master.delta import DeltaStore
from fabric.master.events import Events
from fabric.master.groups import Groups
from fabric.master.journal import After
from fabric.master.membership import Membership
from fabric.master.moves import LEASE_S, Moves
from fabric.master.operator import Operator
from fabric.master.store import Reader
from fabric.master.task_kinds import Cluster
from fabric.master.tasks import Tasks
from fabric.node.effects import Effect, Reply, Sender
from fabric.settings import Settings
from fabric.wire import messages as wire
from fabric.wire.messages import Message, Request

Submit = Callable[[Request, Sender, float, Callable[[DeltaStore, float], After]], list[Effect]]
"""Makes a change for a request, or refuses it: ``MasterRole``'s."""
Handler = Callable[..., list[Effect]]


class Orders:
    """Handlers of the messages 51 and 84 to 92."""

    def __init__(
        self,
        store: Reader,
        settings: Settings,
        membership: Membership,
        groups: Groups,
        deletion: Deletion,
        audits: Audits,
        operator: Operator,
        submit: Submit,
        wall_offset_s: float,
    ) -> None:
        self._groups = groups
        self._operator = operator
        self._submit = submit
        self._wall_offset_s = wall_offset_s
        self._now = 0.0
        self.moves = Moves(store, settings.move_bytes_per_s)
        self.events = Events()
        self.tasks = Tasks(
            Cluster(store, membership, groups, deletion, self.moves, audits),
            settings.move_bytes_per_s,
            lambda subject, text: self.note("task", subject, text),
        )

    def load(self, store: Reader, now: float) -> None:
        """Take up what an earlier life of the master left."""
        self._now = now
        self.events.load(store)
        self.tasks.load(store, now)

    def handlers(self) -> dict[type[Message], Handler]:
        """What is answered here."""
        return {
            wire.TakeMoves: self._on_take_moves,
            wire.AddGroup: self._on_add_group,
            wire.StartTask: self._on_start_task,
            wire.CancelTask: self._on_cancel_task,
            wire.ListTasks: lambda m, sender, now: [Reply(sender, wire.TaskList(self.tasks.statuses(now)))],
            wire.ListEvents: lambda m, sender, now: [
                Reply(sender, wire.EventList(self.events.after(m.after, m.limit)))
            ],
        }

    # --- events -----------------------------------------------------------------------------------

    def at(self, now: float) -> None:
        """What happens from here on happens now."""
        self._now = now

    def note(self, kind: str, subject: str, text: str) -> None:
        """An event of this moment."""
        self.events.note(self._wall_ms(self._now), kind, subject, text)

    # --- time -------------------------------------------------------------------------------------

    def due_at(self) -> float | None:
        """When ``step`` next has something to do."""
        return self._now if self.events.is_unstored else self.tasks.due_at()

    def step(self, delta: DeltaStore, now: float) -> Callable[[float], None]:
        """Look at the tasks if it is time, and store what happened; call what is returned when durable."""
        due_at = self.tasks.due_at()
        looked = (
            self.tasks.look(delta, now, self._wall_ms(now)) if due_at is not None and due_at <= now else None
        )
        self.events.store(delta)

        def on_durable(now: float) -> None:
            if looked is not None:
                looked(now)

        return on_durable

    # --- orders -----------------------------------------------------------------------------------

    def _on_take_moves(self, message: wire.TakeMoves, sender: Sender, now: float) -> list[Effect]:
        moves, pause_s = self.moves.take(message.room_bytes, now)
        return [Reply(sender, wire.Moves(moves, int(LEASE_S * 1000), int(pause_s * 1000)))]

    def _on_add_group(self, message: wire.AddGroup, sender: Sender, now: float) -> list[Effect]:
        def add(delta: DeltaStore, now: float) -> After:
            group, changed = self._groups.plan_group(message.group, message.replicas)
            done = self._groups.store_group(delta, group) if changed and not message.dry_run else None
            answer = wire.GroupAdded(self._operator.group_status(group), changed)

            def on_durable(now: float) -> list[Effect]:
                if done is not None:
                    done()
                return [Reply(sender, answer)]

            return on_durable

        return self._submit(message, sender, now, add)

    def _on_start_task(self, message: wire.StartTask, sender: Sender, now: float) -> list[Effect]:
        if message.kind == "accept-loss":
            return self._on_accept_loss(message, sender, now)

        def start(delta: DeltaStore, now: float) -> After:
            started, after = self.tasks.start(delta, message, now, self._wall_ms(now))
            return lambda now: [*after(now), Reply(sender, started)]

        return self._submit(message, sender, now, start)

    def _on_accept_loss(self, message: wire.StartTask, sender: Sender, now: float) -> list[Effect]:
        """Over at once, so it is never a task that runs."""

        def accept(delta: DeltaStore, now: float) -> After:
            plan = [f"group {message.group} begins anew, empty: what it held is lost"]
            wall_ms = self._wall_ms(now)
            # A dry run is refused like the order itself, and writes to a delta that nobody keeps.
            after = self._groups.accept_loss(DeltaStore(delta) if message.dry_run else delta, message.group)
            task = wire.TaskStatus(
                task=0,
                kind=message.kind,
                group=message.group,
                server="",
                replacement="",
                state="done",
                reason=plan[0],
                started_at_ms=wall_ms,
                ended_at_ms=wall_ms,
                total=0,
                done=0,
                unit="bytes",
                bytes_per_s=0,
                left_ms=0,
            )
            answer = Reply(sender, wire.TaskStarted(task, not message.dry_run, plan))
            return lambda now: [answer] if message.dry_run else [*after(now), answer]

        return self._submit(message, sender, now, accept)

    def _on_cancel_task(self, message: wire.CancelTask, sender: Sender, now: float) -> list[Effect]:
        def cancel(delta: DeltaStore, now: float) -> After:
            cancelled, after = self.tasks.cancel(delta, message.task, now, self._wall_ms(now))
            return lambda now: [*after(now), Reply(sender, cancelled)]

        return self._submit(message, sender, now, cancel)

    def _wall_ms(self, now: float) -> int:
        return int((now + self._wall_offset_s) * 1000)
