# %%
import io
import numpy as np
from PIL import Image, ImageDraw, ImageFilter
canvas = Image.new("RGB", (64, 48), (20, 30, 40))
pen = ImageDraw.Draw(canvas)
pen.ellipse((8, 8, 40, 40), fill=(200, 40, 40))
# %%
packed = io.BytesIO()
canvas.save(packed, format="PNG")
packed.seek(0)
opened = Image.open(packed)
tiles = {name: canvas.crop((x, 0, x + 16, 16)) for name, x in zip("abc", range(0, 48, 16))}
# %%
print(opened.format, opened.size, opened.mode, opened.getpixel((20, 20)))
# %%
kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
grey = np.asarray(canvas.convert("L"), dtype=float)
def convolve(image, weights):
    windows = np.lib.stride_tricks.sliding_window_view(image, weights.shape)
    return np.einsum("ijkl,kl->ij", windows, weights)
edges = convolve(grey, kernel)
windows = np.lib.stride_tricks.sliding_window_view(grey, (3, 3))
# %%
pen.rectangle((0, 0, 4, 4), fill=(0, 255, 0))
print(canvas.getpixel((2, 2)), edges.shape, edges.min(), edges.max())
# %%
blurred = canvas.filter(ImageFilter.GaussianBlur(2))
grey[0, 0] = 999
print(windows[0, 0, 0, 0], windows.shape, np.shares_memory(windows, grey), blurred.getpixel((20, 20)))
# %%
mosaic = Image.new("RGB", (48, 16))
for n, tile in enumerate(tiles.values()):
    mosaic.paste(tile, (16 * n, 0))
mosaic
# %%
print(np.asarray(mosaic).sum(), list(tiles), sum(mosaic.histogram()))
