//! From method, path and query to a [`Route`].

use http::Method;

use super::failure::Failure;
use super::known_path::{KnownPath, Style, Wanted};
use super::place::Place;
use crate::snapshot::{ArchiveName, Slot};

/// Most entries of one best-snapshots answer, as in the Go tracker.
const MAX_BEST: usize = 25;

/// A request for whatever is best.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortForm {
    /// Of which kind.
    pub wanted: Wanted,
    /// Under which path.
    pub style: Style,
    /// Of which group; of any where that is not said.
    pub group: Option<String>,
    /// What stands before the path, and so before that of the archive: nothing, or a group.
    pub prefix: String,
}

impl ShortForm {
    /// The path of an archive, where this one came from.
    pub fn path(&self, name: &ArchiveName) -> String {
        format!("{}{}", self.prefix, self.style.path(name))
    }
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The redirect to the best archive.
    ShortForm(ShortForm),
    /// An archive.
    Archive(ArchiveName),
    /// A call of the JSON API, or the text of the health check.
    Api(ApiCall),
}

/// A call of the JSON API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiCall {
    /// `/v1/snapshots`: all entries.
    Snapshots {
        /// Only this group.
        group: Option<String>,
        /// Only archives on this base slot.
        base: Option<Slot>,
    },
    /// `/v1/best_snapshots`: the newest entries.
    BestSnapshots {
        /// Only this group.
        group: Option<String>,
        /// How many at most.
        max: usize,
    },
    /// `/v1/health`: health as the tracker tells it.
    TrackerHealth {
        /// Of this group.
        group: Option<String>,
    },
    /// `/health`: health as a node tells it.
    Health {
        /// Of this group.
        group: Option<String>,
    },
}

/// Understands a request. Paths are compared byte by byte: nothing that is served needs an escape,
/// so a path with one is another path.
pub fn parse(method: &Method, place: &Place, query: Option<&str>) -> Result<Route, Failure> {
    let known = KnownPath::of(&place.path).ok_or(Failure::NoSuchPath)?;
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Failure::Method);
    }
    let query = Query(query.unwrap_or_default());
    let group = || place.group_or(query.text("group"));
    Ok(match known {
        KnownPath::Archive(name) => Route::Archive(name),
        // A node's has no query.
        KnownPath::Health => Route::Api(ApiCall::Health { group: place.group_or(None) }),
        KnownPath::ShortForm(wanted, style) => {
            let prefix = place.prefix.clone();
            Route::ShortForm(ShortForm { wanted, style, group: group(), prefix })
        }
        KnownPath::Snapshots => {
            let base = query.number::<u64>("slot", "a slot, a decimal 64 bit number")?;
            let base = base.filter(|slot| *slot != 0).map(Slot);
            Route::Api(ApiCall::Snapshots { group: group(), base })
        }
        KnownPath::BestSnapshots => {
            let max = query.number::<i64>("max", "a whole number")?.unwrap_or(1);
            // Below zero means "as many as there may be".
            let max = usize::try_from(max).map_or(MAX_BEST, |max| max.min(MAX_BEST));
            Route::Api(ApiCall::BestSnapshots { group: group(), max })
        }
        KnownPath::TrackerHealth => Route::Api(ApiCall::TrackerHealth { group: group() }),
    })
}

/// The group that a query names.
pub(super) fn group_of(query: &str) -> Option<String> {
    Query(query).text("group")
}

/// A query string. Of a key that comes twice the first one counts; an empty value is no value.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn text(&self, key: &str) -> Option<String> {
        let mut pairs = form_urlencoded::parse(self.0.as_bytes());
        let (_, value) = pairs.find(|(name, _)| name == key)?;
        (!value.is_empty()).then(|| value.into_owned())
    }

    fn number<T: std::str::FromStr>(
        &self,
        key: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, Failure> {
        let parse = |text: String| text.parse().map_err(|_| Failure::Query { key, expected });
        self.text(key).map(parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::path::merged;
    use proptest::prelude::*;

    const FULL: &str = "snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";

    #[expect(clippy::needless_pass_by_value, reason = "rows read better without `&`")]
    fn check(path_and_query: &str, expected: Result<Route, Failure>) {
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path_and_query, None),
        };
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(
                parse(&method, &Place::root(path), query),
                expected,
                "{method} {path_and_query}"
            );
        }
        let refused = if expected == Err(Failure::NoSuchPath) {
            Failure::NoSuchPath
        } else {
            Failure::Method
        };
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert_eq!(
                parse(&method, &Place::root(path), query),
                Err(refused.clone()),
                "{method} {path}"
            );
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is what `check` compares with")]
    fn short(wanted: Wanted, style: Style, group: Option<&str>) -> Result<Route, Failure> {
        let (group, prefix) = (group.map(str::to_owned), String::new());
        Ok(Route::ShortForm(ShortForm { wanted, style, group, prefix }))
    }

    #[test]
    fn short_forms() {
        for extension in ["bz2", "zst"] {
            let path = |prefix: &str| format!("/{prefix}snapshot.tar.{extension}");
            check(&path(""), short(Wanted::Full, Style::Root, None));
            check(&path("incremental-"), short(Wanted::Incremental, Style::Root, None));
            check(&path("v1/"), short(Wanted::Full, Style::V1, None));
            check(&path("v1/incremental-"), short(Wanted::Incremental, Style::V1, None));
        }
        check(
            "/snapshot.tar.bz2?group=eu%20west",
            short(Wanted::Full, Style::Root, Some("eu west")),
        );
        check("/snapshot.tar.bz2?x=y&group=a&group=b", short(Wanted::Full, Style::Root, Some("a")));
        check("/snapshot.tar.bz2?group=", short(Wanted::Full, Style::Root, None));
        check("/snapshot.tar.bz2?", short(Wanted::Full, Style::Root, None));
        for path in [
            "/snapshot.tar.gz",
            "/snapshot.tar.xz",
            "/snapshot.tar.lz4",
            "/snapshot.tar",
            "/Snapshot.tar.bz2",
            "/./snapshot.tar.bz2",
            "//./snapshot.tar.bz2",
            "/snapshot.tar.bz2/.",
            "/v1/../snapshot.tar.bz2",
            "/%2Fsnapshot.tar.bz2",
            "/snapshot.tar.bz2%2F",
            "/v1%2Fsnapshot.tar.bz2",
            "/\\snapshot.tar.bz2",
            "//v1",
            "/v2/snapshot.tar.bz2",
            "/v1/snapshot/snapshot.tar.bz2",
            "snapshot.tar.bz2",
            "/snapshot%2Etar.bz2",
            "/snapshot.tar.bz2%00",
            "",
            "/",
            "*",
        ] {
            check(path, Err(Failure::NoSuchPath));
        }
    }

    #[test]
    fn archives() {
        let archive = Ok(Route::Archive(FULL.parse().expect("valid")));
        check(&format!("/{FULL}"), archive.clone());
        check(&format!("/v1/snapshot/{FULL}"), archive.clone());
        check(&format!("/{FULL}?anything=goes"), archive);
        for path in [
            format!("/%2F{FULL}"),
            format!("//../{FULL}"),
            format!("/../{FULL}"),
            format!("/v1/{FULL}"),
            format!("/v1/snapshots/{FULL}"),
            format!("/v1/snapshot/../{FULL}"),
            format!("/v1/snapshot%2F{FULL}"),
            format!("/x/{FULL}"),
            format!("/{FULL}/."),
            format!("/{FULL}%2F"),
            format!("/{FULL}%00"),
            format!("/{}", FULL.replace('-', "%2D")),
        ] {
            check(&path, Err(Failure::NoSuchPath));
        }
    }

    #[test]
    fn api() {
        let snapshots = |group: Option<&str>, base: Option<u64>| {
            Ok(Route::Api(ApiCall::Snapshots {
                group: group.map(str::to_owned),
                base: base.map(Slot),
            }))
        };
        check("/v1/snapshots", snapshots(None, None));
        check("/v1/snapshots?slot=0", snapshots(None, None));
        check("/v1/snapshots?slot=", snapshots(None, None));
        check("/v1/snapshots?slot=1000&group=a", snapshots(Some("a"), Some(1000)));
        let slot = Failure::Query { key: "slot", expected: "a slot, a decimal 64 bit number" };
        for bad in ["x", "-1", "1.5", "18446744073709551616", "%00"] {
            check(&format!("/v1/snapshots?slot={bad}"), Err(slot.clone()));
        }
        let best = |max| Ok(Route::Api(ApiCall::BestSnapshots { group: None, max }));
        for (query, max) in [
            ("", 1),
            ("?max=0", 0),
            ("?max=3", 3),
            ("?max=25", 25),
            ("?max=26", 25),
            ("?max=-1", 25),
        ] {
            check(&format!("/v1/best_snapshots{query}"), best(max));
        }
        let max = Failure::Query { key: "max", expected: "a whole number" };
        check("/v1/best_snapshots?max=many", Err(max));
        check("/v1/health", Ok(Route::Api(ApiCall::TrackerHealth { group: None })));
        check(
            "/v1/health?group=a",
            Ok(Route::Api(ApiCall::TrackerHealth { group: Some("a".to_owned()) })),
        );
        check("/health", Ok(Route::Api(ApiCall::Health { group: None })));
        for path in ["/v1", "/v1/", "/v1/snapshots/x", "/v1/health/x", "/metrics", "/status"] {
            check(path, Err(Failure::NoSuchPath));
        }
    }

    /// Slashes that mean nothing, before, within and after the path of everything that is served.
    #[test]
    fn slashes_that_mean_nothing_change_no_route() {
        let archive = format!("/{FULL}");
        let below_v1 = format!("/v1/snapshot/{FULL}");
        for path in [
            "/snapshot.tar.bz2",
            "/incremental-snapshot.tar.zst",
            "/v1/snapshot.tar.zst",
            "/v1/incremental-snapshot.tar.bz2",
            "/v1/snapshots",
            "/v1/best_snapshots",
            "/v1/health",
            "/health",
            &archive,
            &below_v1,
        ] {
            for query in [None, Some("group=a"), Some("max=//")] {
                let plain = parse(&Method::GET, &Place::root(path), query);
                assert!(!matches!(plain, Err(Failure::NoSuchPath)), "{path}");
                let wide = path.replace('/', "//");
                for other in [
                    format!("/{path}"),
                    format!("{path}/"),
                    format!("{wide}//"),
                    path.replace('/', "///////////////"),
                ] {
                    assert_eq!(parse(&Method::GET, &Place::root(&other), query), plain, "{other}");
                    assert_eq!(
                        parse(&Method::PUT, &Place::root(&other), query),
                        Err(Failure::Method)
                    );
                }
            }
        }
    }

    /// Paths that look like an archive's, of which some are.
    const SHAPES: &str = "/{0,2}(v1//?|snapshot//?|\\./)?(snapshot/)?\
                          snapshot-[0-9]{1,3}-[1-9A-HJ-NP-Z]{43,44}\\.tar(\\.zst)?/{0,2}";

    proptest! {
        #[test]
        fn arbitrary_requests_never_panic(path: String, query: Option<String>) {
            let _ = parse(&Method::GET, &Place::root(&path), query.as_deref());
            let _ = parse(&Method::GET, &Place::root(&format!("/{path}")), query.as_deref());
            let _ = parse(&Method::GET, &Place::root(&format!("/v1/snapshot/{path}")), None);
        }

        #[test]
        fn only_the_path_of_a_name_leads_to_it(path in SHAPES) {
            if let Ok(Route::Archive(name)) = parse(&Method::GET, &Place::root(&path), None) {
                let paths = [Style::Root.path(&name), Style::V1.path(&name)];
                prop_assert!(paths.iter().any(|known| **known == *merged(&path)));
            }
        }
    }
}
