//! A list in JSON that arrives in pieces, taken apart into its elements: no more than one of them
//! is held at a time. It looks at brackets and strings alone; what an element is, and whether it is
//! sound, is for whoever gets it.

/// A byte-order mark, which some editors and servers put before a text.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
const NULL: [u8; 4] = *b"null";

/// Why an answer is no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAList {
    /// The answer is something else.
    #[error("expected a list in JSON")]
    Otherwise,
    /// The answer broke off.
    #[error("the list has no end")]
    Unfinished,
    /// There is more than one.
    #[error("something comes after the list")]
    Trailing,
}

/// One element of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element<'a> {
    /// A whole element, without the white space around it; nothing at all between two commas.
    Whole(&'a [u8]),
    /// An element that is larger than the bound, and was not kept.
    TooLarge,
}

/// A list that is being read. `null` is an empty one: that is how Go writes it.
#[derive(Debug)]
pub(super) struct Elements {
    at: At,
    /// Largest element that is kept, in bytes.
    most: usize,
    element: Vec<u8>,
    is_too_large: bool,
    count: usize,
    depth: usize,
    text: Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before the list, after so many bytes of a byte-order mark.
    Before(usize),
    /// After so many bytes of `null`.
    Null(usize),
    Within,
    After,
}

/// Whether the last byte was part of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    Escaped,
}

impl Elements {
    /// Nothing of it yet; elements of more than `most` bytes will not be kept.
    pub(super) fn new(most: usize) -> Self {
        Self {
            at: At::Before(0),
            most,
            element: Vec::new(),
            is_too_large: false,
            count: 0,
            depth: 0,
            text: Text::Outside,
        }
    }

    /// Reads on, and hands each element that is whole now to `each`, with its number from 1 on.
    pub(super) fn push(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(usize, Element),
    ) -> Result<(), NotAList> {
        for byte in piece {
            match self.at {
                At::Within => self.within(*byte, &mut each),
                _ => self.around(*byte)?,
            }
        }
        Ok(())
    }

    /// The end of the answer, which must be the end of the list.
    pub(super) fn end(&self) -> Result<(), NotAList> {
        match self.at {
            At::After | At::Null(4) => Ok(()),
            At::Before(_) | At::Null(_) => Err(NotAList::Otherwise),
            At::Within => Err(NotAList::Unfinished),
        }
    }

    /// Bytes of the element that is being read.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.element.capacity()
    }

    fn around(&mut self, byte: u8) -> Result<(), NotAList> {
        self.at = match (self.at, byte) {
            (At::Before(_), b'[') => At::Within,
            (At::Before(_), b'n') => At::Null(1),
            (At::Before(seen), byte) if BYTE_ORDER_MARK.get(seen) == Some(&byte) => {
                At::Before(seen + 1)
            }
            (At::Null(seen), byte) if NULL.get(seen) == Some(&byte) => At::Null(seen + 1),
            (At::Before(_) | At::Null(4) | At::After, b' ' | b'\t' | b'\r' | b'\n') => self.at,
            (At::Null(4) | At::After, _) => return Err(NotAList::Trailing),
            _ => return Err(NotAList::Otherwise),
        };
        Ok(())
    }

    fn within(&mut self, byte: u8, each: &mut impl FnMut(usize, Element)) {
        self.text = match (self.text, byte) {
            (Text::Inside, b'"') => Text::Outside,
            (Text::Inside, b'\\') => Text::Escaped,
            (Text::Inside | Text::Escaped, _) | (Text::Outside, b'"') => Text::Inside,
            (Text::Outside, b'[' | b'{') => {
                self.depth += 1;
                Text::Outside
            }
            (Text::Outside, b']' | b'}') if self.depth > 0 => {
                self.depth -= 1;
                Text::Outside
            }
            (Text::Outside, b',') if self.depth == 0 => return self.finish(each),
            (Text::Outside, b']') => {
                // An empty list has no element.
                if self.count > 0 || !self.element.is_empty() {
                    self.finish(each);
                }
                self.at = At::After;
                return;
            }
            (Text::Outside, b' ' | b'\t' | b'\r' | b'\n') if self.element.is_empty() => return,
            (Text::Outside, _) => Text::Outside,
        };
        if self.element.len() < self.most {
            self.element.push(byte);
        } else {
            self.is_too_large = true;
        }
    }

    fn finish(&mut self, each: &mut impl FnMut(usize, Element)) {
        self.count += 1;
        let element = if self.is_too_large {
            Element::TooLarge
        } else {
            Element::Whole(self.element.trim_ascii_end())
        };
        each(self.count, element);
        self.element.clear();
        self.is_too_large = false;
    }
}

/// An error of JSON without line and column, which count from the beginning of an element.
pub(super) fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a text is read as, in pieces of this length.
    fn read(text: &[u8], most: usize, piece: usize) -> Result<Vec<Option<String>>, NotAList> {
        let mut elements = Elements::new(most);
        let mut found = Vec::new();
        for piece in text.chunks(piece) {
            elements.push(piece, |number, element| {
                assert_eq!(number, found.len() + 1);
                found.push(match element {
                    Element::Whole(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
                    Element::TooLarge => None,
                });
            })?;
            assert!(elements.element.capacity() <= 2 * most.max(8), "bounded");
        }
        elements.end().map(|()| found)
    }

    fn check(text: &str, expected: Result<&[&str], NotAList>) {
        for piece in 1..=text.len().max(1) {
            let found = read(text.as_bytes(), 100, piece);
            let expected = expected
                .map(|list| list.iter().map(|one| Some((*one).to_owned())).collect::<Vec<_>>());
            assert_eq!(found, expected, "{text} in pieces of {piece}");
        }
    }

    #[test]
    fn lists_and_what_is_none() {
        check("[]", Ok(&[]));
        check(" [ ] \r\n", Ok(&[]));
        check("null", Ok(&[]));
        check("\u{feff} null\n", Ok(&[]));
        check("\u{feff}[1]", Ok(&["1"]));
        check(
            "[ 1 , \"a,]\\\"[\" ,{\"b\": [1, {}]}, null ]",
            Ok(&["1", "\"a,]\\\"[\"", "{\"b\": [1, {}]}", "null"]),
        );
        check("[[[],[]],{}]", Ok(&["[[],[]]", "{}"]));
        check(r#"["\\","\u005d"]"#, Ok(&[r#""\\""#, r#""\u005d""#]));
        // What is no JSON between two commas is for whoever reads elements.
        check("[1,,2,]", Ok(&["1", "", "2", ""]));
        check("[,]", Ok(&["", ""]));
        check("[}, x y]", Ok(&["}", "x y"]));
        for text in ["", " ", "{}", "\"[]\"", "1", "<html>", "nul", "nil", "No leader"] {
            check(text, Err(NotAList::Otherwise));
        }
        for text in ["[", "[1", "[1,", "[{]", "[\"]", "[\"\\\"]", "[[1]"] {
            check(text, Err(NotAList::Unfinished));
        }
        for text in ["[] []", "[]x", "null,", "[1]]"] {
            check(text, Err(NotAList::Trailing));
        }
    }

    #[test]
    fn an_element_that_is_too_large_is_not_kept_and_the_others_are() {
        let long =
            format!("[1, \"{}\", [{}], 2]", "x".repeat(5000), "[".repeat(900) + &"]".repeat(900));
        let expected = vec![Some("1".to_owned()), None, None, Some("2".to_owned())];
        for piece in [1, 7, 4096, 100_000] {
            assert_eq!(read(long.as_bytes(), 100, piece), Ok(expected.clone()));
        }
        let exact = format!("[\"{}\"]", "x".repeat(98));
        assert_eq!(read(exact.as_bytes(), 100, 3).map(|found| found[0].is_some()), Ok(true));
    }

    proptest! {
        #[test]
        fn what_json_writes_is_taken_apart_into_what_it_was(
            texts: Vec<String>, numbers: Vec<i32>, piece in 1_usize..50,
        ) {
            let object = |text: &String| serde_json::json!({ "a": [text] });
            let list: Vec<serde_json::Value> = texts.iter().map(object)
                .chain(numbers.iter().map(|number| serde_json::json!(number))).collect();
            let text = serde_json::to_string_pretty(&list).expect("it is JSON");
            let found = read(text.as_bytes(), 1 << 20, piece).expect("a list");
            let whole = |text: &Option<String>| text.clone().expect("small");
            let parse = |text: &Option<String>| serde_json::from_str(&whole(text));
            let found: Result<Vec<serde_json::Value>, _> = found.iter().map(parse).collect();
            prop_assert_eq!(found.expect("sound"), list);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, piece in 1_usize..9) {
            let _ = read(&bytes, 16, piece);
            let _ = read(&[b"[", &*bytes].concat(), 16, piece);
        }
    }
}
