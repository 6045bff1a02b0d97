"""Read MLflow, aggregate, draw. Nothing here imports torch, Ray or Optuna."""
