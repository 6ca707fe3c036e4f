"""Write the files of this folder that Keras made: run it where TensorFlow and tf2onnx are installed, not here.

    python3 -m venv venv && venv/bin/pip install tensorflow-cpu==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnx==1.23.2
    venv/bin/python write_keras.py

Every network is written with five inputs and what Keras itself gives for them.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_USE_LEGACY_KERAS"] = "0"

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import layers

FOLDER = Path(__file__).parent


def networks() -> dict[str, keras.Model]:
    """Return small networks with the layers that people use."""
    table, picture = keras.Input((6,)), keras.Input((6, 6, 1))
    dense = layers.Dense(3, activation="softmax")(layers.Dense(8, activation="relu")(table))
    conv = layers.Conv2D(4, 3, padding="same", activation="relu")(picture)
    conv = layers.MaxPooling2D()(layers.BatchNormalization()(conv))
    conv = layers.Dense(3)(layers.Flatten()(layers.Dropout(0.3)(conv)))
    separable = layers.DepthwiseConv2D(3, activation="relu")(picture)
    separable = layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1, activation="relu")(separable)))
    smooth = keras.ops.gelu(
        layers.Dense(8)(table), approximate=True
    )  # tf2onnx 1.17.0 leaves the exact one (Erfc) as it is
    smooth = layers.Dense(3, activation="sigmoid")(layers.Add()([smooth, layers.Dense(8, activation="silu")(table)]))
    normed = layers.Dense(3)(layers.LeakyReLU(negative_slope=0.1)(layers.LayerNormalization()(layers.Dense(8)(table))))
    sequence = keras.Input((5, 2))
    recurrent = layers.Dense(3)(layers.LSTM(4)(sequence))
    return {
        "dense": keras.Model(table, dense),
        "conv": keras.Model(picture, conv),
        "separable": keras.Model(picture, separable),
        "smooth": keras.Model(table, smooth),
        "normed": keras.Model(table, normed),
        "recurrent": keras.Model(sequence, recurrent),
    }


def main() -> None:
    """Write each network by both exporters."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    for name, model in networks().items():
        shape = model.inputs[0].shape[1:]
        for weights in model.weights:  # no statistics that are 0 and 1
            weights.assign(weights + rng.uniform(0.05, 0.3, weights.shape))
        inputs = rng.random((5, *shape)).astype(np.float32)
        np.savez(FOLDER / f"keras_{name}.npz", inputs=inputs, outputs=np.asarray(model(inputs, training=False)))
        try:
            model.export(FOLDER / f"keras_{name}.onnx", format="onnx", verbose=False)
        except Exception as error:
            print(f"Keras 3's exporter, {name}: {type(error).__name__}: {error}")
        signature = (tf.TensorSpec((None, *shape), tf.float32, name="x"),)
        function = tf.function(lambda x, model=model: model(x, training=False), input_signature=signature)
        tf2onnx.convert.from_function(
            function, input_signature=signature, opset=17, output_path=str(FOLDER / f"tf2onnx_{name}.onnx")
        )


if __name__ == "__main__":
    main()
