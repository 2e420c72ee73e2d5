"""One run with every field, which tests vary."""

from sharpness.study.run import Run

RUN = Run(
    data="cifar10",
    num_training=45_000,
    augment=False,
    model="simple_cnn",
    padding="alternating",
    init_scale=None,
    learning_rate=0.01,
    learning_rate_epochs=(),
    learning_rate_factor=0.0,
    batch_size=128,
    momentum=0.0,
    l2=0.0,
    precision="float32",
    gamma=1.0,
    gamma_outside=1.0,
    num_directions=5,
    direction_examples=2_500,
    direction_tolerance=0.05,
    direction_products=100,
    direction_precision="float32",
    epochs=100,
    plateau_patience=None,
    stop_patience=None,
    loss_bound=None,
    seed=0,
)
