//! Reader of the word tables. The tables are part of the program, so nothing can fail here at run time: a key that is not
//! there reads as empty, and the tests look for empty ones.

/// A parsed table file: `[section]` lines, `key: value` lines, blank lines and `#` comments.
#[derive(Debug)]
pub(super) struct Words {
    sections: Vec<Section>,
}

#[derive(Debug)]
struct Section {
    name: &'static str,
    lines: Vec<(&'static str, &'static str)>,
}

impl Words {
    pub(super) fn parse(text: &'static str) -> Self {
        let mut sections: Vec<Section> = Vec::new();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                sections.push(Section { name, lines: Vec::new() });
            } else if let (Some(section), Some((key, value))) = (sections.last_mut(), line.split_once(": ")) {
                section.lines.push((key, value));
            }
        }
        Self { sections }
    }

    /// The keys of a section with their values, in file order.
    pub(super) fn lines(&self, section: &str) -> &[(&'static str, &'static str)] {
        self.sections.iter().find(|s| s.name == section).map_or(&[], |s| &s.lines)
    }

    /// The value of a key, as it stands.
    pub(super) fn line(&self, section: &str, key: &str) -> &'static str {
        self.lines(section).iter().find(|(k, _)| *k == key).map_or("", |(_, value)| value)
    }

    /// The value of a key, split at the bars.
    pub(super) fn list(&self, section: &str, key: &str) -> Vec<&'static str> {
        split(self.line(section, key))
    }
}

/// `a | b | c` in parts; none in an empty text.
pub(super) fn split(value: &'static str) -> Vec<&'static str> {
    value.split(" | ").map(str::trim).filter(|v| !v.is_empty()).collect()
}

/// Appends `template` to `out`; each `{name}` is written by `slot`, which sees `out` as it is so far and so knows offsets.
pub(super) fn fill(out: &mut String, template: &str, slot: &mut dyn FnMut(&mut String, &str)) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        slot(out, name);
        rest = after;
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_parse_and_templates_fill() {
        let words = Words::parse("# note\n[a b]\nk: x | y z\nl: m: n\n\n[c]\n");
        assert_eq!(words.list("a b", "k"), ["x", "y z"]);
        assert_eq!(words.line("a b", "l"), "m: n");
        assert!(words.list("a b", "none").is_empty() && words.lines("zzz").is_empty() && words.lines("c").is_empty());
        let mut out = String::from(">");
        let mut offsets = Vec::new();
        fill(&mut out, "a {x} b{y}", &mut |out, name| {
            offsets.push(out.len());
            out.push_str(&name.to_uppercase());
        });
        assert_eq!(out, ">a X bY");
        assert_eq!(offsets, [3, 6]);
    }
}
