"""Saved states over a real server: rebuilding what was left, excluding, saving from a cell."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.service.session.desk import Desk, Notebook, eventually, signed_in


async def with_database(desk: Desk) -> Notebook:
    """A notebook that was moved without its connection."""
    notebook = await desk.open()
    await notebook.run("import sqlite3; n = 7")
    await notebook.run("conn = sqlite3.connect(':memory:')")
    await notebook.run("conn.execute(f'create table t as select {n} as n')\nprint('filled')")
    await notebook.run("x = 1")
    status = await notebook.flip("worker", left="accept")
    assert status["placement"] == "worker"
    assert "'conn' not in" in await notebook.run("print(\"'conn' not in\", 'conn' in globals())")
    return notebook


async def test_what_a_move_left_is_made_again_by_the_cells_that_made_it(desk: Desk) -> None:
    notebook = await with_database(desk)
    (left,) = [one for one in (await notebook.status())["last_verdict"] if one["verdict"] == "left"]
    assert left["name"] == "conn"
    assert "Cells [2], [3] make it again" in left["hint"]
    path = f"kernels/{notebook.kernel}/rebuild"
    plan = await desk.api("GET", path)
    assert plan["names"] == ["conn"]
    assert [one["number"] for one in plan["cells"]] == [2, 3]
    assert plan["cells"][0]["code"] == "conn = sqlite3.connect(':memory:')"
    assert plan == await desk.api("GET", f"{path}?name=conn")
    result = await desk.api("POST", path, json={"names": plan["names"], "cells": [2, 3]})
    assert result == {"ran": [2, 3], "failed": None, "error": None, "output": "filled\n"}
    assert await notebook.run("print(conn.execute('select n from t').fetchone())") == "(7,)\n"
    assert (await desk.api("GET", path))["cells"] == []


async def test_a_rebuild_that_nobody_agreed_to_runs_nothing(desk: Desk) -> None:
    notebook = await with_database(desk)
    path = f"kernels/{notebook.kernel}/rebuild"
    refusal = await desk.api("POST", path, expect=409, json={"names": None, "cells": [2]})
    assert "has changed" in refusal["message"]
    bad: list[Any] = [
        {},
        {"cells": "all"},
        {"cells": [[2]]},
        {"cells": [2], "names": [1]},
        {"cells": [2], "timeout_seconds": -1},
        {"cells": [2], "code": "import os"},
        [],
    ]
    for body in bad:
        await desk.api("POST", path, expect=400, json=body)
    await desk.api("GET", f"{path}?name={'x' * 2000}", expect=400)
    assert (await desk.api("GET", f"{path}?name=..%2f..%2fetc&name="))["cells"] == []
    assert (await desk.api("GET", "kernels/nope/rebuild", expect=404))["code"] == "not-found"
    assert await notebook.run("print('conn' in globals())") == "False\n"


async def test_a_cell_that_never_ends_is_interrupted_in_time(desk: Desk) -> None:
    notebook = await desk.open()
    await notebook.run("import os, time")
    await notebook.run("while os.path.exists('stay'): time.sleep(0.01)\nslow = 1")
    await notebook.run("open('stay', 'w').close(); del slow")
    path = f"kernels/{notebook.kernel}/rebuild"
    wish = {"names": ["slow"], "cells": [2], "timeout_seconds": 1}
    refusal = await desk.api("POST", path, expect=503, json=wish)
    assert "interrupted" in refusal["message"]
    assert await notebook.run("print(1)") == "1\n"


async def test_an_excluded_variable_stays_behind_without_a_question(desk: Desk) -> None:
    notebook = await desk.open()
    await notebook.run("f = open('/dev/null'); x = 1")
    assert await notebook.run("%gpustate exclude f") == "Not saved: f.\n"
    status = await notebook.flip("worker")
    assert status["placement"] == "worker", status["move"]
    (left,) = [one for one in status["last_verdict"] if one["verdict"] == "left"]
    assert (left["name"], left["excluded"]) == ("f", True)
    assert await notebook.run("%gpustate exclude") == "Not saved: f.\n"
    assert await notebook.run("print(x, 'f' in globals())") == "1 False\n"


async def test_a_save_from_a_cell_is_seen_by_the_page(desk: Desk) -> None:
    notebook = await desk.open()
    await notebook.run("import numpy as np; big = np.ones(500_000)")
    assert (await notebook.run("%gpustate save")).startswith("Saved as ")

    async def counted() -> bool:
        return bool((await desk.api("GET", "status"))["snapshots_bytes"] > 4_000_000)

    await eventually(counted, "the new size")
    (saved,) = (await desk.api("GET", "snapshots"))["snapshots"]
    assert (saved["reason"], saved["notebook"]) == ("manual", "a.ipynb")
    assert "Restored" in await notebook.run("%gpustate restore")


@pytest.mark.parametrize("placement", ["server", "worker"])
async def test_a_restore_and_a_deletion_of_the_same_state_at_once(desk: Desk, placement: str) -> None:
    notebook = await desk.open()
    await notebook.run("import numpy as np; big = np.ones(20_000_000); x = 1")
    if placement == "worker":
        await notebook.flip("worker")
    saved = await desk.api("POST", f"kernels/{notebook.kernel}/snapshots")
    await notebook.run("x = 2; big = None")
    wish = {"snapshot": saved["id"]}
    path = f"kernels/{notebook.kernel}/restore"
    answers = await asyncio.gather(
        *(
            desk.http.post(f"{desk.url}gpuhub/api/v1/{path}", json=wish, headers=signed_in())
            for _ in range(2)
        ),
        desk.http.delete(f"{desk.url}gpuhub/api/v1/snapshots/{saved['id']}", headers=signed_in()),
    )
    codes = [one.status for one in answers]
    assert set(codes) <= {200, 204, 404, 409, 422}, codes
    whole = "print(x == 1 and big.sum() == 20_000_000 or x == 2 and big is None)"
    assert await notebook.run(whole) == "True\n"


async def test_two_states_are_compared_and_the_use_of_the_home_is_said(desk: Desk) -> None:
    notebook = await desk.open()
    await notebook.run("import numpy as np; big = np.ones(500_000); x = 1; old = 2")
    path = f"kernels/{notebook.kernel}/snapshots"
    first = (await desk.api("POST", path))["id"]
    await notebook.run("x = 5; del old; new = 3")
    second = (await desk.api("POST", path))["id"]
    compared = await desk.api("GET", f"snapshots/{first}/compare/{second}")
    found = {one["name"]: one["change"] for one in compared["variables"]}
    assert found == {"big": "same", "np": "same", "x": "changed", "old": "removed", "new": "added"}
    one = await desk.api("GET", f"snapshots/{second}")
    assert (one["id"], one["reason"], one["kept"]) == (second, "manual", 4)
    status = await desk.api("GET", "status")
    assert status["snapshots_limit_bytes"] == 20_000_000_000
    assert status["snapshots_per_notebook"] == 5
    assert status["snapshots_bytes"] < one["bytes"] * 2, "what two share counts once"
    for wrong in (f"snapshots/{first}/compare/nope", "snapshots/..%2f..%2fetc", "snapshots/nope"):
        assert (await desk.api("GET", wrong, expect=404))["code"] == "not-found"
    (desk.home / ".local/share/gpuhub/snapshots" / first / "manifest.json").write_text("{}")
    await desk.api("GET", f"snapshots/{first}/compare/{second}", expect=422)


async def test_the_states_of_another_notebook_are_taken_only_when_they_are_named(desk: Desk) -> None:
    first, second = await desk.open("a.ipynb"), await desk.open("b.ipynb")
    await first.run("x = 'of a'; y = 1")
    await first.run("%gpustate save")
    await second.run("x = 'of b'")
    assert "Nothing of this notebook" in await second.run("%gpustate list")
    assert "no saved state of this notebook" in await second.run("%gpustate restore")
    (saved,) = (await desk.api("GET", "snapshots"))["snapshots"]
    assert (await desk.api("GET", f"kernels/{second.kernel}/snapshots"))["snapshots"] == []
    wish = {"snapshot": saved["id"], "names": ["x"]}
    await desk.api("POST", f"kernels/{second.kernel}/restore", json=wish)
    assert await second.run("print(x, 'y' in globals())") == "of a False\n"
    wish["names"] = ["nope"]
    await desk.api("POST", f"kernels/{second.kernel}/restore", json=wish, expect=404)
    assert await second.run("print(x)") == "of a\n"
