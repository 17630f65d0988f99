//! Edges behind edges: in tiers, in circles, and each before itself.

mod circles;
mod copies;
mod ghosts;
mod loads;
mod said;

use std::net::SocketAddr;

use tempfile::TempDir;

use super::support::edge::{Edge, QUICK};
use super::support::origin::Origin;

/// Edges that ask each other, and nodes.
struct Fleet {
    edges: Vec<Edge>,
    _directory: TempDir,
}

/// The targets of one edge of a fleet.
struct Member<'a> {
    nodes: &'a [&'a Origin],
    /// Other edges of the fleet, or itself.
    edges: Vec<usize>,
}

impl Fleet {
    /// Edges with these targets in one group each, and this in the configuration: `{}` is the
    /// number of the edge.
    fn of(members: &[Member<'_>], group: &str, extra: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let hold = if extra.contains("pair_hold") { "pair_hold: 1h\n" } else { "\n\n" };
        let quick = QUICK.replacen(hold, "", 1);
        let path = |number: usize| directory.path().join(format!("edges-{number}"));
        let lines = |addresses: &mut dyn Iterator<Item = SocketAddr>| {
            addresses.map(|address| format!("{address}\n")).collect::<Vec<_>>().concat()
        };
        let mut edges: Vec<Edge> = Vec::new();
        for (number, Member { nodes, .. }) in members.iter().enumerate() {
            // No edge has an address yet.
            let nodes = lines(&mut nodes.iter().map(|node| node.address()));
            std::fs::write(path(number), nodes).expect("a file");
            let extra = extra.replace("{}", &number.to_string());
            edges.push(Edge::start(&format!(
                "{quick}{extra}\ntarget_groups:\n  - group: a\n    {group}\n    \
                 file_targets: {{path: '{}'}}\n",
                path(number).display()
            )));
        }
        for (number, Member { nodes, edges: others }) in members.iter().enumerate() {
            let nodes = nodes.iter().map(|node| node.address());
            let others = others.iter().map(|other| edges[*other].address);
            let new = directory.path().join("new");
            std::fs::write(&new, lines(&mut nodes.chain(others))).expect("a file");
            std::fs::rename(&new, path(number)).expect("a file");
        }
        Self { edges, _directory: directory }
    }

    /// Edges that all ask one node, each other and themselves, as those do that one name in the
    /// DNS leads to.
    fn clique(count: usize, node: &Origin, group: &str, extra: &str) -> Self {
        let nodes = [node];
        let member = |_| Member { nodes: &nodes, edges: (0..count).collect() };
        let members: Vec<Member> = (0..count).map(member).collect();
        Self::of(&members, group, extra)
    }

    /// Waits until each edge has an archive from every other one that is not on the way to it.
    async fn lists(&self, name: &str, sources: usize) {
        let name = name.parse().expect("a name");
        for edge in &self.edges {
            edge.sees("the archive on all of them", |view| view.sources(&name).len() == sources)
                .await;
        }
    }
}
