# %%
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import keras
import tensorflow as tf
keras.utils.set_random_seed(3)
X = np.random.rand(64, 5).astype("float32")
y = (X.sum(1, keepdims=True) > 2.5).astype("float32")
# %%
inputs = keras.Input((5,))
hidden = keras.layers.Dense(8, activation="relu", name="hidden")(inputs)
outputs = keras.layers.Dense(1, activation="sigmoid")(hidden)
model = keras.Model(inputs, outputs)
encoder = keras.Model(inputs, hidden)
model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
# %%
class Keep(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.losses = []
    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(round(logs["loss"], 4))
keep = Keep()
first = model.fit(X, y, epochs=2, shuffle=False, verbose=0, callbacks=[keep])
# %%
print(len(keep.losses), int(model.optimizer.iterations), model.get_layer("hidden") is encoder.get_layer("hidden"))
# %%
model.fit(X, y, epochs=1, shuffle=False, verbose=0, callbacks=[keep])
print([float(np.round(v, 3)) for v in keep.losses], encoder(X[:1]).numpy().round(4).tolist())
# %%
class Scale(keras.layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), initializer="ones")
    def call(self, x):
        return x * self.w
stack = keras.Sequential([Scale(), model])
step = tf.Variable(0, trainable=False)
@tf.function
def advance():
    step.assign_add(1)
    return step * 2
# %%
print(stack(X[:2]).shape, int(advance()), len(stack.trainable_variables))
# %%
with tf.GradientTape() as tape:
    loss = tf.reduce_mean((stack(X) - y) ** 2)
grads = tape.gradient(loss, stack.trainable_variables)
sgd = keras.optimizers.SGD(0.1)
sgd.apply(grads, stack.trainable_variables)
print(round(float(loss), 4), int(advance()))
# %%
print(stack.layers[0].w.numpy().round(4).tolist(), keras.layers.Dense(1).name, int(sgd.iterations))
