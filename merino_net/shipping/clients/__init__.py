"""Scripts that run an artefact in its own runtime, in a process without this package; `shipping.runtimes` starts them."""
