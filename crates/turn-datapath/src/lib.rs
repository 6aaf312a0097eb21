//! What to do with a packet.
#![no_std]
