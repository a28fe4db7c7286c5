"""Which comms are alive."""

from __future__ import annotations

from gpusession.kernels.comms import Comms
from tests.unit.kernels.messages import message


def test_comms_that_were_open_die_with_their_process() -> None:
    comms = Comms()
    for comm_id in ("a", "b"):
        comms.note(message("comm_open", comm_id=comm_id))
    comms.note(message("comm_close", comm_id="b"))
    assert comms.die() == ["a"]
    assert comms.die() == []
    assert comms.addressed_to_dead(message("comm_msg", comm_id="a"))
    assert not comms.addressed_to_dead(message("comm_msg", comm_id="b"))
    assert not comms.addressed_to_dead(message("execute_request", code="1"))
