# %%
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
plt.rcParams["lines.linewidth"] = 3.5
# %%
fig, ax = plt.subplots(figsize=(4, 3))
(line,) = ax.plot([1, 2, 3], [1, 4, 9], label="squares")
ax.set_title("growth")
# %%
ax.plot([1, 2, 3], [1, 2, 3], label="linear")
print(len(ax.lines), line.get_linewidth(), ax.get_title(), fig.axes[0] is ax, line.axes is ax)
# %%
plt.xlabel("n")
print(ax.get_xlabel(), plt.gcf() is fig, plt.gca() is ax, plt.get_fignums())
# %%
line.set_ydata([0, 0, 0])
print(list(ax.lines[0].get_ydata()), [t.get_text() for t in ax.legend().get_texts()])
# %%
fig2 = plt.figure()
image = fig2.add_subplot(projection="3d")
print(plt.get_fignums(), plt.rcParams["lines.linewidth"], type(image).__name__)
# %%
fig.canvas.draw()
print(np.asarray(fig.canvas.buffer_rgba()).shape, plt.gcf() is fig2)
