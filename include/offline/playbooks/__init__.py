"""Playbooks of the offline model: YAML files that state each turn. See docs/playbooks.md."""
