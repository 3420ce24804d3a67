//! What a module's PTX says of its kernels.

/// A kernel's parameter, with its size in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Parameter {
    pub size: usize,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// An address, a whole number, a struct of such.
    Bits,
    Float,
    /// The description of a matrix, known by its alignment.
    Map,
}

/// The parameters of kernel `name`, in order; `None` if the PTX has no such kernel or is not as NVRTC writes it.
pub(crate) fn parameters(ptx: &str, name: &str) -> Option<Vec<Parameter>> {
    let head = ptx.split(".entry ").skip(1).find_map(|entry| entry.strip_prefix(name)?.strip_prefix('('))?;
    // Each is on a line of its own, and so is the bracket that ends them.
    let lines = head.lines().map(str::trim).take_while(|line| !line.starts_with(')')).filter(|line| !line.is_empty());
    lines.map(parameter).collect()
}

/// `.param .f32 NAME,` or, of a struct, `.param .align 8 .b8 NAME[24],`, of a map with 64.
fn parameter(line: &str) -> Option<Parameter> {
    let mut words = line.trim_end_matches(',').split_whitespace();
    if words.next() != Some(".param") {
        return None;
    }
    let (mut form, mut kind) = (words.next()?, Kind::Bits);
    if form == ".align" {
        if words.next()? == "64" {
            kind = Kind::Map;
        }
        form = words.next()?;
    }
    if form.starts_with(".f") {
        kind = Kind::Float;
    }
    let count = match words.next()?.split_once('[') {
        Some((_, count)) => count.trim_end_matches(']').parse().ok()?,
        None => 1,
    };
    let bits: usize = form.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().ok()?;
    Some(Parameter { size: bits / 8 * count, kind })
}

#[cfg(test)]
mod tests {
    use super::Kind::{Bits, Float, Map};
    use super::{Parameter, parameters};

    const PTX: &str = "\n.visible .entry add(\n\t.param .u64 add_param_0,\n\t.param .f32 add_param_1,\n\t.param .align 8 .b8 \
                       add_param_2[24],\n\t.param .align 64 .b8 add_param_3[128]\n)\n.maxntid 256, 1, 1\n{\n}\n.visible .entry none(\n\n)\n{\n}\n";

    #[test]
    fn sizes_and_kinds_are_read() {
        let word = |size, kind| Parameter { size, kind };
        assert_eq!(parameters(PTX, "add").unwrap(), [word(8, Bits), word(4, Float), word(24, Bits), word(128, Map)]);
        assert_eq!(parameters(PTX, "none").unwrap(), []);
        assert!(parameters(PTX, "ad").is_none());
        assert!(parameters(&PTX.replace(".f32", ".what"), "add").is_none());
    }
}
