//! What the programs cost the kernel's verifier.

use std::collections::BTreeMap;

use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, SectionKind,
    SymbolKind,
};

use turn_datapath::LeaseTerms;
use turn_testkit::cases::TERMS;

use crate::kernel::{Kernel, with_causes};

/// The verifier gives up at a million. That of 6.1 tells fewer states apart than newer ones, and takes several times as many.
const MOST_VERIFIED: u32 = 500_000;
/// Of all functions on top of each other.
const MOST_STACK: u32 = 512;
/// A call of a helper or of another function.
const CALL: u8 = 0x85;

#[test]
fn all_programs_load_well_below_the_verifiers_limits() {
    let mut kernel = Kernel::load();
    // The others are loaded when they are needed.
    kernel.object.watch_transmissions().unwrap_or_else(|error| panic!("{}", with_causes(&error)));
    kernel.object.generic_xdp().unwrap_or_else(|error| panic!("{}", with_causes(&error)));
    verify(&kernel, "");
}

/// The verifier takes that code out otherwise.
#[test]
fn programs_that_join_calls_load_well_below_the_verifiers_limits() {
    let mut kernel = Kernel::load_with(&LeaseTerms { joins_until: u64::MAX, ..TERMS });
    kernel.object.generic_xdp().unwrap_or_else(|error| panic!("{}", with_causes(&error)));
    verify(&kernel, "_join");
}

fn verify(kernel: &Kernel, variant: &str) {
    let functions = functions();
    for (name, info) in kernel.object.loaded() {
        let verified = info.verified_instruction_count().expect("a kernel that counts (5.16)");
        let instructions = info.size_translated().expect("a kernel that says") / 8;
        let deepest = deepest(&functions, name);
        // `cargo xtask vm` reads this.
        println!("verifier: {name}{variant} instructions={instructions} verified={verified} stack={deepest}");
        assert!((1..MOST_VERIFIED).contains(&verified), "{name}: {verified} instructions verified");
        assert!(deepest <= MOST_STACK, "{name}: {deepest} bytes of stack");
        assert_ne!(info.size_jitted(), 0, "{name} is interpreted: net.core.bpf_jit_enable is 0");
    }
}

/// A function of the object.
struct Function {
    /// How far it reaches below its frame pointer.
    stack: u32,
    /// The functions whose addresses it names, which it calls or has called.
    calls: Vec<String>,
}

/// How far a function and those that it calls reach, as the kernel counts: each in steps of 32 bytes, at least one.
fn deepest(functions: &BTreeMap<String, Function>, name: &str) -> u32 {
    let Function { stack, calls } = &functions[name];
    let called = calls.iter().map(|name| deepest(functions, name)).max().unwrap_or(0);
    stack.max(&1).next_multiple_of(32) + called
}

/// All functions of the object by their names.
fn functions() -> BTreeMap<String, Function> {
    let bytes = std::fs::read(env!("TURN_BPF_OBJECT")).expect("the object that was built");
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let functions: Vec<_> =
        file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0).collect();
    let name_at = |section: SectionIndex, address: u64| {
        let mut named = functions.iter();
        let function =
            named.find(|other| other.section_index() == Some(section) && other.address() == address);
        function.expect("a function there").name().expect("a name").to_owned()
    };
    functions
        .iter()
        .map(|symbol| {
            let section = file.section_by_index(symbol.section_index().expect("a section")).expect("it");
            let range = symbol.address()..symbol.address() + symbol.size();
            let code = section.data().expect("code");
            let code = &code[range.start as usize..range.end as usize];
            let relocations = section.relocations().filter(|(at, _)| range.contains(at));
            let calls = relocations.filter_map(|(at, relocation)| {
                let RelocationTarget::Symbol(target) = relocation.target() else { return None };
                let target = file.symbol_by_index(target).expect("a symbol");
                let section = target.section_index()?;
                if file.section_by_index(section).expect("it").kind() != SectionKind::Text {
                    return None;
                }
                // Of a call the immediate operand counts instructions from the next one, of an address it counts bytes.
                let at = (at - range.start) as usize;
                let immediate = i32::from_le_bytes(code[at + 4..at + 8].try_into().expect("4 bytes"));
                let behind = if code[at] == CALL { (immediate + 1) * 8 } else { immediate };
                let behind = if target.kind() == SymbolKind::Section { behind as u64 } else { 0 };
                Some(name_at(section, target.address() + behind))
            });
            let function = Function { stack: stack_frame(code), calls: calls.collect() };
            // Calls within a section need no relocation, so there must be none.
            let local = code.chunks_exact(8).filter(|code| code[0] == CALL && code[1] >> 4 == 1).count();
            assert!(local <= function.calls.len(), "a call that was not followed");
            (symbol.name().expect("a name").to_owned(), function)
        })
        .collect()
}

/// Reads instructions of eight bytes: operation, registers, offset, immediate.
fn stack_frame(code: &[u8]) -> u32 {
    const FRAME_POINTER: u8 = 10;
    const MOVE: u8 = 0xbf;
    const ADD_IMMEDIATE: u8 = 0x07;
    const LOAD: u8 = 1;
    const STORE_IMMEDIATE: u8 = 2;
    const STORE: u8 = 3;
    let mut deepest = 0;
    let mut copies = [false; 16];
    for instruction in code.chunks_exact(8) {
        let [operation, registers, low, high, immediate @ ..] = *<&[u8; 8]>::try_from(instruction).unwrap();
        let (destination, source) = (registers & 0x0f, registers >> 4);
        let offset = i32::from(i16::from_le_bytes([low, high]));
        let reaches = match operation & 0x07 {
            LOAD if source == FRAME_POINTER => offset,
            STORE | STORE_IMMEDIATE if destination == FRAME_POINTER => offset,
            _ if operation == ADD_IMMEDIATE && copies[usize::from(destination)] => {
                i32::from_le_bytes(immediate)
            }
            _ => 0,
        };
        copies[usize::from(destination)] = operation == MOVE && source == FRAME_POINTER;
        deepest = deepest.max(reaches.min(0).unsigned_abs());
    }
    deepest
}
