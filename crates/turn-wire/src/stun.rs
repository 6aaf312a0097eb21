//! STUN messages (RFC 8489) as a strict reader sees them.
