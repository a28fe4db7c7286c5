"""Which request goes to the kernel next."""

from __future__ import annotations

from gpusession.kernels.admission import DEAD, MOVE, START, WORKER, Admission, Request
from tests.unit.kernels.messages import CLIENT, cell, message, own, request


def admit(queue: Admission) -> list[Request]:
    """Take all that may go at once."""
    found = []
    while (one := queue.next()) is not None:
        found.append(one)
    return found


def finish(queue: Admission, one: Request, status: str = "ok") -> None:
    queue.reply(one.id, {"status": status}, 1.0)
    queue.went_idle(one.id, 1.0)
    assert queue.landed(one)


def test_one_request_at_a_time_in_the_order_of_arrival() -> None:
    queue = Admission()
    cells = [cell(str(n)) for n in range(3)]
    for one in cells:
        queue.add(one)
    for one in cells:
        assert admit(queue) == [one]
        finish(queue, one)
    assert admit(queue) == []


def test_a_request_is_through_only_with_its_reply_and_its_idle() -> None:
    queue = Admission()
    one = cell()
    queue.add(one)
    admit(queue)
    queue.reply(one.id, {"status": "ok"}, 1.0)
    assert not queue.landed(one)
    queue.went_idle(one.id, 2.0)
    assert queue.landed(one)


def test_a_message_without_a_reply_is_through_with_its_idle() -> None:
    queue = Admission()
    one = request("history_forgotten")
    queue.add(one)
    admit(queue)
    queue.went_idle(one.id, 1.0)
    assert queue.landed(one)


def test_a_held_queue_lets_only_the_agents_requests_through() -> None:
    queue = Admission()
    ours, waiting, comm = own(), cell(), request("comm_msg")
    for one in (waiting, comm, ours):
        queue.add(one)
    queue.holds.add(MOVE)
    assert admit(queue) == [ours]
    finish(queue, ours)
    assert admit(queue) == []
    queue.holds.clear()
    assert admit(queue) == [waiting, comm]


def test_waiting_for_a_gpu_holds_cells_and_nothing_else() -> None:
    queue = Admission()
    waiting, complete = cell(), request("complete_request")
    queue.add(waiting)
    queue.add(complete)
    queue.holds.add(WORKER)
    assert admit(queue) == [complete]
    finish(queue, complete)
    queue.holds.add(DEAD)
    queue.add(request("inspect_request"))
    assert admit(queue) == []


def test_every_reason_to_hold_must_be_gone() -> None:
    queue = Admission()
    queue.add(cell())
    queue.holds |= {MOVE, START}
    queue.holds.discard(MOVE)
    assert admit(queue) == []
    queue.holds.discard(START)
    assert len(admit(queue)) == 1


def test_the_agents_request_goes_before_waiting_cells_but_not_beside_a_running_one() -> None:
    queue = Admission()
    running, waiting, ours = cell("a"), cell("b"), own()
    queue.add(running)
    queue.add(waiting)
    assert admit(queue) == [running]
    queue.add(ours)
    assert admit(queue) == []
    finish(queue, running)
    assert admit(queue) == [ours]
    finish(queue, ours)
    assert admit(queue) == [waiting]


def test_comms_and_subshells_pass_a_running_cell() -> None:
    queue = Admission()
    running, waiting, comm = cell("a"), cell("b"), request("comm_msg")
    beside = Request(message("execute_request", code="c"), [])
    beside.message.header["subshell_id"] = "s1"
    for one in (running, waiting, comm, beside):
        queue.add(one)
    assert admit(queue) == [running, comm, beside]
    assert comm.id not in queue.flying
    assert beside.id in queue.flying


def test_a_failed_cell_dooms_the_cells_that_wait_and_nothing_else() -> None:
    queue = Admission()
    failing, first, complete, second = cell("a"), cell("b"), request("complete_request"), cell("c")
    for one in (failing, first, complete, second):
        queue.add(one)
    admit(queue)
    queue.reply(failing.id, {"status": "error"}, 1.0)
    assert queue.take_doomed() == []
    queue.went_idle(failing.id, 1.0)
    assert queue.landed(failing)
    assert queue.take_doomed() == [first, second]
    assert admit(queue) == [complete]


def test_a_failed_cell_that_does_not_stop_on_error_dooms_nothing() -> None:
    for content in ({"stop_on_error": False}, {"silent": True}):
        queue = Admission()
        failing, after = cell("a", **content), cell("b")
        queue.add(failing)
        queue.add(after)
        admit(queue)
        finish(queue, failing, "error")
        assert queue.take_doomed() == []
        assert admit(queue) == [after]


def test_cells_that_succeeded_are_counted_and_the_agents_requests_are_not() -> None:
    queue = Admission()
    for one, status in (
        (cell(), "ok"),
        (own(), "ok"),
        (cell(), "error"),
        (request("complete_request"), "ok"),
    ):
        queue.add(one)
        admit(queue)
        finish(queue, one, status)
    assert queue.succeeded == 1


def test_the_same_signed_message_is_new_only_once() -> None:
    queue = Admission()
    one = message(sender=CLIENT, code="1")
    assert [queue.is_new(one) for _ in range(3)] == [True, False, False]


def test_what_runs_is_told_and_the_agents_work_is_not() -> None:
    queue = Admission()
    assert queue.in_flight is None
    queue.add(own())
    admit(queue)
    assert queue.in_flight is None
    queue.forget_own()
    queue.add(cell("train()"))
    admit(queue)
    assert queue.in_flight == "train()"


def test_taking_only_cells_leaves_the_rest_in_the_queue() -> None:
    queue = Admission()
    one, complete = cell(), request("complete_request")
    queue.add(one)
    queue.add(complete)
    queue.holds.add(MOVE)
    assert queue.take_waiting(cells_only=True) == [one]
    assert list(queue.waiting) == [complete]
    assert queue.take_waiting() == [complete]
