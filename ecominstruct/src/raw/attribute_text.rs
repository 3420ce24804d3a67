//! Attributes as Amazon's product question data writes them: `name: { unit:grams, value:2.0 }; { value:"red" }`.

use super::clean::clean;
use crate::record::Attribute;

enum Node {
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// The attributes that `text` states: nested names are joined by spaces, a unit follows its numbers. `Err` says where
/// `text` cannot be read.
pub(super) fn attributes(text: &str) -> Result<Vec<Attribute>, String> {
    let (name, rest) = text.split_once(':').ok_or_else(|| format!("wanted name: value, found {text:?}"))?;
    let mut reader = Reader { text, at: text.len() - rest.len() };
    let mut found = Vec::new();
    loop {
        let node = reader.node()?;
        flatten(&readable(name), node, &mut found);
        match reader.next() {
            None => break,
            Some(';') => {}
            Some(_) => return Err(reader.wanted("; or the end")),
        }
    }
    if found.is_empty() { Err(format!("wanted a value, found {text:?}")) } else { Ok(found) }
}

fn readable(name: &str) -> String {
    clean(&name.replace('_', " "))
}

fn flatten(name: &str, node: Node, found: &mut Vec<Attribute>) {
    match node {
        Node::Text(text) => {
            let value = clean(&text);
            if !value.is_empty() {
                found.push(Attribute { name: name.to_owned(), value, span: None });
            }
        }
        Node::List(list) => list.into_iter().for_each(|node| flatten(name, node, found)),
        Node::Object(pairs) => {
            let unit = pairs.iter().find_map(|(key, node)| match node {
                Node::Text(unit) if key == "unit" => Some(unit.replace('_', " ")),
                _ => None,
            });
            for (key, node) in pairs.into_iter().filter(|(key, _)| key != "unit") {
                let name = if key == "value" { name.to_owned() } else { format!("{name} {}", readable(&key)) };
                let node = match (node, &unit) {
                    (Node::Text(number), Some(unit)) if number.parse::<f64>().is_ok() => {
                        Node::Text(format!("{number} {unit}"))
                    }
                    (node, _) => node,
                };
                flatten(&name, node, found);
            }
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    /// The next character that is no white space, taken.
    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn peek(&mut self) -> Option<char> {
        self.at = self.text.len() - self.text[self.at..].trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn wanted(&self, what: &str) -> String {
        let rest: String = self.text[self.at..].chars().take(20).collect();
        format!("wanted {what} at character {}, found {rest:?}", self.text[..self.at].chars().count() + 1)
    }

    fn node(&mut self) -> Result<Node, String> {
        match self.peek() {
            Some('{') => self
                .list('}', |reader| {
                    let (key, _) = reader.text[reader.at..].split_once(':').ok_or_else(|| reader.wanted("name:"))?;
                    reader.at += key.len() + 1;
                    Ok((key.trim().to_owned(), reader.node()?))
                })
                .map(Node::Object),
            Some('[') => self.list(']', Self::node).map(Node::List),
            Some(quote @ ('"' | '\'')) => self.quoted(quote).map(Node::Text),
            Some(_) => {
                let rest = &self.text[self.at..];
                let end = rest.find([',', ';', ']', '}']).unwrap_or(rest.len());
                self.at += end;
                // A number may be written `21.`.
                let bare = rest[..end].trim();
                let number = bare.strip_suffix('.').filter(|n| n.parse::<f64>().is_ok());
                Ok(Node::Text(number.unwrap_or(bare).to_owned()))
            }
            None => Err(self.wanted("a value")),
        }
    }

    /// What stands between the bracket here and `close`, parted by commas.
    fn list<T>(&mut self, close: char, item: impl Fn(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        self.next();
        let mut list = Vec::new();
        loop {
            if self.peek() == Some(close) {
                self.next();
                return Ok(list);
            }
            list.push(item(self)?);
            match self.peek() {
                Some(',') => {
                    self.next();
                }
                Some(c) if c == close => {}
                _ => return Err(self.wanted(&format!(", or {close}"))),
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = self.text[self.at..].char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            if c == quote {
                self.at += i + 1;
                return Ok(text);
            }
            text.push(if c == '\\' { chars.next().map_or(c, |(_, c)| c) } else { c });
        }
        Err(self.wanted("a closing quote"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        attributes(text).unwrap().into_iter().map(|a| format!("{}={}", a.name, a.value)).collect()
    }

    #[test]
    fn nested_values_are_flattened() {
        assert_eq!(
            read(r#"part_type:  { value:"Big \"A\", b" }; { value:'c' }"#),
            ["part type=Big \"A\", b", "part type=c"]
        );
        assert_eq!(
            read("weight: { unit:fluid_ounces, normalized:{ unit:pounds, value:0.85 }, value:21. }"),
            ["weight normalized=0.85 pounds", "weight=21 fluid ounces"]
        );
        assert_eq!(
            read("top: { size:[ { unit:grams, value:\"thin\" } ], colors:[ red, \"blue\" ] }"),
            ["top size=thin", "top colors=red", "top colors=blue"]
        );
        assert_eq!(read("on: { value:false }"), ["on=false"]);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for (text, wanted) in [
            ("name", "wanted name: value, found \"name\""),
            ("name: ", "wanted a value at character 7, found \"\""),
            ("name: { value:1 ", "wanted , or } at character 17, found \"\""),
            ("name: { value:\"1 }", "wanted a closing quote at character 15, found \"\\\"1 }\""),
            ("name: { value:\"\" }", "wanted a value, found \"name: { value:\\\"\\\" }\""),
        ] {
            assert_eq!(attributes(text).unwrap_err(), wanted);
        }
    }
}
