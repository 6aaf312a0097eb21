//! The same on real interfaces: a veth pair in a network namespace of its own.
//!
//! The test starts itself again inside the namespace with `nsenter --net`, which changes the network namespace and
//! nothing else: sysfs goes on to show the one outside.

use std::{collections::HashSet, env, path::Path, process::Command, time::Duration};

use aya::{
    Ebpf,
    programs::{Xdp, XdpMode},
};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};
use tokio::time::timeout;

use super::super::{Found, PreflightError};
use crate::{
    attachment::WantedMode,
    host::OUR_XDP_PROGRAM,
    interfaces::{self, AttachedMode, Interface},
    obstacle::Obstacle,
    preflight, xdp_features,
};

#[test]
fn a_veth_pair_in_a_namespace() {
    if env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(inside());
    }
    let namespace = Namespace::new(format!("tb-{}-preflight", std::process::id()));
    let test = module_path!().split_once("::").unwrap().1;
    let mut again = Command::new("nsenter");
    again.arg(format!("--net=/run/netns/{}", namespace.0)).arg(env::current_exe().unwrap());
    again.args(["--exact", "--include-ignored", "--nocapture"]);
    again.arg(format!("{test}::a_veth_pair_in_a_namespace")).env(INSIDE, "1");
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

async fn inside() {
    run("ip link add alpha mtu 1400 type veth peer name beta");
    interfaces_are_those_of_the_namespace().await;
    changes_are_noticed().await;
    programs_are_found().await;
}

async fn interfaces_are_those_of_the_namespace() {
    assert!(!Path::new("/sys/class/net/alpha").exists(), "sysfs shows the namespace outside");
    let interfaces = interfaces::list().await.unwrap();
    let names: Vec<_> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
    assert_eq!(names.len(), 3, "{names:?}");

    let (alpha, beta) = (named(&interfaces, "alpha"), named(&interfaces, "beta"));
    assert_eq!((alpha.mtu, beta.mtu), (1400, 1500));
    assert_eq!(alpha.kind.as_deref(), Some("veth"));
    assert_eq!((alpha.lower_ifindex, beta.lower_ifindex), (Some(beta.ifindex), Some(alpha.ifindex)));
    assert!(alpha.is_ethernet && !alpha.is_up && alpha.xdp.is_none());
    assert_ne!(alpha.mac, beta.mac);

    let error = refused(&["alpha", "gamma"]).await;
    assert!(matches!(error, PreflightError::NoSuchInterface(_)), "{error}");
    let error = refused(&["alpha"]).await;
    assert!(matches!(error, PreflightError::Down(_)), "{error}");
}

async fn changes_are_noticed() {
    let mut changes = interfaces::watch().unwrap();
    assert!(timeout(Duration::from_millis(50), changes.changed()).await.is_err(), "nothing has changed yet");

    run("ip link set alpha up");
    run("ip link set beta up");
    timeout(PATIENCE, changes.changed()).await.expect("links changed").unwrap();
    assert!(named(&interfaces::list().await.unwrap(), "alpha").is_up);

    let mut changes = interfaces::watch().unwrap();
    run("ip address add 198.18.0.1/24 dev alpha");
    run("ip address add 2001:db8::1/64 dev beta nodad");
    timeout(PATIENCE, changes.changed()).await.expect("addresses changed").unwrap();
    let addresses = interfaces::local_addresses().await.unwrap();
    for address in ["198.18.0.1", "2001:db8::1"] {
        assert!(addresses.contains(&address.parse().unwrap()), "{address} in {addresses:?}");
    }
}

async fn programs_are_found() {
    check(&["alpha".into(), "beta".into()], WantedMode::Generic).await.unwrap();

    let alpha = named(&interfaces::list().await.unwrap(), "alpha");
    if let Some(features) = xdp_features::query(alpha.ifindex).await.unwrap() {
        assert!(features.has_native(), "{features}");
        run("ip link set lo up");
        let error = check(&["lo".into()], WantedMode::Native).await.unwrap_err();
        assert!(matches!(error, PreflightError::NoNative { .. }), "{error}");
    }

    let ours = attach(OUR_XDP_PROGRAM, "alpha", XdpMode::Skb);
    let error = refused(&["alpha"]).await;
    let expected = format!("turn-bpf is already attached to alpha (pid {})", std::process::id());
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert_eq!(found(&interfaces::list().await.unwrap(), "alpha"), Some(AttachedMode::Generic));

    let foreign = attach("xdp_foreign", "beta", XdpMode::Driver);
    let error = refused(&["beta"]).await;
    let PreflightError::OtherProgram { program, mode, .. } = &error else { panic!("{error}") };
    assert_eq!((program.name.as_deref(), *mode), (Some("xdp_foreign"), AttachedMode::Native));
    assert_eq!(found(&interfaces::list().await.unwrap(), "beta"), Some(AttachedMode::Native));

    // Beside it there is room at TC.
    for wanted in [WantedMode::Auto, WantedMode::Tc] {
        let found = check(&["beta".into()], wanted).await.unwrap();
        let [Found { obstacle: Some(Obstacle::OtherProgram { program, .. }), .. }] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(program.name.as_deref(), Some("xdp_foreign"));
    }

    drop((ours, foreign));
    check(&["alpha".into(), "beta".into()], WantedMode::Generic).await.unwrap();
}

/// With nothing that is to be replaced.
async fn check(names: &[String], wanted: WantedMode) -> Result<Vec<Found>, PreflightError> {
    preflight::check(names, wanted, &HashSet::new()).await
}

async fn refused(names: &[&str]) -> PreflightError {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    check(&names, WantedMode::Generic).await.unwrap_err()
}

fn named(interfaces: &[Interface], name: &str) -> Interface {
    interfaces::find(interfaces, name).unwrap().clone()
}

fn found(interfaces: &[Interface], name: &str) -> Option<AttachedMode> {
    named(interfaces, name).xdp.map(|xdp| xdp.mode)
}

/// Attaches a program that passes every packet. It goes when the object is dropped.
fn attach(program: &str, interface: &str, mode: XdpMode) -> Ebpf {
    let mut ebpf = Ebpf::load(&passing_object(program)).unwrap();
    let xdp: &mut Xdp = ebpf.program_mut(program).unwrap().try_into().unwrap();
    xdp.load().unwrap();
    xdp.attach(interface, mode).unwrap();
    ebpf
}

/// An ELF file of one XDP program: `return XDP_PASS`.
fn passing_object(program: &str) -> Vec<u8> {
    let mov_r0_pass = [0xb7, 0, 0, 0, 2, 0, 0, 0];
    let exit = [0x95, 0, 0, 0, 0, 0, 0, 0];
    let code = [mov_r0_pass, exit].concat();

    let mut file = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let license = file.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    file.append_section_data(license, b"GPL\0", 1);
    let section = file.add_section(Vec::new(), b"xdp".to_vec(), SectionKind::Text);
    let value = file.append_section_data(section, &code, 8);
    file.add_symbol(Symbol {
        name: program.as_bytes().to_vec(),
        value,
        size: code.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    file.write().unwrap()
}

/// A network namespace, deleted with everything in it when dropped.
struct Namespace(String);

impl Namespace {
    fn new(name: String) -> Self {
        run(&format!("ip netns add {name}"));
        Self(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run(&format!("ip netns delete {}", self.0));
    }
}

fn run(command: &str) {
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{command}: {status}");
}

const INSIDE: &str = "TURN_BPF_TEST_INSIDE_NAMESPACE";
const PATIENCE: Duration = Duration::from_secs(5);
