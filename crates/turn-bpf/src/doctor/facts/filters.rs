//! What others have attached to an interface at TC: tcx programs, and filters of the clsact qdisc.

use std::collections::BTreeMap;

use aya::programs::{SchedClassifier, tc::TcAttachType};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::host::{LoadedProgram, OUR_TC_PROGRAM};
use crate::netlink::{self, Message, Socket, attributes, number, text};
use crate::object::EGRESS_PROGRAM;

/// What is attached to one side of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hook {
    /// Programs of tcx, in the order in which they run. None where that cannot be told: before 6.6, or without
    /// CAP_SYS_ADMIN.
    pub tcx: Option<Vec<LoadedProgram>>,
    /// Filters of clsact in their order, by kind, and by name where it is a program's.
    pub filters: Vec<String>,
}

impl Hook {
    /// What others have there that turn-bpf's program is behind, or will be: it comes last.
    pub fn in_front(&self) -> Vec<String> {
        let programs = self.tcx.iter().flatten().take_while(|program| !is_ours(program.name.as_deref()));
        programs.map(LoadedProgram::to_string).collect()
    }

    /// What others have there that runs behind turn-bpf's.
    pub fn behind(&self) -> Vec<String> {
        let programs = self.tcx.iter().flatten().skip_while(|program| !is_ours(program.name.as_deref()));
        let programs = programs.filter(|program| !is_ours(program.name.as_deref()));
        let filters = self.filters.iter().filter(|name| !is_ours(name.strip_prefix("bpf ")));
        programs.map(LoadedProgram::to_string).chain(filters.cloned()).collect()
    }
}

/// Of an interface, what comes in and what leaves.
pub async fn gather(name: &str, ifindex: u32) -> [Hook; 2] {
    let of = async |attach_type, parent| Hook {
        tcx: tcx(name, attach_type),
        // Without the privilege to read them there are none to be told of.
        filters: filters(ifindex, parent).await.unwrap_or_default(),
    };
    [of(TcAttachType::Ingress, CLSACT_INGRESS).await, of(TcAttachType::Egress, CLSACT_EGRESS).await]
}

fn tcx(interface: &str, attach_type: TcAttachType) -> Option<Vec<LoadedProgram>> {
    let (_, programs) = SchedClassifier::query_tcx(interface, attach_type).ok()?;
    Some(programs.iter().map(|program| LoadedProgram::by_id(program.id())).collect())
}

/// turn-bpf's egress program among the filters of an interface, where another process holds it. Before 6.6 it is a filter, and one that
/// a dead daemon has left is nobody's.
pub(crate) async fn ours_of_another(ifindex: u32) -> Option<LoadedProgram> {
    let messages = dump(ifindex, CLSACT_EGRESS).await.ok()?;
    let options = messages.iter().filter_map(|message| {
        let (_, rest) = message.body.split_first_chunk::<TCMSG_LEN>()?;
        value_of(rest, TCA_OPTIONS)
    });
    let ours = options.filter(|options| is_ours(value_of(options, TCA_BPF_NAME).map(text).as_deref()));
    let ids = ours.filter_map(|options| number(value_of(options, TCA_BPF_ID)?));
    let is_of_another = |program: &LoadedProgram| {
        program.holder.as_ref().is_some_and(|holder| holder.pid != std::process::id())
    };
    ids.map(LoadedProgram::by_id).find(is_of_another)
}

async fn filters(ifindex: u32, parent: u32) -> Result<Vec<String>, netlink::Error> {
    Ok(named(&dump(ifindex, parent).await?))
}

async fn dump(ifindex: u32, parent: u32) -> Result<Vec<Message>, netlink::Error> {
    let socket = Socket::open(NETLINK_ROUTE)?;
    // `struct tcmsg`: family and padding, ifindex, handle, parent, info.
    let [handle, info] = [0_u32; 2];
    let tcmsg =
        [[0; 4], ifindex.to_ne_bytes(), handle.to_ne_bytes(), parent.to_ne_bytes(), info.to_ne_bytes()];
    socket.dump(RTM_GETTFILTER, tcmsg.as_flattened()).await
}

fn value_of(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// One for each priority: a classifier tells of its parts, too.
fn named(messages: &[Message]) -> Vec<String> {
    let mut by_priority = BTreeMap::new();
    for message in messages {
        let Some((header, rest)) = message.body.split_first_chunk::<TCMSG_LEN>() else { continue };
        let [.., i0, i1, i2, i3] = *header;
        let Some(kind) = value_of(rest, TCA_KIND).map(text) else { continue };
        let program = value_of(rest, TCA_OPTIONS).and_then(|options| value_of(options, TCA_BPF_NAME));
        let priority = u32::from_ne_bytes([i0, i1, i2, i3]) >> 16;
        let name = by_priority.entry(priority).or_insert_with(|| kind.clone());
        if let Some(program) = program.filter(|_| kind == "bpf") {
            *name = format!("bpf {}", text(program));
        }
    }
    by_priority.into_values().collect()
}

/// Whether a program of this name, of which the kernel may have kept 15 characters, is turn-bpf's own.
fn is_ours(name: Option<&str>) -> bool {
    name.is_some_and(|name| {
        [OUR_TC_PROGRAM, EGRESS_PROGRAM].iter().any(|ours| name.len() >= 15 && ours.starts_with(name))
    })
}

// include/uapi/linux/rtnetlink.h, pkt_sched.h, pkt_cls.h
const RTM_GETTFILTER: u16 = 46;
const TCMSG_LEN: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attribute;

    fn filter(priority: u32, kind: &[u8], program: Option<&[u8]>) -> Message {
        let options = program.map(|name| attribute(TCA_BPF_NAME, name)).unwrap_or_default();
        let mut body = vec![0; TCMSG_LEN - 4];
        body.extend((priority << 16 | 8).to_ne_bytes());
        body.extend(attribute(TCA_KIND, kind));
        body.extend(attribute(TCA_OPTIONS, &options));
        Message { kind: 44, body }
    }

    #[test]
    fn filters_are_named_once() {
        let messages = [
            filter(49152, b"u32\0", None),
            filter(49152, b"u32\0", None),
            filter(1, b"bpf\0", None),
            filter(1, b"bpf\0", Some(b"cil_to_netdev\0")),
            filter(2, b"bpf\0", Some(b"turn_bpf_egress\0")),
        ];
        let filters = named(&messages);
        assert_eq!(filters, ["bpf cil_to_netdev", "bpf turn_bpf_egress", "u32"]);
        let hook = Hook { tcx: None, filters };
        assert_eq!(
            (hook.in_front(), hook.behind()),
            (vec![], vec!["bpf cil_to_netdev".into(), "u32".into()])
        );
    }

    #[test]
    fn programs_in_front_of_ours_and_behind() {
        let program = |id, name: &str| LoadedProgram { id, name: Some(name.into()), holder: None };
        let tcx = vec![program(1, "first"), program(2, "turn_bpf_ingres"), program(3, "last")];
        let hook = Hook { tcx: Some(tcx), filters: Vec::new() };
        assert_eq!(
            (hook.in_front(), hook.behind()),
            (vec!["first (id 1)".into()], vec!["last (id 3)".into()])
        );
        let before_the_start = Hook { tcx: Some(vec![program(1, "first")]), filters: Vec::new() };
        assert_eq!((before_the_start.in_front().len(), before_the_start.behind().len()), (1, 0));
    }
}
