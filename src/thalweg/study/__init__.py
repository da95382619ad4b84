"""A fair comparison of optimizers: task, plan, trials, statistics, report."""
