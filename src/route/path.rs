//! Slashes of a path that mean nothing, merged as nginx does by default (`merge_slashes`).

use std::borrow::Cow;

/// The path with each run of slashes as one, and without those at its end. A base URL that ends
/// with a slash makes `//<name>`, and some clients add one (`/<name>/`): both mean what is
/// there without. Segments stay as they are: a dot is one like any other, and an escape is not
/// undone, so that `/./<name>` and `/%2F<name>` are other paths.
pub(super) fn merged(path: &str) -> Cow<'_, str> {
    let end = match path.trim_end_matches('/') {
        "" => path.len().min(1),
        rest => rest.len(),
    };
    let path = &path[..end];
    if !path.contains("//") {
        return Cow::Borrowed(path);
    }
    let mut merged = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !merged.ends_with('/') {
            merged.push(c);
        }
    }
    Cow::Owned(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(path: &str, expected: &str) {
        assert_eq!(merged(path), expected, "{path}");
    }

    #[test]
    fn runs_of_slashes_are_one_and_those_at_the_end_none() {
        check("", "");
        check("*", "*");
        for root in ["/", "//", "///"] {
            check(root, "/");
        }
        for path in ["/a", "//a", "/a/", "//a//", "////////////////a"] {
            check(path, "/a");
        }
        check("/v1//snapshots///", "/v1/snapshots");
        check("a//b", "a/b");
        check("/./a", "/./a");
        check("//../a/", "/../a");
        check("/a/.", "/a/.");
        check("/%2Fa", "/%2Fa");
        check("/a%2F", "/a%2F");
        check("\\\\a", "\\\\a");
    }

    proptest! {
        #[test]
        fn nothing_but_slashes_goes(path: String) {
            let merged = merged(&path);
            prop_assert!(!merged.contains("//"));
            prop_assert!(merged.len() <= 1 || !merged.ends_with('/'));
            let without = |text: &str| text.replace('/', "");
            prop_assert_eq!(without(&merged), without(&path));
            prop_assert_eq!(merged.starts_with('/'), path.starts_with('/'));
            prop_assert_eq!(super::merged(&merged), &*merged);
        }
    }
}
