"""Do training-free proxies rank designs as training does? Designs trained on equal terms, and the rank correlation of every
proxy."""
