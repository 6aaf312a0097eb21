//! Of the TURN server itself.

use super::super::{Check, Facts, Group};

/// All of these.
pub fn checks(facts: &Facts) -> Vec<Check> {
    vec![server(facts)]
}

fn server(facts: &Facts) -> Check {
    let check = Group::Server.check("server", "server");
    let server = &facts.server;
    let port = server.port;
    if !server.sockets_are_told {
        return check.skip("the kernel does not tell who listens where (CONFIG_INET_UDP_DIAG)");
    }
    if let Some(listener) = &server.listener {
        let addresses = listener.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let process = listener.process.as_ref();
        let process =
            process.map(|process| format!("{}, pid {}, ", process.command, process.pid)).unwrap_or_default();
        let software =
            listener.software.as_ref().map(|software| format!("; it is {software}")).unwrap_or_default();
        let sockets = match listener.process {
            Some(_) => format!("; {} other UDP sockets", listener.other_sockets),
            None => String::new(),
        };
        return check.pass(format!("{process}listens at UDP {addresses}{software}{sockets}"));
    }
    if let Some(process) = &server.elsewhere {
        let names = facts.named.iter().flatten().map(|facts| facts.interface.name.as_str());
        let names = names.collect::<Vec<_>>().join(" ");
        return check.warn(
            format!(
                "{}, pid {}, listens at UDP port {port}, but in another network namespace (a container?): turn-bpf believes only \
                 what its own namespace sends, and would relay nothing",
                process.command, process.pid
            ),
            format!("nsenter --net=/proc/{}/ns/net turn-bpf run, with the interfaces there instead of {names}", process.pid),
        );
    }
    if server.has_tcp {
        return check.warn(
            format!("at port {port} somebody listens by TCP, and nobody by UDP; only plain UDP is offloaded"),
            "have the server listen by UDP too (coturn: take out no-udp)",
        );
    }
    check.warn(
        format!(
            "nobody listens at UDP port {port} here; there is nothing to offload as long as no server runs"
        ),
        "start the server; where its port is another, turn-bpf doctor --port N",
    )
}
