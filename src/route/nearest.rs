//! Which sources are tried for an edge that asks: those that are near, so that a request does not
//! try all ways that there are between edges which list each other.

use std::sync::Arc;

use crate::hops::CdnLoop;
use crate::index::Source;

/// Most sources that are tried besides the nearest ones for a request that came through one edge;
/// none is for one that came through several. An archive whose every source fails is then asked for
/// in proportion to the number of edges, and not to that of the ways between them.
const MAX_DETOURS: usize = 1;

/// Leaves out what comes through those that ask, and for an edge what comes through more edges than
/// what is nearest. The order stays.
pub fn keep_near(sources: &mut Vec<Arc<Source>>, came: &CdnLoop) {
    if !came.is_of_an_edge() {
        return;
    }
    sources.retain(|source| came.admits(source.via()));
    let distance = |source: &Source| source.via().edges().len();
    let Some(nearest) = sources.iter().map(|source| distance(source)).min() else { return };
    let mut detours = if came.edges().len() == 1 { MAX_DETOURS } else { 0 };
    sources.retain(|source| {
        let is_kept = distance(source) == nearest || detours > 0;
        detours -= usize::from(is_kept && distance(source) > nearest);
        is_kept
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hops::Via;
    use crate::index::{AccessKey, Listed, Location, TargetId};
    use std::time::UNIX_EPOCH;

    /// A source that is one of the edges `a`, `b` and so on, and comes through these; a node where
    /// there are none.
    fn source(edges: &str) -> Arc<Source> {
        let names: Vec<String> = edges.chars().map(String::from).collect();
        let own = "own".parse().expect("a name");
        let via = Via::through(names.iter().map(String::as_str), false, &own).expect("a way");
        let location = Location {
            scheme: "http",
            address: ([10, 0, 0, 1], 8899).into(),
            authority: "10.0.0.1:8899".into(),
            path: "/x".to_owned(),
            access: AccessKey::default(),
            via,
        };
        let name = format!("snapshot-1-{}.tar.zst", "1".repeat(32)).parse().expect("valid");
        Arc::new(Source {
            target: TargetId { group: "g".into(), authority: edges.into() },
            listed: Listed {
                name,
                size: None,
                modified: None,
                tag: None,
                location: Some(location),
            },
            updated_at: UNIX_EPOCH,
        })
    }

    #[track_caller]
    fn check(came: &str, all: &[&str], expected: &[&str]) {
        let mut sources: Vec<_> = all.iter().map(|edges| source(edges)).collect();
        keep_near(&mut sources, &CdnLoop::parse([came.as_bytes()].into_iter()));
        let kept: Vec<&str> = sources.iter().map(|source| &*source.target.authority).collect();
        assert_eq!(kept, expected, "{came}");
    }

    #[test]
    fn what_is_near_is_tried_for_an_edge_and_everything_for_a_client() {
        let all = ["b", "", "cd", "c", "", "ca"];
        check("", &all, &all);
        check("cloudflare", &all, &all);
        check("snapedge-x", &all, &["b", "", ""]);
        check("snapedge-b", &all, &["", "cd", ""]);
        check("snapedge-c, snapedge-x", &all, &["", ""]);
        check("snapedge-x", &["cd", "b", "ef", "c"], &["cd", "b", "c"]);
        check("snapedge-x, snapedge-y", &["cd", "b", "ef", "c"], &["b", "c"]);
        check("snapedge-b", &["b", "cb"], &[]);
    }
}
