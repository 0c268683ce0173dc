"""The plugin for a NOMAD Oasis."""
