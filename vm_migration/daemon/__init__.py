"""The life of a daemon: configuration, signals, readiness, hooks, status over MQTT."""
