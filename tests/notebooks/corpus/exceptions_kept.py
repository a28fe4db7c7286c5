# %%
class AppError(Exception):
    def __init__(self, code, message):
        super().__init__(code, message)
        self.code = code
# %%
try:
    raise AppError(7, "seven")
except AppError as error:
    kept = error
try:
    try:
        {}["k"]
    except KeyError as inner:
        raise ValueError("outer") from inner
except ValueError as error:
    chained = error
group = ExceptionGroup("many", [ValueError(1), kept])
# %%
print(kept.code, kept.args, chained.__cause__.args, len(group.exceptions))
# %%
try:
    raise kept
except AppError as again:
    print(again is kept, isinstance(group.exceptions[1], AppError), group.exceptions[1] is kept)
# %%
print(type(kept) is AppError, repr(chained))
