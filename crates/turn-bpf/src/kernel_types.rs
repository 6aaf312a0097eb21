//! Where the running kernel keeps a member of a structure, as its own type information (BTF) says.
//!
//! The format: Documentation/bpf/btf.rst of the kernel.

use std::{fs, io};

use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::host::BTF_PATH;

/// Byte offset of a member that is directly in a structure.
pub fn offset_of(structure: &str, member: &str) -> Result<u64, Error> {
    let btf = fs::read(BTF_PATH).map_err(Error::Read)?;
    find(&btf, structure, member).ok_or_else(|| Error::NoSuchMember(format!("{structure}.{member}")))
}

/// Why an offset is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel does not show its types.
    #[error("cannot read {BTF_PATH}")]
    Read(#[source] io::Error),
    /// The kernel has no such member, or its type information is of an unknown form.
    #[error("the kernel's types have no {0}")]
    NoSuchMember(String),
}

#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: u16,
    version: u8,
    flags: u8,
    header_length: u32,
    types_at: u32,
    types_length: u32,
    names_at: u32,
    names_length: u32,
}

#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Type {
    name: u32,
    info: u32,
    size_or_type: u32,
}

#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Member {
    name: u32,
    of_type: u32,
    offset: u32,
}

const STRUCT: u32 = 4;

fn find(btf: &[u8], structure: &str, member: &str) -> Option<u64> {
    let (header, _) = Header::read_from_prefix(btf).ok()?;
    if header.magic != 0xeb9f {
        return None;
    }
    let section = |at: u32, length: u32| {
        let start = (header.header_length as usize).checked_add(at as usize)?;
        btf.get(start..start.checked_add(length as usize)?)
    };
    let names = section(header.names_at, header.names_length)?;
    let is = |name: u32, wanted: &str| {
        let rest = names.get(name as usize..).unwrap_or_default();
        rest.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    };
    let mut types = section(header.types_at, header.types_length)?;
    while let Ok((one, rest)) = Type::read_from_prefix(types) {
        let (kind, count) = (one.info >> 24 & 0x1f, one.info as usize & 0xffff);
        if kind == STRUCT && is(one.name, structure) {
            let (members, _) = <[Member]>::ref_from_prefix_with_elems(rest, count).ok()?;
            let found = members.iter().find(|candidate| is(candidate.name, member))?;
            // With the kind flag the upper byte is the width of a bit field.
            let bits = if one.info >> 31 == 1 { found.offset & 0xff_ffff } else { found.offset };
            return Some(u64::from(bits) / 8);
        }
        types = rest.get(length_behind(kind, count)?..)?;
    }
    None
}

/// Bytes that follow a type of this kind.
fn length_behind(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // Pointers, forward declarations, typedefs, qualifiers, functions, floats and type tags.
        2 | 7..=12 | 16 | 18 => 0,
        // Integers, variables, declaration tags.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Structures and unions, data sections, 64-bit enumerations.
        4 | 5 | 15 | 19 => count.checked_mul(12)?,
        // Enumerations, function prototypes.
        6 | 13 => count.checked_mul(8)?,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_this_kernel_are_where_other_structures_have_them() {
        // `struct list_head` is two pointers, in this order, in every kernel there ever was.
        assert_eq!(offset_of("list_head", "next").unwrap(), 0);
        assert_eq!(offset_of("list_head", "prev").unwrap(), 8);
        assert!(offset_of("net_device", "ifindex").unwrap() > 0);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        assert!(matches!(offset_of("list_head", "middle"), Err(Error::NoSuchMember(_))));
        assert!(find(b"not BTF at all, not even near", "list_head", "next").is_none());
    }
}
