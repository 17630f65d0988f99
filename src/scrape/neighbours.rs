//! Targets that are edges themselves: who they are, and how they came by what they have.

use http::HeaderValue;
use serde_json::value::RawValue;

use super::client::{Head, TargetConnection};
use crate::access::Access;
use crate::hops::{CdnLoop, Detour, EdgeId, MAX_HOPS, VIA, Via};

impl Head {
    /// The edge that answered, where it is one; an error where it is this one.
    pub(super) fn edge(&self, access: &Access) -> Result<Option<EdgeId>, Detour> {
        let teller = Via::teller(self.headers.get(VIA).map(HeaderValue::as_bytes));
        if teller.as_ref() == Some(access.edge()) { Err(Detour::Itself) } else { Ok(teller) }
    }

    /// The edges that what it tells of came through, where an edge says so.
    pub(super) fn via(&self, access: &Access) -> Result<Via, Detour> {
        Via::told(self.headers.get(VIA).map(HeaderValue::as_bytes), access.edge())
    }
}

impl TargetConnection {
    /// This connection for requests that somebody else made, which came through these.
    pub(super) fn after(&self, came: &CdnLoop) -> Self {
        let mut connection = self.clone();
        connection.came_through = self.access().came_through(came);
        connection
    }
}

/// The fields of a listed file that say how an edge came by an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Handed {
    /// The edges that it came through; nothing where that cannot be read.
    names: Option<Vec<String>>,
    kept: bool,
}

impl Handed {
    /// From the fields of a file, which only an edge has.
    pub(super) fn read(via: Option<&RawValue>, kept: Option<&RawValue>) -> Self {
        let names = via.map_or(Some(Vec::new()), |via| serde_json::from_str(via.get()).ok());
        let names = names.map(|mut names: Vec<String>| {
            // One more is too many, and as good as all of them.
            names.truncate(MAX_HOPS + 1);
            names
        });
        Self { names, kept: kept.is_some_and(|kept| kept.get() == "true") }
    }

    /// The edges that it comes through, the one that tells it being the first. Nobody but an edge
    /// is listened to.
    pub(super) fn via(&self, edge: Option<&EdgeId>, own: &EdgeId) -> Result<Via, Detour> {
        let Some(edge) = edge else { return Ok(Via::default()) };
        let names = self.names.as_ref().ok_or(Detour::Nameless)?;
        let names = std::iter::once(edge.as_str()).chain(names.iter().map(String::as_str));
        Via::through(names, self.kept, own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The way of a file that the edge `b` lists, for the edge `own`.
    fn check(via: Option<&str>, kept: Option<&str>, expected: Result<&[&str], Detour>) {
        let raw = |text: Option<&str>| {
            text.map(|text| RawValue::from_string(text.to_owned()).expect("JSON"))
        };
        let (via, kept) = (raw(via), raw(kept));
        let handed = Handed::read(via.as_deref(), kept.as_deref());
        let (b, own) = ("b".parse().expect("a name"), "own".parse().expect("a name"));
        let found = handed.via(Some(&b), &own);
        let names = found.as_ref().map(|via| via.edges().iter().map(EdgeId::as_str).collect());
        let names: Result<Vec<&str>, Detour> = names.map_err(|detour| *detour);
        assert_eq!(names, expected.map(<[&str]>::to_vec), "{via:?}");
        assert_eq!(handed.via(None, &own), Ok(Via::default()), "from anybody else it is nothing");
    }

    #[test]
    fn what_an_edge_lists_says_how_it_came_there() {
        check(None, None, Ok(&["b"]));
        check(Some("[]"), None, Ok(&["b"]));
        check(Some(r#"["c", "d"]"#), None, Ok(&["b", "c", "d"]));
        check(Some(r#"["c", "Own"]"#), None, Err(Detour::ThroughUs));
        check(Some(r#"["c", "d", "e", "f"]"#), None, Err(Detour::TooFar));
        let many: Vec<String> = (0..999).map(|number| format!("\"e{number}\"")).collect();
        check(Some(&format!("[{}]", many.join(","))), None, Err(Detour::TooFar));
        for garbage in ["7", "null", r#""c""#, "[7]", r#"[""]"#, r#"["a b"]"#, "{}"] {
            check(Some(garbage), Some("true"), Err(Detour::Nameless));
        }
    }
}
