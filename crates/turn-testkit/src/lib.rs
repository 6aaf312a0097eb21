//! turn-testkit
