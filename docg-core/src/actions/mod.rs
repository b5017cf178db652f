//! Recommended actions: what a person can do about an issue or an error.
