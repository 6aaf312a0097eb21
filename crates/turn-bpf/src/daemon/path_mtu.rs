//! Telling flows what their paths take, which the kernel's routing knows: from its tables, and from what routers say.

use std::cell::RefCell;
use std::net::SocketAddr;

use turn_datapath::{Flow, FlowKey, PathMtu};

use super::Daemon;
use crate::netlink::{self, Socket};
use crate::object::Plain;
use crate::route;

/// Most questions that wait. Whoever finds no room asks again at his next heartbeat, and until then learns from what the server sends.
const MOST_WAITING: usize = 1024;

/// A flow that has longer packets than the server was seen to send, and when it said so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    key: FlowKey,
    asked_at: u64,
}

impl Daemon {
    /// A flow asks what its path takes.
    pub(super) fn handle_longer(&mut self, key: FlowKey, asked_at: u64) {
        if self.longer.len() < MOST_WAITING {
            self.longer.push(Question { key, asked_at });
        }
    }
}

/// Answers what was asked. Where the kernel does not know, there is no answer.
pub(super) async fn answer(state: &RefCell<Daemon>) -> Result<(), netlink::Error> {
    let questions = std::mem::take(&mut state.borrow_mut().longer);
    if questions.is_empty() {
        return Ok(());
    }
    let socket = Socket::open(netlink_sys::protocols::NETLINK_ROUTE)?;
    for Question { key, asked_at } in questions {
        let Some(flow) = state.borrow().table.flow_of(&key) else { continue };
        let Flow { out_source, out_destination, out_source_port, out_destination_port, link_mtu, .. } = flow;
        let source = SocketAddr::new(out_source.into(), out_source_port.value());
        let destination = SocketAddr::new(out_destination.into(), out_destination_port.value());
        let Some(told) = route::path_mtu(&socket, source, destination, flow.out_ifindex).await? else {
            continue;
        };
        let mtu = told.of_route.unwrap_or(link_mtu.into());
        let answer = PathMtu { asked_at, mtu, reserved: 0 };
        tracing::debug!(%source, %destination, mtu, "path MTU");
        if let Err(error) = state.borrow_mut().path_mtus.insert(Plain(key), Plain(answer), 0) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot tell a flow what its path takes"
            );
        }
    }
    Ok(())
}
