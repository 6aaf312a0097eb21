//! What the server agreed to.
