//! Somebody else has a hand in the directory while an archive is being fetched: nothing that was
//! cut, holed or exchanged is ever found under an archive's name.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::FallocateFlags;

use super::{BLOCK, Scene, content, full};
use crate::cache::{Abandoned, Fill};
use crate::snapshot::ArchiveName;

const LENGTH: usize = 3 * BLOCK + 12_345;
const PAGE: u64 = 4096;

/// What is done to the unfinished file.
#[derive(Clone, Copy, Debug)]
enum Meddling {
    Empty,
    CutByAByte,
    CutToAPage,
    Longer,
    Hole,
    HoleAtTheEnd,
    Exchanged,
    Removed,
    LinkInPlace,
}

impl Meddling {
    const ALL: [Self; 9] = [
        Self::Empty,
        Self::CutByAByte,
        Self::CutToAPage,
        Self::Longer,
        Self::Hole,
        Self::HoleAtTheEnd,
        Self::Exchanged,
        Self::Removed,
        Self::LinkInPlace,
    ];

    fn apply(self, path: &Path) {
        let file = File::options().write(true).open(path).expect("the unfinished file");
        let length = file.metadata().expect("a file").len();
        let punch = |at: u64| {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, flags, at, PAGE).expect("a hole");
        };
        match self {
            Self::Empty => file.set_len(0).expect("cut"),
            Self::CutByAByte => file.set_len(length - 1).expect("cut"),
            Self::CutToAPage => file.set_len(PAGE).expect("cut"),
            Self::Longer => file.set_len(length + 1).expect("longer"),
            Self::Hole => punch(16 * PAGE),
            Self::HoleAtTheEnd => punch((length - 1) / PAGE * PAGE),
            Self::Exchanged => {
                let other = path.with_extension("other");
                std::fs::copy(path, &other).expect("copied");
                std::fs::rename(other, path).expect("renamed");
            }
            Self::Removed => std::fs::remove_file(path).expect("removed"),
            Self::LinkInPlace => {
                let other = path.with_extension("other");
                std::fs::rename(path, &other).expect("renamed");
                std::os::unix::fs::symlink(other, path).expect("a link");
            }
        }
    }
}

async fn fetch(scene: &Scene, mut fill: Fill, bytes: &Bytes, at: usize, meddling: Meddling) {
    let name = full(1000);
    let path = scene.path(&name, ".snapedge-part");
    let outcome = async {
        fill.write(&bytes[..at]).await?;
        fill.flush().await?;
        super::eventually("it is written", || {
            (path.metadata().expect("a file").len() == at as u64).then_some(())
        });
        meddling.apply(&path);
        fill.write(&bytes[at..]).await?;
        fill.finish().await
    };
    // It may have gone through before the writer noticed, who has the last word.
    let outcome: Result<(), Abandoned> = outcome.await;
    assert!(matches!(outcome, Ok(()) | Err(Abandoned::Disk)), "{meddling:?}: {outcome:?}");
}

fn assert_nothing_is_kept(scene: &Scene, name: &ArchiveName, case: &str) {
    scene.absent(name);
    assert!(scene.store.names().is_empty(), "{case}");
    assert!(scene.path(name, "").symlink_metadata().is_err(), "{case}: {:?}", scene.files());
    assert!(scene.path(name, ".snapedge").symlink_metadata().is_err(), "{case}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_changed_is_not_promoted() {
    let (name, bytes) = (full(1000), content(7, LENGTH));
    for meddling in Meddling::ALL {
        // In the middle, within a page, and when nothing more is to be written.
        for at in [BLOCK, 2 * BLOCK + 700, LENGTH] {
            // Bytes that are zeroed in a page which is written to later have a block again: that is
            // writing over, which is for `verify: decode` to find.
            let within = !(at as u64).is_multiple_of(PAGE) && at < LENGTH;
            if matches!(meddling, Meddling::HoleAtTheEnd) && within {
                continue;
            }
            for shared in [false, true] {
                let case = format!("{meddling:?} at {at}, shared: {shared}");
                let scene = Scene::new([name]);
                let reservation = scene.reserve(&name, LENGTH);
                let (fill, _growing) = if shared {
                    let (fill, growing, _) = Fill::begin_shared(reservation, true).expect("begun");
                    (fill, Some(growing))
                } else {
                    (Fill::begin(reservation).expect("begun"), None)
                };
                fetch(&scene, fill, &bytes, at, meddling).await;
                assert_nothing_is_kept(&scene, &name, &case);
                // The next one is none the worse for it.
                let _ = std::fs::remove_file(scene.path(&name, ".other"));
                scene.cache(&name, &bytes).await;
            }
        }
    }
}
