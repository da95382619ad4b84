"""Arrays as scikit-learn takes them: a regression, with the default model.

python examples/arrays.py
thalweg compare examples/arrays.py:task
"""

from sklearn.datasets import load_diabetes

import thalweg
from thalweg import Task


def task(examples: int | None = None) -> Task:
    """The progress of diabetes from ten measurements; a loss of 1 is that of always saying the mean."""
    X, y = load_diabetes(return_X_y=True)
    return Task.from_arrays(X[:examples], y[:examples], name="diabetes", epochs=20)


if __name__ == "__main__":
    study = thalweg.compare(task(), optimizers=["sgd", "adagrad", "adam"], budget=5)
    print(study.advice())
