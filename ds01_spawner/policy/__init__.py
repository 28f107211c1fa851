"""The lab's rules: what a user may have."""
