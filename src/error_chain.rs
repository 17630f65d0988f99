//! Errors as the log has them.

/// Most characters of an error that go into the log: some quote what a target sent.
const MAX_LOGGED: usize = 500;

/// The text of an error with its causes, in one line of bounded length and without control
/// characters.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_LOGGED).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the question failed")]
    struct Outer(#[source] io::Error);

    #[test]
    fn causes_follow_in_one_line_of_bounded_length() {
        let error = |text: &str| Outer(io::Error::other(text.to_owned()));
        assert_eq!(chain(&error("a\nb\u{1b}[31m")), "the question failed: a b [31m");
        assert_eq!(chain(&error(&"x".repeat(1000))).len(), MAX_LOGGED);
    }
}
