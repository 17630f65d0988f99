//! URLs of which not all may be shown.

use std::fmt;

use url::Url;

/// A URL that is shown as scheme, host and port: all else in it may be the key to what is there.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateUrl(Url);

impl PrivateUrl {
    /// Keeps all but scheme, host and port to itself.
    pub const fn new(url: Url) -> Self {
        Self(url)
    }

    /// The whole URL, for the one that it leads to.
    pub const fn reveal(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for PrivateUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

impl fmt::Debug for PrivateUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_shown_than_where_it_leads() {
        let text = "https://user:hush@sd.example/hush?key=hush#hush";
        let url = PrivateUrl::new(text.parse().expect("a URL"));
        assert_eq!(url.reveal().as_str(), text);
        for shown in [url.to_string(), format!("{url:?}")] {
            assert_eq!(shown, "https://sd.example");
        }
    }
}
