//! An archive, and each place that its bytes can come from.

use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use super::body::Content;
use super::client::{Answer, Ask};
use super::edge::{Edge, config};
use super::origin::{Fault, Origin, Program};
use super::{eventually, full, h2};

pub const CONTENT: Content = Content::framed(5, 300_000);
pub const HIT: &str = "snapedge; hit";

/// Where the bytes would come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A target, without a cache.
    Target,
    /// The same, and it would fill the cache on the way.
    Fill,
    /// The same, and a shared fetch would be begun.
    Order,
    /// An archive that is being fetched for everyone.
    Growing,
    /// The cache, in each of its modes.
    Cached,
    Shared,
    /// The generation before, which no target has any more.
    Previous,
    Directory,
}

impl Place {
    pub const ALL: [Self; 8] = [
        Self::Target,
        Self::Fill,
        Self::Order,
        Self::Growing,
        Self::Cached,
        Self::Shared,
        Self::Previous,
        Self::Directory,
    ];

    /// What is said of a 304 or 412.
    pub fn status(self) -> &'static str {
        match self {
            Self::Target | Self::Fill | Self::Order => "snapedge; fwd=bypass; detail=condition",
            Self::Growing => "snapedge; fwd=miss; collapsed",
            Self::Cached | Self::Shared | Self::Previous => HIT,
            Self::Directory => "snapedge; hit; detail=ledger",
        }
    }
}

pub struct Scene {
    pub place: Place,
    pub edge: Edge,
    pub origin: Origin,
    pub name: String,
    pub tag: String,
    pub date: String,
    directory: TempDir,
}

pub fn get(name: &str) -> Ask {
    Ask::get(format!("/{name}"))
}

impl Scene {
    pub async fn new(place: Place) -> Self {
        Self::with(place, "").await
    }

    /// An edge with further settings, a line each.
    pub async fn with(place: Place, extra: &str) -> Self {
        let (name, directory) = (full(1000), tempfile::tempdir().expect("a directory"));
        let on_origin = [(&*name, CONTENT)];
        let on_origin = if place == Place::Directory { &[][..] } else { &on_origin[..] };
        let origin = Origin::run(Program::Sidecar, on_origin).await;
        let path = directory.path().display();
        let cache = |more: &str| {
            format!(
                "proxy_snapshot_cache_dir: '{path}'\n\
                 cache: {{min_free_space: 0B, verify: length{more}}}\n{extra}"
            )
        };
        let edge = match place {
            Place::Target => Edge::with(extra, &[&origin]).await,
            Place::Fill | Place::Cached => Edge::with(&cache(""), &[&origin]).await,
            Place::Order | Place::Growing | Place::Shared => {
                Edge::with(&cache(", sharing: shared"), &[&origin]).await
            }
            Place::Previous => {
                let more = ", sharing: shared, keep_previous: true, lease: 1h";
                Edge::with(&cache(more), &[&origin]).await
            }
            Place::Directory => {
                std::fs::write(directory.path().join(&name), CONTENT.all()).expect("written");
                let text = config(extra, &[&[]]).replace(
                    "static_targets: {targets: []}",
                    &format!("ledger_targets: {{paths: ['{path}']}}"),
                );
                let edge = Edge::start(&text);
                let archive = name.parse().expect("a name");
                edge.sees("the file", |view| !view.sources(&archive).is_empty()).await;
                edge
            }
        };
        let known = edge.ask(Ask::head(format!("/{name}"))).await;
        let header = |name: &str| known.header(name).expect("told").to_owned();
        let (tag, date) = (header("etag"), header("last-modified"));
        let scene = Self { place, edge, origin, name, tag, date, directory };
        scene.prepare().await;
        scene
    }

    /// Brings the bytes to their place.
    async fn prepare(&self) {
        match self.place {
            Place::Target | Place::Fill | Place::Order | Place::Directory => return,
            Place::Growing => {
                self.origin.fail(Fault::Hold(CONTENT.len / 2));
                self.edge.ask(get(&self.name).from(9).leave_after(1000)).await;
                return;
            }
            Place::Cached | Place::Shared | Place::Previous => {}
        }
        eventually("it is cached", || async {
            self.edge.ask(get(&self.name)).await.header("cache-status") == Some(HIT)
        })
        .await;
        if self.place == Place::Previous {
            self.origin.add(&full(2000), CONTENT);
            self.origin.remove(&self.name);
            self.edge.knows(&self.origin).await;
            let gone = self.name.parse().expect("a name");
            self.edge.sees("no target has it", |view| view.sources(&gone).is_empty()).await;
        }
    }

    /// The answer, and all that came with it until the connection ended.
    pub async fn ask(&self, ask: Ask, headers: &[(&str, &str)]) -> Answer {
        let ask = self.with_headers(ask, headers).with("connection", "close");
        let (mut answer, mut stream) = ask.begin(self.edge.address).await;
        if answer.status >= 300 {
            stream.read_to_end(&mut answer.body).await.expect("an end");
        }
        answer
    }

    /// The same over HTTP/2, of an edge that speaks it; no more than the beginning of a long body.
    pub async fn ask_over_h2(&self, ask: Ask, headers: &[(&str, &str)]) -> Answer {
        h2::send(self.with_headers(ask, headers).leave_after(1000), self.edge.address).await
    }

    fn with_headers(&self, mut ask: Ask, headers: &[(&str, &str)]) -> Ask {
        let day = "Sun, 20 Sep 2015 14:13:20 GMT";
        for (name, value) in headers {
            let value = value.replace("OURS", &self.tag).replace("DATE", &self.date);
            ask = ask.with(name, value.replace("BEFORE", day));
        }
        ask
    }

    /// What the origin was asked for, and what is on disk.
    pub fn cost(&self) -> (usize, u64, usize) {
        let files = self.directory.path().read_dir().expect("a directory").count();
        (self.origin.asked("GET", &self.name), self.origin.sent(), files)
    }
}
