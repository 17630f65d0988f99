//! How long the head of an answer may be. Pure.

use http::HeaderMap;

/// Most bytes of the fields of an answer's head. Nodes and object stores send below 4 KiB.
pub const MAX_HEAD: usize = 64 << 10;

/// Whether a head is longer than it may be.
pub fn is_long(fields: &HeaderMap) -> bool {
    let lengths = fields.iter().map(|(name, value)| name.as_str().len() + value.len());
    lengths.sum::<usize>() > MAX_HEAD
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::SERVER;

    use super::*;

    #[test]
    fn all_fields_of_a_head_count() {
        let value = |length: usize| HeaderValue::from_bytes(&vec![b'x'; length]).expect("a value");
        let mut fields = HeaderMap::new();
        assert!(!is_long(&fields));
        fields.append(SERVER, value(MAX_HEAD - 6));
        assert!(!is_long(&fields));
        fields.append(SERVER, value(0));
        assert!(is_long(&fields), "names count too");
        let mut many = HeaderMap::new();
        (0..100).for_each(|_| {
            many.append(SERVER, value(1000));
        });
        assert!(is_long(&many));
    }
}
