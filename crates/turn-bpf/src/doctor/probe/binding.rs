//! STUN Binding: how a server sees a socket, and what it calls itself.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};
use turn_client_proto::stun::types::message::{BINDING, Message as Request, MessageWriteVec};
use turn_client_proto::stun::types::prelude::MessageWrite as _;
use turn_wire::stun::{AttributeType, Class, Message, Method};

/// What a success response says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// XOR-MAPPED-ADDRESS: the socket's address, as the server sees it.
    pub mapped: Option<SocketAddr>,
    /// SOFTWARE.
    pub software: Option<String>,
}

impl Binding {
    fn read(message: &Message<'_>) -> Self {
        Self { mapped: address(message, AttributeType::XOR_MAPPED_ADDRESS), software: software(message) }
    }
}

/// Asks a server. None where no success comes within `patience`: some answer with an error, some not at all.
pub async fn ask(socket: &UdpSocket, server: SocketAddr, patience: Duration) -> Option<Binding> {
    let request = Request::builder_request(BINDING, MessageWriteVec::new()).finish();
    let end = Instant::now() + patience;
    let mut buffer = [0; 1500];
    while Instant::now() < end {
        // An error may be that of an earlier attempt.
        let _ = socket.send_to(&request, server).await;
        let again = end.min(Instant::now() + RETRANSMISSION);
        while let Ok(received) = timeout_at(again, socket.recv_from(&mut buffer)).await {
            let Ok((length, source)) = received else { break };
            let Ok(message) = Message::parse(buffer.get(..length)?) else { continue };
            if source == server && message.method() == Method::BINDING {
                return (message.class() == Class::SuccessResponse).then(|| Binding::read(&message));
            }
        }
        tokio::time::sleep_until(again).await;
    }
    None
}

/// The one address of this kind in a message.
pub fn address(message: &Message<'_>, kind: AttributeType) -> Option<SocketAddr> {
    message.exactly_one(kind).ok()?.xor_address(message.transaction_id()).ok()
}

/// SOFTWARE, without what no terminal should get.
pub fn software(message: &Message<'_>) -> Option<String> {
    let software = message.attributes().find(|attribute| attribute.kind == AttributeType::SOFTWARE)?;
    Some(printable(software.value))
}

/// Somebody else's text, fit for a terminal.
pub fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.trim_end_matches('\0').chars().map(|c| if c.is_control() { '?' } else { c }).take(100).collect()
}

const RETRANSMISSION: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_calls_itself_cannot_steer_a_terminal() {
        assert_eq!(printable(b"Coturn-4.6.1 'Gorst'\0"), "Coturn-4.6.1 'Gorst'");
        assert_eq!(printable(b"\x1b[2Jx\xff"), "?[2Jx\u{fffd}");
    }
}
