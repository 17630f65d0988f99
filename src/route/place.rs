//! Under which group a request comes: by its path, by the host or the listener that it came to.

use std::collections::BTreeMap;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::known_path::is_known;
use super::path::merged;
use crate::config::Config;

/// What is escaped of the name of a group in a path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The groups that there are, and the host names that stand for one.
#[derive(Clone, Debug, Default)]
pub struct Names {
    groups: Vec<Arc<str>>,
    hosts: BTreeMap<String, Arc<str>>,
}

/// Where a request is, once what names its group is taken off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The path, slashes that mean nothing left out.
    pub path: String,
    /// What stood before it: nothing, or a slash and the name of a group as it was written.
    pub prefix: String,
    /// The group that the path names.
    named: Option<Arc<str>>,
    /// The group of the host or the listener.
    implied: Option<Arc<str>>,
}

impl Names {
    /// What a configuration names.
    pub fn of(config: &Config) -> Self {
        Self { groups: config.group_names(), hosts: config.hosts.clone() }
    }

    /// The place of a request for this path that came for a host, with a port or without one, to a
    /// listener of a group.
    ///
    /// What is served at the root is served there, whatever groups are called.
    pub fn place(
        &self,
        path: &str,
        host: impl FnOnce() -> Option<String>,
        listener: Option<&Arc<str>>,
    ) -> Place {
        let named = (!self.hosts.is_empty()).then(host).flatten();
        let implied = named.and_then(|host| self.host(&host)).or(listener).cloned();
        let path = merged(path);
        if !is_known(&path)
            && let Some((segment, rest)) = first_segment(&path)
            && let Some(named) = self.group(segment)
        {
            let (path, prefix) = (rest.to_owned(), format!("/{segment}"));
            return Place { path, prefix, named: Some(named), implied };
        }
        Place { path: path.into_owned(), prefix: String::new(), named: None, implied }
    }

    fn host(&self, host: &str) -> Option<&Arc<str>> {
        // A name has no colon, and an address of IPv6 is no name.
        let (name, _) = host.split_once(':').unwrap_or((host, ""));
        let name = name.strip_suffix('.').unwrap_or(name);
        self.hosts.get(&name.to_ascii_lowercase())
    }

    fn group(&self, segment: &str) -> Option<Arc<str>> {
        let name = percent_decode_str(segment).decode_utf8().ok()?;
        self.groups.iter().find(|group| ***group == *name).cloned()
    }
}

/// The first segment of a path, and what stands behind it: the root, where nothing does.
fn first_segment(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix('/').filter(|rest| !rest.is_empty())?;
    Some(match rest.find('/') {
        Some(end) => rest.split_at(end),
        None => (rest, "/"),
    })
}

impl Place {
    /// A path that names no group, on a listener of none.
    pub fn root(path: &str) -> Self {
        Self { path: merged(path).into_owned(), ..Self::default() }
    }

    /// The group of a request whose query names this one: that of the path before that of the
    /// query, which comes before that of the host or the listener.
    pub fn group_or(&self, queried: Option<String>) -> Option<String> {
        let text = |group: &Arc<str>| group.to_string();
        self.named.as_ref().map(text).or(queried).or_else(|| self.implied.as_ref().map(text))
    }

    /// What has to stand before a path here that is of this group: nothing, unless the host or the
    /// listener stand for another one.
    pub fn prefix_of(&self, group: Option<&str>) -> String {
        match (&self.implied, group) {
            (Some(implied), Some(group)) if **implied != *group => {
                format!("/{}", utf8_percent_encode(group, ESCAPED))
            }
            _ => String::new(),
        }
    }

    /// The group that archives are of which are asked for here; any where that is not said.
    pub fn group(&self) -> Option<&Arc<str>> {
        self.named.as_ref().or(self.implied.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FULL: &str = "snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";

    fn names() -> Names {
        let groups = ["mainnet", "testnet", "eu west", "v1", "health"].map(Arc::from).to_vec();
        let hosts = [("testnet.example", "testnet"), ("eu.example", "eu west")];
        let hosts = hosts.map(|(host, group)| (host.to_owned(), Arc::from(group))).into();
        Names { groups, hosts }
    }

    #[track_caller]
    fn check(path: &str, place: (&str, &str), group: Option<&str>) {
        let found = names().place(path, || None, None);
        assert_eq!((&*found.prefix, &*found.path), place, "{path}");
        assert_eq!(found.group_or(None).as_deref(), group, "{path}");
    }

    #[test]
    fn a_path_names_a_group_before_what_is_served() {
        check("/snapshot.tar.bz2", ("", "/snapshot.tar.bz2"), None);
        check("/testnet/snapshot.tar.bz2", ("/testnet", "/snapshot.tar.bz2"), Some("testnet"));
        check("//testnet//v1/snapshots/", ("/testnet", "/v1/snapshots"), Some("testnet"));
        check("/eu%20west/health", ("/eu%20west", "/health"), Some("eu west"));
        let archive = format!("/testnet/{FULL}");
        check(&archive, ("/testnet", &archive["/testnet".len()..]), Some("testnet"));
        check("/testnet", ("/testnet", "/"), Some("testnet"));
        check("/testnet/", ("/testnet", "/"), Some("testnet"));
        // What is served at the root is not below a group of that name.
        check("/v1/snapshots", ("", "/v1/snapshots"), None);
        check("/health", ("", "/health"), None);
        check("/v1/v1/snapshots", ("/v1", "/v1/snapshots"), Some("v1"));
        check("/v1/snapshot.tar.bz2", ("", "/v1/snapshot.tar.bz2"), None);
        for path in ["/devnet/snapshot.tar.bz2", "/Testnet/x", "/test%FFnet/x", "/", "", "*"] {
            check(path, ("", path), None);
        }
        check("/testnet/mainnet/health", ("/testnet", "/mainnet/health"), Some("testnet"));
    }

    #[test]
    fn the_path_comes_before_the_query_and_the_host_before_the_listener() {
        let (names, listener) = (names(), Some(Arc::from("mainnet")));
        let group = |path: &str, query: Option<&str>, host: Option<&str>, listener| {
            let place = names.place(path, || host.map(str::to_owned), listener);
            place.group_or(query.map(str::to_owned))
        };
        let short = "/snapshot.tar.bz2";
        let below = "/testnet/snapshot.tar.bz2";
        for (path, query, host, at, expected) in [
            (short, None, None, None, None),
            (short, None, None, listener.as_ref(), Some("mainnet")),
            (short, None, Some("eu.example"), listener.as_ref(), Some("eu west")),
            (short, None, Some("EU.example:8458"), None, Some("eu west")),
            (short, None, Some("eu.example."), None, Some("eu west")),
            (short, None, Some("x.eu.example"), listener.as_ref(), Some("mainnet")),
            (short, None, Some("[::1]:8458"), listener.as_ref(), Some("mainnet")),
            (short, Some("testnet"), Some("eu.example"), listener.as_ref(), Some("testnet")),
            (below, Some("mainnet"), Some("eu.example"), listener.as_ref(), Some("testnet")),
        ] {
            assert_eq!(group(path, query, host, at).as_deref(), expected, "{path} {host:?}");
        }
    }

    #[test]
    fn what_is_of_another_group_than_that_of_the_host_has_its_name_before_it() {
        let names = names();
        let place = |host: Option<&str>| names.place("/x", || host.map(str::to_owned), None);
        for (host, group, expected) in [
            (None, Some("testnet"), ""),
            (None, None, ""),
            (Some("eu.example"), Some("eu west"), ""),
            (Some("eu.example"), None, ""),
            (Some("eu.example"), Some("testnet"), "/testnet"),
            (Some("testnet.example"), Some("eu west"), "/eu%20west"),
        ] {
            assert_eq!(place(host).prefix_of(group), expected, "{host:?} {group:?}");
            let path = format!("{expected}/snapshot.tar.bz2");
            let there = names.place(&path, || host.map(str::to_owned), None);
            assert_eq!(there.path, "/snapshot.tar.bz2", "{path}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_paths_never_panic(path: String, host: String) {
            let place = names().place(&path, || Some(host), None);
            prop_assert!(place.prefix.is_empty() || place.prefix.starts_with('/'));
        }
    }
}
