"""Proxies: scripted and learned."""
