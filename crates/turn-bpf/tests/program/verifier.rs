//! What the programs cost the kernel's verifier.

use std::collections::BTreeMap;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

use crate::kernel::Kernel;

/// The verifier gives up at a million. Older kernels tell fewer states apart and take several times as many.
const MOST_VERIFIED: u32 = 100_000;
/// Of all functions on top of each other.
const MOST_STACK: u32 = 512;

#[test]
fn both_programs_load_well_below_the_verifiers_limits() {
    let mut kernel = Kernel::load();
    let stack = stack_frames();
    let infos = [
        ("turn_bpf_xdp", kernel.object.xdp().unwrap().info().unwrap()),
        ("turn_bpf_egress", kernel.object.egress().unwrap().info().unwrap()),
    ];
    // Functions that were not inlined.
    let deepest_call = stack.iter().filter(|(name, _)| !name.starts_with("turn_bpf_"));
    let deepest_call = deepest_call.map(|(_, bytes)| *bytes).max().unwrap_or(0);
    for (name, info) in infos {
        let verified = info.verified_instruction_count().expect("a kernel that counts (5.16)");
        let translated = info.size_translated().expect("a kernel that says") / 8;
        let jitted = info.size_jitted();
        let own = stack[name];
        println!(
            "{name}: {translated} instructions, {verified} verified, {jitted} bytes of machine code, \
             {own} bytes of stack, {deepest_call} in functions that it may call"
        );
        assert!((1..MOST_VERIFIED).contains(&verified), "{name}: {verified} instructions verified");
        assert!(own + deepest_call <= MOST_STACK, "{name}: {own} + {deepest_call} bytes of stack");
        assert_ne!(jitted, 0, "{name} is interpreted: net.core.bpf_jit_enable is 0");
    }
}

/// How far below its frame pointer each function of the object reaches.
fn stack_frames() -> BTreeMap<String, u32> {
    let bytes = std::fs::read(env!("TURN_BPF_OBJECT")).expect("the object that was built");
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0);
    functions
        .map(|symbol| {
            let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
            let code = section.expect("a section").data().expect("code");
            let start = symbol.address() as usize;
            let instructions = &code[start..start + symbol.size() as usize];
            (symbol.name().expect("a name").to_owned(), stack_frame(instructions))
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
