//! Just enough reading of Rust source for the house rules: what is code, what is under test, what
//! a trait declares.
//!
//! A full parser would cost more to build than the rules are worth.

/// Replaces comments and the insides of literals by spaces; lines and offsets stay.
pub(crate) fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => line_end(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if !follows_identifier(bytes, at) => match raw_string_end(bytes, at) {
                Some(end) => end,
                None => at,
            },
            b'\'' => char_end(bytes, at),
            _ => at,
        };
        // Quotes go too, so that nothing of a literal can be taken for code.
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// Blanks every item under `#[cfg(test)]` in code that [`code_only`] returned.
pub(crate) fn without_tests(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = code.get(from..).and_then(|rest| rest.find(TEST_MARK)) {
        let start = from + found;
        let end = item_end(code.as_bytes(), start + TEST_MARK.len());
        for byte in &mut bytes[start..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        from = end;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The names of the functions that a trait declares, in order, or nothing without that trait.
pub(crate) fn trait_functions(code: &str, name: &str) -> Option<Vec<String>> {
    let head = format!("trait {name}");
    let start = code.match_indices(&head).find_map(|(at, _)| {
        let after = at + head.len();
        let rest = code[after..].chars().next();
        rest.is_none_or(|c| !c.is_alphanumeric() && c != '_')
            .then_some(after)
    })?;
    let open = start + code[start..].find('{')?;
    let body = &code[open..item_end(code.as_bytes(), open)];
    let mut functions = Vec::new();
    let mut depth = 0_usize;
    let mut words = Vec::new();
    for (at, c) in body.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let starts_word = c.is_alphabetic() && !follows_identifier(body.as_bytes(), at);
        if starts_word && depth == 1 {
            let word: String = body[at..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            words.push(word);
        }
    }
    for pair in words.windows(2) {
        if pair[0] == "fn" {
            functions.push(pair[1].clone());
        }
    }
    Some(functions)
}

/// The end of the item that begins at `start`: its closing brace, or a semicolon before any brace.
fn item_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return at + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    bytes.len()
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..]
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |length| at + length)
}

/// Block comments nest.
fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") if depth == 1 => return at + 2,
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of `r"…"` or `r#"…"#`, unless something else begins with this letter.
fn raw_string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let hashes = bytes[start + 1..]
        .iter()
        .take_while(|byte| **byte == b'#')
        .count();
    let open = start + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let closing: Vec<u8> = std::iter::once(b'"')
        .chain(std::iter::repeat_n(b'#', hashes))
        .collect();
    let rest = &bytes[open + 1..];
    let length = rest
        .windows(closing.len())
        .position(|window| window == closing);
    Some(length.map_or(bytes.len(), |length| open + 1 + length + closing.len()))
}

/// The end of a character literal; a lifetime is left as it is.
fn char_end(bytes: &[u8], start: usize) -> usize {
    let escaped = bytes.get(start + 1) == Some(&b'\\');
    let from = if escaped { start + 3 } else { start + 2 };
    // The longest literals are `'\u{10ffff}'` and a character of four bytes.
    let reach = if escaped { 12 } else { 4 };
    let close = (from..bytes.len().min(from + reach)).find(|at| bytes[*at] == b'\'');
    match close {
        Some(at) if escaped || one_character(&bytes[start + 1..at]) => at + 1,
        _ => start,
    }
}

fn one_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.chars().count() == 1)
}

fn follows_identifier(bytes: &[u8], at: usize) -> bool {
    at > 0 && bytes[at - 1].is_ascii() && is_identifier(bytes[at - 1])
}

fn is_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

const TEST_MARK: &str = "#[cfg(test)]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let source = r##"let a = "b//c"; // d
let e = r#"f "g" h"#; /* i /* j */ k */ let l = 'm';
let n: &'o str = b"\"p"; let q = '\''; let r = '{';"##;
        let code = code_only(source);
        assert_eq!(code.len(), source.len());
        let words: Vec<_> = code.split_whitespace().collect();
        let expected = "let a = ; let e = ; let l = ; let n: &'o str = b ; let q = ; let r = ;";
        assert_eq!(words, expected.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn tests_are_cut_out_and_what_follows_stays() {
        let source = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { {} } }\nfn c() {}\n\
            #[cfg(test)]\nuse d;\nfn e() {}\n";
        let code = without_tests(source);
        assert!(code.contains("fn a") && code.contains("fn c") && code.contains("fn e"));
        assert!(!code.contains("fn b") && !code.contains("use d"));
        assert_eq!(code.lines().count(), source.lines().count());
    }

    #[test]
    fn functions_of_a_trait_are_listed_in_order() {
        let source = "pub trait TransportExt { fn no(&self); }\n\
            pub trait Transport: Send + 'static {\n    async fn publish(&self);\n\
            \x20   fn ack(&self) -> R { fn inner() {} inner() }\n    // fn comment();\n    fn close(&self);\n}\n\
            impl Transport for X { fn other(&self) {} }\n";
        let functions = trait_functions(&code_only(source), "Transport").expect("the trait");
        assert_eq!(functions, ["publish", "ack", "close"]);
        assert!(trait_functions(source, "Consumer").is_none());
    }
}
