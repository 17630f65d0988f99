//! The path of a short form through a large index: 2,500 targets with four archives each.
//!
//! To be read against one millisecond, which a short form must not exceed with 10,000 sources.

#![allow(missing_docs, reason = "`criterion_group!` makes a public function without any")]
#![allow(clippy::expect_used, reason = "a benchmark that cannot set itself up has failed")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};

use snapedge::api::{self, Reference, Urls};
use snapedge::clock::Now;
use snapedge::config::{Downloads, Key, Sharing};
use snapedge::hops::{CdnLoop, Via};
use snapedge::index::{
    AccessKey, Catalog, Event, Listed, Location, Policy, Publish, TargetId, View,
};
use snapedge::route::plan::{ArchiveRequest, CachePolicy, EntryState, Tried, World, next};
use snapedge::route::{
    Affinity, ApiCall, Asked, Names, Place, Requester, Route, Settings, Strangers, TagKey, chosen,
    parse, short_form,
};
use snapedge::snapshot::{ArchiveHash, ArchiveName, Compression, Slot};

const GROUPS: [&str; 5] = ["asia", "eu", "mainnet", "testnet", "us"];
const TARGETS: u16 = 2_500;
const POLICY: Policy =
    Policy { probe_failures: 3, pair_hold: Duration::from_secs(600), publish: Publish::Seen };
const OLD_FULL: u64 = 300_000_000;
const NEW_FULL: u64 = 300_100_000;

/// Two fulls and an incremental on each. All targets agree on the fulls and on the hash at each
/// slot, and are up to 49 incrementals behind the newest one.
fn archives(at: u16) -> Vec<Listed> {
    let hash = ArchiveHash::new([7; 32]);
    let newest = NEW_FULL + 5_000 - u64::from(at % 50) * 100;
    let incremental = |base, slot| {
        ArchiveName::incremental(Slot(base), Slot(slot), hash, Compression::Zstd).expect("ordered")
    };
    let names = [
        ArchiveName::full(Slot(OLD_FULL), hash, Compression::Zstd),
        incremental(OLD_FULL, NEW_FULL - 100),
        ArchiveName::full(Slot(NEW_FULL), hash, Compression::Zstd),
        incremental(NEW_FULL, newest),
    ];
    let [high, low] = at.to_be_bytes();
    let listed = |name: ArchiveName| Listed {
        name,
        size: Some(100 << 30),
        modified: Some(UNIX_EPOCH),
        tag: None,
        location: Some(Location {
            scheme: "http",
            address: ([10, 0, high, low], 8899).into(),
            authority: format!("10.0.{high}.{low}:8899").into(),
            path: format!("/{name}"),
            access: AccessKey::default(),
            via: Via::default(),
        }),
    };
    names.into_iter().map(listed).collect()
}

fn catalog(now: Now) -> Catalog {
    let mut catalog = Catalog::default();
    for at in 0..TARGETS {
        let target = TargetId {
            group: GROUPS[usize::from(at) % GROUPS.len()].into(),
            authority: format!("target-{at}:8899").into(),
        };
        catalog.apply(Event::Answered { target, at: now, archives: archives(at) });
    }
    catalog
}

/// Answers one request as the proxy decides about it.
fn answer(view: &View, path: &str, query: Option<&str>, settings: &Settings) {
    let tags = TagKey::of(&Key::new([1; 16]));
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    match parse(&Method::GET, &Place::root(black_box(path)), query).expect("a known path") {
        Route::ShortForm(form) => {
            let requester = Requester { client, targets: &Strangers };
            let name = chosen(&form, None, view, settings).expect("an archive");
            let reply = short_form(&form, &name, view, settings, &requester);
            assert!(reply.is_ok(), "{path}");
        }
        Route::Archive(name) => {
            let asked = Asked::of(&Method::GET, &HeaderMap::new(), tags);
            let request = ArchiveRequest { name, client, asked, came: Arc::default(), group: None };
            let world = World {
                view,
                entry: Some(EntryState::Nothing),
                affinity: &Affinity::Fresh,
                targets: &Strangers,
                is_distrusted: &|_| false,
                has_failed: &|_| false,
                downloads: Downloads::Proxy,
                policy: CachePolicy { sharing: Sharing::Exclusive, keeps: false },
                admitted: true,
            };
            assert!(next(&request, &world, &Tried::default()).is_ok(), "{path}");
        }
        Route::Api(call) => unreachable!("{call:?} is not measured here"),
    }
}

fn benches(criterion: &mut Criterion) {
    let now = Now { instant: Instant::now(), wall: UNIX_EPOCH };
    let groups = GROUPS.map(Arc::from);
    let catalog = catalog(now);
    let view = catalog.view(&View::default(), &groups, POLICY, now.instant);
    assert_eq!(view.entries().len(), 10_000, "the promise is about 10,000 sources");
    let best = view.best(None).expect("known").expect("there is a pair");
    let incremental = best.incremental.expect("a pair");

    let mut settings = Settings {
        names: Names::default(),
        downloads: Downloads::Proxy,
        default_group: None,
        public_url: None,
        max_snapshot_age: 5_000,
    };
    let answer = |path: &str, query: Option<&str>, settings: &Settings| {
        answer(&view, path, query, settings);
    };

    let mut measured = criterion.benchmark_group("10,000 sources");
    measured.bench_function("short form", |b| {
        b.iter(|| answer("/incremental-snapshot.tar.bz2", None, &settings));
    });
    measured.bench_function("short form of a group", |b| {
        b.iter(|| answer("/snapshot.tar.bz2", Some("group=testnet"), &settings));
    });
    // 2,500 sources for the full archive, 50 for the incremental one.
    for (label, name) in [("full", best.full), ("incremental", incremental)] {
        let path = format!("/{name}");
        measured.bench_function(format!("{label} archive"), |b| {
            b.iter(|| answer(&path, None, &settings));
        });
    }
    settings.downloads = Downloads::Redirect;
    measured.bench_function("short form, redirected to a target", |b| {
        b.iter(|| answer("/snapshot.tar.bz2", None, &settings));
    });
    let nobody = CdnLoop::default();
    let urls = Urls::Own("https://edge.example".to_owned());
    for (label, call) in [
        ("25 best snapshots as JSON", ApiCall::BestSnapshots { group: None, max: 25 }),
        ("all snapshots as JSON", ApiCall::Snapshots { group: None, base: None }),
    ] {
        measured.bench_function(label, |b| {
            b.iter(|| api::answer(&call, &view, &settings, Reference::Unset, &urls, &nobody));
        });
    }
    measured.bench_function("building the view", |b| {
        b.iter(|| catalog.view(black_box(&view), &groups, POLICY, now.instant));
    });
    measured.finish();
}

fn brief() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = measurements;
    config = brief();
    targets = benches
}
criterion_main!(measurements);
