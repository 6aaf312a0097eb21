use turn_wire::stun::{AttributeType, Message};

/// Who a request says it is from, in clear (RFC 8489 sections 14.3 and 14.9).
///
/// It is the server that checks it. What a request says is known to be so only once the server has granted the request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    /// USERNAME, as it is on the wire.
    pub username: String,
    /// REALM, as it is on the wire.
    pub realm: Option<String>,
}

impl User {
    /// None where the request is not authenticated, names nobody, or says it in another way (USERHASH).
    pub(crate) fn of(request: &Message<'_>) -> Option<Self> {
        if !request.has_integrity() {
            return None;
        }
        let text = |kind, most| {
            let value = request.at_most_one(kind).ok()??.value;
            let text = str::from_utf8(value).ok().filter(|text| text.len() <= most)?;
            Some(text.to_owned())
        };
        Some(Self {
            username: text(AttributeType::USERNAME, LONGEST_USERNAME)?,
            realm: text(AttributeType::REALM, LONGEST_REALM),
        })
    }
}

/// RFC 8489 section 14.3: fewer than 509 bytes; RFC 5389 had 513.
const LONGEST_USERNAME: usize = 513;
/// RFC 8489 section 14.9.
const LONGEST_REALM: usize = 763;
