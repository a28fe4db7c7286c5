"""What the agent promises around the variables: consent, silence, limits of time, surroundings, parts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.unit.state.processes import Shell, left, verdicts


def test_something_left_needs_consent_and_nothing_is_written_without(first: Shell, snapshots: Path) -> None:
    first.run("numbers = (n for n in range(9)); next(numbers); x = 1")
    refusal = first.handle("save", folder=str(snapshots), meta={}, accept="none")
    assert refusal["code"] == "left-needs-consent"
    assert {one["name"]: one["verdict"] for one in refusal["details"]["verdicts"]} == {
        "numbers": "left",
        "x": "kept",
    }
    assert not snapshots.exists()
    assert first.handle("save", folder=str(snapshots), meta={}, accept=["x"])["code"] == "left-needs-consent"
    assert left(first.save(snapshots, accept=["numbers"])).keys() == {"numbers"}
    assert first.value("next(numbers)") == "1"


def test_a_left_variable_says_which_cell_makes_it(first: Shell, snapshots: Path) -> None:
    first.run("import sqlite3", "connection = sqlite3.connect(':memory:')", "x = 1")
    saved = verdicts(first.save(snapshots, accept="all"))
    assert saved["connection"]["type"] == "sqlite3.Connection"
    assert "[2]" in saved["connection"]["hint"]


def test_check_says_what_save_would_and_writes_nothing(first: Shell, snapshots: Path, work: Path) -> None:
    first.run("import numpy as np\nbig = np.ones(30_000_000)\ngen = (n for n in big)")
    first.run("next(gen)\ndef f(): return big")
    began = time.monotonic()
    found = first.handle("check")
    assert time.monotonic() - began < 5
    assert verdicts(found)["big"]["bytes"] >= 240_000_000
    assert found["bytes"] >= 240_000_000
    assert list(work.iterdir()) == []
    saved = first.save(snapshots, accept="all")
    assert {n: v["verdict"] for n, v in verdicts(saved).items()} == {
        n: v["verdict"] for n, v in verdicts(found).items()
    }


def test_nothing_is_printed_and_no_name_is_added(first: Shell, second: Shell, snapshots: Path) -> None:
    first.run(
        "class Loud:\n"
        "    def __reduce__(self):\n        print('saving')\n        return build, ()\n"
        "def build():\n    print('loading')\n    return Loud()\n"
        "loud = Loud()"
    )
    names = first.value("sorted(globals())")
    saved = first.save(snapshots)  # the process's own standard output is the test's protocol
    assert set(eval(first.value("sorted(globals())"))) - set(eval(names)) == {"_i3"}
    second.load(snapshots / saved["snapshot"])
    assert second.value("type(loud) is Loud") == "True"
    assert "quiet" in second.run("print('quiet')")


@pytest.mark.parametrize(
    "hang",
    [
        "import time; time.sleep(1000)",
        "while True: pass",
        "import threading; threading.Lock().acquire() and threading.Event().wait()",
    ],
)
def test_an_object_that_hangs_when_asked_costs_only_itself(work: Path, snapshots: Path, hang: str) -> None:
    with Shell(work, "0.5") as shell:
        shell.run(
            "class Hangs:\n    def __reduce__(self):\n"
            f"        try:\n            {hang}\n        except Exception: pass\n        return Hangs, ()\n"
            "bad = Hangs(); good = [1]; both = [good]"
        )
        began = time.monotonic()
        saved = shell.save(snapshots, accept="all")
        assert time.monotonic() - began < 30
        assert left(saved).keys() == {"bad"}
        assert "too long" in left(saved)["bad"]
        with Shell(work) as other:
            other.load(snapshots / saved["snapshot"])
            assert other.value("(good, both[0] is good, Hangs.__name__)") == "([1], True, 'Hangs')"


def test_an_object_that_hangs_or_crashes_when_loaded_is_found_out_at_the_save(
    work: Path, snapshots: Path
) -> None:
    with Shell(work, "1") as shell:
        shell.run(
            "import time, os, signal\n"
            "def wait(): time.sleep(1000)\n"
            "def crash(): os.kill(os.getpid(), signal.SIGSEGV)\n"
            "def fail(): raise RuntimeError('no')\n"
            "class R:\n    def __init__(self, f): self.f = f\n    def __reduce__(self): return self.f, ()\n"
            "waits, crashes, fails = R(wait), R(crash), R(fail)\n"
            "shared = []; fine = [shared]; mixed = [shared, R(fail)]"
        )
        saved = shell.save(snapshots, accept="all")
        assert left(saved).keys() == {"waits", "crashes", "fails", "mixed"}
        assert "crashes" in left(saved)["crashes"]
        assert "RuntimeError" in left(saved)["fails"]
        with Shell(work) as other:
            assert left({"verdicts": [*other.load(snapshots / saved["snapshot"]).values()]}).keys() == {
                "waits",
                "crashes",
                "fails",
                "mixed",
            }
            assert other.value("fine[0] is shared") == "True"


def test_what_a_trial_does_stays_in_the_trial(first: Shell, snapshots: Path) -> None:
    first.run(
        "made = []\ndef build():\n    made.append(1)\n    return T()\n"
        "class T:\n    def __reduce__(self): return build, ()\nt = T()"
    )
    first.save(snapshots)
    assert first.value("made") == "[]"


def test_an_object_that_cleans_up_is_not_loaded_on_trial(first: Shell, snapshots: Path, work: Path) -> None:
    first.run(
        "import os\nopen('precious', 'w').close()\nclass Owner:\n"
        "    def __del__(self): os.unlink('precious')\nowner = Owner()"
    )
    first.save(snapshots)
    assert (work / "precious").exists()


def test_a_loader_that_needs_a_name_of_another_component_is_loaded_after_it(
    first: Shell, second: Shell, snapshots: Path
) -> None:
    first.run(
        "class T:\n    def __init__(self, v): self.v = v\n"
        "    def __reduce__(self): return again, (self.v,)\n"
        "def again(v): return T(TABLE[v])\n"
        "TABLE = {1: 1}\nclass Key(int): pass\nt = T(1)"
    )
    saved = first.save(snapshots)
    second.load(snapshots / saved["snapshot"])
    assert second.value("(t.v, type(t) is T)") == "(1, True)"


def test_surroundings_travel(first: Shell, second: Shell, snapshots: Path, work: Path) -> None:
    (work / "below").mkdir()
    first.run(
        "import os, sys, random, warnings, decimal, logging, numpy as np\n"
        "os.environ['MINE'] = '7'; os.environ.pop('HOME')\n"
        "os.chdir('below'); sys.path.insert(0, '/nowhere')\n"
        "random.seed(3); np.random.seed(4); sys.setrecursionlimit(4321)\n"
        "import sklearn; sklearn.set_config(transform_output='pandas')\n"
        "import builtins; builtins.twice = lambda x: 2 * x\n"
        "warnings.simplefilter('ignore'); decimal.getcontext().prec = 9\n"
        "logging.basicConfig(filename='log.txt', level=15)\n"
        "logging.warning('one')",
        "%xmode Plain",
        "%precision 3",
        "get_ipython().ast_node_interactivity = 'all'",
        "%load_ext autoreload",
        "%autoreload 2",
        "from __future__ import annotations",
        "7 * 6",
    )
    expected = first.value("(random.random(), np.random.rand(), len(In), _)")
    first.run("random.seed(3); np.random.seed(4)")
    saved = first.save(snapshots)
    second.load(snapshots / saved["snapshot"])
    assert second.value(
        "(os.environ['MINE'], 'HOME' in os.environ, os.path.basename(os.getcwd()), sys.path[0])"
    ) == ("('7', False, 'below', '/nowhere')")
    assert second.value("(random.random(), np.random.rand())")[1:-1] in expected
    assert second.value(
        "(sys.getrecursionlimit(), warnings.filters[0][0], decimal.getcontext().prec, logging.root.level)"
    ) == ("(4321, 'ignore', 9, 15)")
    assert second.value("(sklearn.get_config()['transform_output'], twice(4))") == "('pandas', 8)"
    assert second.value("get_ipython().ast_node_interactivity") == "all"
    assert second.value(
        "(get_ipython().InteractiveTB.mode, 'AutoreloadMagics' in get_ipython().magics_manager.registry)"
    ) == ("('Plain', True)")
    assert "1.235" in second.run("1.23456")
    second.run("logging.warning('two')")
    assert "one\n" in (work / "below" / "log.txt").read_text()
    assert "two\n" in (work / "below" / "log.txt").read_text()


def test_history_goes_on_where_it_was(first: Shell, second: Shell, snapshots: Path) -> None:
    first.run("x = [1]", "x", "3 + 4")
    saved = first.save(snapshots)
    second.load(snapshots / saved["snapshot"])
    assert second.run("Out[2] is x, _, _2 is x, In[1], _i").strip() == (
        "Out[4]: (True, 7, True, 'x = [1]', '3 + 4')"
    )
    assert second.run("_3, _4[1], __").count("7") == 3


def test_an_underscore_of_ones_own_is_a_variable(first: Shell, second: Shell, snapshots: Path) -> None:
    first.run("5", "for _ in range(3): pass")
    saved = first.save(snapshots)
    second.load(snapshots / saved["snapshot"])
    assert second.value("_") == "2"


def test_hooks_magics_and_formats_of_the_notebook_travel(
    first: Shell, second: Shell, snapshots: Path
) -> None:
    first.run(
        "ran = []\n"
        "def count(*_): ran.append(1)\n"
        "ip = get_ipython(); ip.events.register('post_run_cell', count)\n"
        "from IPython.core.magic import register_line_magic\n"
        "@register_line_magic\n"
        "def shout(line): return line.upper()\n"
        "class P: pass\n"
        "ip.display_formatter.formatters['text/plain'].for_type(P, lambda o, p, c: p.text('a P!'))"
    )
    saved = first.save(snapshots, accept="all")
    second.load(snapshots / saved["snapshot"])
    assert "'HI'" in second.run("%shout hi")
    assert "a P!" in second.run("P()")
    assert int(second.value("len(ran)")) >= 3


def test_modules_of_ones_own_keep_what_they_hold(
    first: Shell, second: Shell, snapshots: Path, work: Path
) -> None:
    (work / "tools.py").write_text(
        "import threading\nCOUNT = 0\nCACHE = {}\nLOCK = threading.Lock()\n"
        "class Config:\n    level = 1\nconfig = Config()\n"
        "def bump():\n    global COUNT\n    COUNT += 1\n    return COUNT\n"
    )
    first.run(
        "import sys; sys.path.insert(0, '')\nimport tools\nfrom tools import config, bump\n"
        "bump(); bump(); config.level = 9; mine = tools.CACHE; mine['k'] = [1]\n"
        "tools.helper = lambda: tools.COUNT"
    )
    saved = first.save(snapshots, accept="all")
    second.load(snapshots / saved["snapshot"])
    assert second.value(
        "(bump(), tools.COUNT, config.level, config is tools.config, mine is tools.CACHE)"
    ) == ("(3, 3, 9, True, True)")
    assert second.value("(tools.helper(), isinstance(config, tools.Config))") == "(3, True)"


def test_background_threads_are_named(first: Shell, snapshots: Path) -> None:
    first.run(
        "import threading\ndef work(): threading.Event().wait(20)\n"
        "threading.Thread(target=work, daemon=True, name='fetcher').start()"
    )
    assert left(first.save(snapshots, accept="all")).keys() == {"thread fetcher"}


def test_a_named_part_is_loaded_with_what_it_shares_and_nothing_else(
    first: Shell, second: Shell, snapshots: Path
) -> None:
    first.run("import os; os.environ['MINE'] = '1'; a = [1]; b = {'a': a}; c = 3; d = a")
    saved = first.save(snapshots)
    second.run("c = 'mine'; d = 'mine'")
    loaded = second.load(snapshots / saved["snapshot"], ["a", "b"])
    assert set(loaded) == {"a", "b"}
    assert second.value("(a, b['a'] is a, c, d, 'MINE' in __import__('os').environ)") == (
        "([1], True, 'mine', 'mine', False)"
    )
    refusal = second.handle("load", folder=str(snapshots / saved["snapshot"]), names=["a", "zz"])
    assert refusal["code"] == "not-found"


def test_what_fails_at_the_load_is_left_and_the_rest_is_loaded(
    first: Shell, second: Shell, snapshots: Path, work: Path
) -> None:
    (work / "gone.py").write_text("class G: pass\n")
    first.run("import sys; sys.path.insert(0, '')\nimport gone\ng = gone.G(); x = [1]; y = [x]")
    saved = first.save(snapshots)
    (work / "gone.py").unlink()
    loaded = second.load(snapshots / saved["snapshot"])
    assert {name for name, one in loaded.items() if one["verdict"] == "left"} >= {"g", "gone"}
    assert "ModuleNotFoundError" in loaded["g"]["reason"]
    assert second.value("(y[0] is x, 'g' in globals())") == "(True, False)"


def test_modules_and_prepare_import_beforehand(first: Shell, second: Shell) -> None:
    first.run("import xml.dom.minidom as md, json; from fractions import Fraction; f = Fraction(1, 2)")
    names = first.handle("modules")["modules"]
    assert {"xml.dom.minidom", "json", "fractions"} <= set(names)
    assert second.handle("prepare", modules=[*names, "no.such.module"])["failed"].keys() == {"no.such.module"}
    assert second.value("'xml.dom.minidom' in __import__('sys').modules") == "True"
    assert second.value("[n for n in globals() if n in ('md', 'json', 'fractions')]") == "[]"


def test_ping_says_which_python(first: Shell) -> None:
    import platform

    assert first.handle("ping")["python"] == platform.python_version()


def test_saved_moved_and_saved_again_nothing_wears_off(work: Path, snapshots: Path) -> None:
    """There and back five times: views stay views, sizes stay the same."""
    cells = (
        "import numpy as np, pandas as pd\n"
        "a = np.arange(500_000.0); v = a[::2]; t = a.reshape(500, 1000).T\n"
        "df = pd.DataFrame({'a': [1, 2]}); s = df['a']\n"
        "class C: pass\nc = C(); c.a = a; fib = lambda n: n if n < 2 else fib(n - 1) + fib(n - 2)"
    )
    sizes, shell = [], Shell(work).__enter__()
    shell.run(cells)
    for _ in range(4):
        saved = shell.save(snapshots)
        sizes.append(saved["bytes"])
        shell.__exit__(None, None, None)
        shell = Shell(work).__enter__()
        shell.load(snapshots / saved["snapshot"])
        check = (
            "(np.shares_memory(a, v), np.shares_memory(a, t), v.base is a, c.a is a, type(c) is C, fib(9))"
        )
        assert shell.value(check) == "(True, True, True, True, True, 34)"
        assert shell.value("(df.loc.__setitem__((0, 'a'), 1), s.tolist())[1]") == "[1, 2]"
    shell.__exit__(None, None, None)
    assert max(sizes) - min(sizes) < 5000
    assert max(sizes) < 4_100_000


CLASSES = (
    "import enum\nclass Base:\n    count = 0\n    def hi(self): return 'hi'\n"
    "class Thing(Base):\n    def __init__(self): Base.count += 1\n"
    "class Color(enum.Enum):\n    RED = 1\n    BLUE = 2"
)


def test_a_named_part_is_of_the_classes_that_the_notebook_has_defined_again(
    first: Shell, second: Shell, snapshots: Path
) -> None:
    first.run(CLASSES, "thing = Thing(); pair = [thing, Color.RED]; plain = 3")
    saved = first.save(snapshots)
    second.run(CLASSES, "new = Thing(); Base.count = 7")
    found = second.load(snapshots / saved["snapshot"], ["pair"])
    assert found["pair"]["reason"] is None
    assert (
        second.value("(type(pair[0]) is Thing, isinstance(pair[0], Base), pair[0].hi())")
        == "(True, True, 'hi')"
    )
    assert second.value(
        "(pair[1] is Color.RED, Color.RED.name, list(Color), Base.count, Base.__subclasses__())"
    ) == ("(True, 'RED', [<Color.RED: 1>, <Color.BLUE: 2>], 7, [<class '__main__.Thing'>])")
    assert second.value("('thing' in globals(), 'plain' in globals())") == "(False, False)"


def test_a_named_part_whose_class_was_changed_keeps_the_saved_class_and_says_so(
    first: Shell, second: Shell, snapshots: Path
) -> None:
    first.run(CLASSES, "thing = Thing()")
    saved = first.save(snapshots)
    second.run(CLASSES.replace("'hi'", "'ho'"))
    found = second.load(snapshots / saved["snapshot"], ["thing"])
    assert "Base" in found["thing"]["reason"]
    assert second.value("(thing.hi(), Base().hi())") == "('hi', 'ho')"


def test_a_class_that_is_asked_for_is_loaded_as_it_was_saved(
    first: Shell, second: Shell, snapshots: Path
) -> None:
    first.run(CLASSES, "thing = Thing()")
    saved = first.save(snapshots)
    second.run(CLASSES)
    second.load(snapshots / saved["snapshot"], ["thing", "Thing", "Base", "Color"])
    assert second.value("(type(thing) is Thing, Base.count)") == "(True, 1)"


def test_variables_and_results_come_back_in_their_order(first: Shell, second: Shell, snapshots: Path) -> None:
    first.run("z = [1]", "a = 2", "z", "m = [z]", "def f(): return a", "5", "b = f")
    saved = first.save(snapshots)
    second.load(snapshots / saved["snapshot"])
    assert second.value("[n for n in globals() if n in 'zambf']") == "['z', 'a', 'm', 'f', 'b']"
    assert second.value("list(Out)") == "[3, 6]"


def test_a_class_without_a_module_does_not_stop_a_save(first: Shell, second: Shell, snapshots: Path) -> None:
    first.run(
        "Odd = type('Odd', (), {}); Odd.__module__ = None",
        "odd = Odd(); big = [odd, 'x' * 2_000_000]; more = [odd]",
    )
    saved = first.save(snapshots)
    second.load(snapshots / saved["snapshot"])
    assert second.value("big[0] is more[0] is odd and type(odd) is Odd") == "True"
