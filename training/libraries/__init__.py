"""The RL libraries that can train proxies: a registry, and one adapter a file."""
