# %%
import numpy as np
from scipy import ndimage
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
rng = np.random.default_rng(7)
noise = rng.random((40, 40))
field = ndimage.gaussian_filter(noise, 3)
mask = field > field.mean()
# %%
labels, count = ndimage.label(mask)
objects = ndimage.find_objects(labels)
masked = np.ma.masked_where(~mask, field)
largest = max(objects, key=lambda box: np.prod([s.stop - s.start for s in box]))
# %%
print(count, [[(s.start, s.stop) for s in box] for box in objects][:3], round(float(masked.mean()), 6))
# %%
fig, axes = plt.subplots(1, 2, figsize=(4, 2), dpi=50)
shown = axes[0].imshow(field, cmap="magma")
bar = fig.colorbar(shown, ax=axes[0])
crop = field[largest]
# %%
axes[1].imshow(labels, cmap=plt.get_cmap("tab10"), interpolation="none")
axes[1].set_axis_off()
shown.set_clim(0.4, 0.6)
print(len(fig.axes), shown.get_clim(), bar.vmin, crop.base is not None)
# %%
field[largest] *= 2
print(np.shares_memory(crop, field), round(float(crop.max()), 6))
# %%
fig.canvas.draw()
pixels = np.asarray(fig.canvas.buffer_rgba())
print(pixels.shape, int(pixels.astype(np.int64).sum()))
# %%
structure = np.broadcast_to(np.eye(3, dtype=bool), (2, 3, 3))
print(structure.flags.writeable, structure.sum(), ndimage.sum_labels(field, labels, [1]).round(5))
