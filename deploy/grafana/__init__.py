"""The dashboard: its definition for Grafana, and a script that draws it without one."""
