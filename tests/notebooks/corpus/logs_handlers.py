# %%
import io, logging, sys
kept = io.StringIO()
log = logging.getLogger("shop")
log.setLevel(logging.DEBUG)
log.propagate = False
handler = logging.StreamHandler(kept)
handler.setFormatter(logging.Formatter("%(levelname)s|%(name)s|%(message)s"))
log.addHandler(handler)
# %%
class Counting(logging.Handler):
    def __init__(self):
        super().__init__()
        self.counts = {}
    def emit(self, record):
        self.counts[record.levelname] = self.counts.get(record.levelname, 0) + 1
class NoSecrets(logging.Filter):
    def filter(self, record):
        return "secret" not in record.getMessage()
counting = Counting()
log.addHandler(counting)
handler.addFilter(NoSecrets())
# %%
log.info("opened"); log.warning("a secret"); log.debug("quiet")
# %%
print(kept.getvalue(), counting.counts)
# %%
child = log.getChild("till")
child.setLevel(logging.ERROR)
adapter = logging.LoggerAdapter(log, {"who": "ann"})
adapter.error("closed")
screen = logging.StreamHandler(sys.stdout)
screen.setLevel(logging.CRITICAL)
log.addHandler(screen)
# %%
child.info("not heard"); child.error("heard")
print(kept.getvalue().splitlines()[-1], counting.counts, len(log.handlers), log.handlers[0] is handler, handler.stream is kept)
# %%
log.critical("on the screen")
# %%
log.removeHandler(counting)
log.error("no count")
print(counting.counts, logging.getLogger("shop") is log, child.parent is log, log.isEnabledFor(10))
