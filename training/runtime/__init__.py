"""Before and around Keras: backend, terminal, interrupts."""
