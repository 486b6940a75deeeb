from dataclasses import replace
from typing import Any

from tests.support.pool_values import AT, a_foreign_spec, a_hold, a_spec, a_workload, seeing
from trimtab.api.serving_pool import ServingPoolStatus
from trimtab.decide.pools import PoolConfig, step
from trimtab.decide.verdicts import judge_pool
from trimtab.model.decision import Mode, Outcome
from trimtab.model.pool import PoolSeen, PoolSpec, PoolState
from trimtab.obs import journal
from trimtab_operator.records import StatusMemory
from trimtab_operator.status import due, pool_status, remember

INTERVAL = 30.0


def a_status(seen: PoolSeen, memory: StatusMemory, spec: PoolSpec | None = None, state: PoolState | None = None) -> Any:
    spec, state = spec or a_spec(), state or PoolState()
    return pool_status(spec, state, seen, judge_pool(spec, state, seen), (), memory)


def written(seen: PoolSeen) -> StatusMemory:
    memory = StatusMemory()
    remember(memory, a_status(seen, memory), AT)
    return memory


def test_the_first_status_is_due_at_once() -> None:
    memory = StatusMemory()
    assert due(memory, a_status(seeing(a_workload()), memory), AT, INTERVAL) == AT


def test_nothing_new_is_never_due() -> None:
    seen = seeing(a_workload())
    memory = written(seen)
    assert due(memory, a_status(replace(seen, at=AT + 500), memory), AT + 500, INTERVAL) is None


def test_a_change_of_state_is_due_at_once() -> None:
    memory = written(seeing(a_workload()))
    seen = seeing(a_workload(ready=1), at=AT + 1)
    assert due(memory, a_status(seen, memory), AT + 1, INTERVAL) == AT + 1


def test_numbers_alone_wait_for_their_interval() -> None:
    memory = written(seeing(a_workload(ready=1)))
    seen = seeing(a_workload(ready=2), at=AT + 1)
    assert due(memory, a_status(seen, memory), AT + 1, INTERVAL) == AT + INTERVAL
    assert due(memory, a_status(seen, memory), AT + 99, INTERVAL) == AT + 99


def test_a_number_that_hardly_moved_is_not_written() -> None:
    memory = written(seeing(a_workload(200, ready=100)))
    assert due(memory, a_status(seeing(a_workload(200, ready=104)), memory), AT + 99, INTERVAL) is None
    assert due(memory, a_status(seeing(a_workload(200, ready=106)), memory), AT + 99, INTERVAL) == AT + 99


def test_a_transition_time_moves_only_with_the_status_of_its_condition() -> None:
    memory = written(seeing(a_workload(ready=0)))
    before = a_status(seeing(a_workload(ready=1), at=AT + 50), memory)["conditions"][0]
    after = a_status(seeing(a_workload(ready=3), at=AT + 50), memory)["conditions"][0]
    assert before["lastTransitionTime"] == "1970-01-01T00:16:40Z"
    assert (after["status"], after["lastTransitionTime"]) == ("True", "1970-01-01T00:17:30Z")


def test_a_status_is_what_the_schema_says() -> None:
    spec = a_foreign_spec(mode=Mode.PROPOSE, service_levels=("interactive",))
    seen = seeing(a_workload(5, selector="app=web"))
    decision = step(PoolConfig(), PoolState(a_hold()), spec, seen)
    (proposal,) = decision.state.proposals
    acting = step(PoolConfig(), PoolState(), replace(spec, mode=Mode.ENFORCE), seen).actions[0]
    history = journal.record((), journal.entry(acting, Outcome.RECORDED, AT, predicted="3 ready replicas"))
    verdicts = judge_pool(spec, decision.state, seen, decision.reasons[0])
    status = pool_status(spec, decision.state, seen, verdicts, history, StatusMemory())
    parsed = ServingPoolStatus.model_validate(status, extra="forbid")
    assert parsed.proposals[0].id == proposal.id
    assert parsed.held_knobs[0].before == "1"
    assert parsed.recent_decisions[0].outcome == "Recorded"
    assert parsed.service_levels[0].state == "Unknown"
    assert [one.type for one in parsed.conditions] == [verdict.type for verdict in verdicts]


def test_without_a_workload_an_owned_pool_still_says_how_to_find_its_pods() -> None:
    assert a_status(seeing(), StatusMemory())["selector"] == "trimtab.dev/pool=chat"
    assert a_status(seeing(), StatusMemory(), a_foreign_spec())["selector"] == ""
