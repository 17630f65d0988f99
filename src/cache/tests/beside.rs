//! Two processes on one directory, as while one takes over from the other. Locks are those of open
//! files, so that two stores of one process stand for them.

use super::{
    HASH, PATIENCE, Scene, Worths, announced, content, eventually, files, full, open, options,
    target,
};
use crate::cache::{Fill, Refusal, Standing, Store};
use crate::clock::Now;

/// A second store on the directory of a scene.
fn beside(scene: &Scene) -> Store {
    let options = options(scene.directory.path(), &scene.worths);
    Store::open_beside(&options, Now::read()).expect("a store")
}

#[tokio::test]
async fn both_see_what_the_other_promoted() {
    let (first, second) = (full(1000), full(2000));
    let scene = Scene::new([first, second]);
    scene.cache(&first, &content(1, 100_000)).await;
    let guest = beside(&scene);
    assert!(scene.store.is_owner() && !guest.is_owner());
    assert_eq!(guest.names(), [first]);
    scene.worths.set_best([first, second]);
    scene.cache(&second, &content(1, 50_000)).await;
    assert!(!guest.meet(Now::read()).expect("a disk"), "the other one is there");
    assert!(guest.names().contains(&second));
    let Standing::Whole(sealed) = guest.standing(&second) else { panic!("not adopted") };
    assert_eq!(sealed.record().length, 50_000);
    // And nobody may have it but these two.
    let third = Store::open(&options(scene.directory.path(), &scene.worths), Now::read());
    assert!(third.is_err());
}

#[tokio::test]
async fn an_archive_is_fetched_by_one_of_them() {
    let name = full(1000);
    let scene = Scene::new([name]);
    let guest = beside(&scene);
    let mut fill = scene.begin(&name, 1000);
    fill.write(&[7; 500]).await.expect("written");
    let refused = guest.claim(&name, &target("main")).expect("the right here");
    let refused = refused.reserve(announced("main", 1000)).expect_err("not twice");
    assert!(matches!(refused, Refusal::Elsewhere), "{refused}");
    assert!(guest.claim(&name, &target("main")).is_some(), "the right was given back");
    fill.write(&[7; 500]).await.expect("nothing was disturbed");
    fill.finish().await.expect("whole");
    scene.whole(&name);
    guest.meet(Now::read()).expect("a disk");
    assert!(matches!(guest.standing(&name), Standing::Whole(_)));
}

#[tokio::test]
async fn what_one_gives_up_the_other_may_fetch() {
    let name = full(1000);
    let scene = Scene::new([name]);
    let guest = beside(&scene);
    drop(scene.begin(&name, 1000));
    scene.absent(&name);
    let claim = guest.claim(&name, &target("main")).expect("the right");
    let mut fill = Fill::begin(claim.reserve(announced("main", 1000)).expect("room")).expect("one");
    fill.write(&[7; 1000]).await.expect("written");
    fill.finish().await.expect("whole");
    eventually("it is sealed", || {
        matches!(guest.standing(&name), Standing::Whole(_)).then_some(())
    });
}

#[tokio::test]
async fn nothing_is_swept_that_another_one_writes() {
    let (name, other) = (full(1000), full(2000));
    let scene = Scene::new([name, other]);
    let guest = beside(&scene);
    let stale = scene.path(&full(3), ".snapedge-part");
    std::fs::write(&stale, "left by a crash").expect("written");
    let mut ours = scene.begin(&name, 1000);
    ours.write(&[7; 10]).await.expect("written");
    let claim = guest.claim(&other, &target("main")).expect("the right");
    let mut theirs =
        Fill::begin(claim.reserve(announced("main", 1000)).expect("room")).expect("one");
    theirs.write(&[7; 10]).await.expect("written");
    // As of a record that is there before its archive.
    let record = scene.path(&other, ".snapedge");
    std::fs::write(&record, "half of a record").expect("written");
    assert!(!guest.meet(Now::read()).expect("a disk"));
    assert!(stale.exists(), "a guest sweeps nothing");
    let Scene { store, directory, .. } = scene;
    drop(ours);
    drop(store);
    // The thread of the fill has the store to its end.
    eventually("the directory is free", || guest.meet(Now::read()).expect("a disk").then_some(()));
    assert!(guest.is_owner());
    assert!(!stale.exists(), "what a crash left is swept");
    assert!(record.exists(), "what is written is not");
    let left = files(directory.path());
    assert!(left.contains(&format!("{other}.snapedge-part")), "{left:?}");
    std::fs::remove_file(record).expect("removed");
    theirs.write(&[7; 990]).await.expect("nothing was disturbed");
    theirs.finish().await.expect("whole");
    let deadline = std::time::Instant::now() + PATIENCE;
    while !matches!(guest.standing(&other), Standing::Whole(_)) {
        assert!(std::time::Instant::now() < deadline, "it is sealed");
        tokio::task::yield_now().await;
    }
}

/// A kill of either, at any time, leaves what the other one can go on with.
#[tokio::test]
async fn a_guest_becomes_the_owner_and_the_next_one_its_guest() {
    let name = full(1000);
    let scene = Scene::new([name]);
    scene.cache(&name, &content(1, 10_000)).await;
    let second = beside(&scene);
    let Scene { store, directory, worths } = scene;
    drop(store);
    eventually("the directory is free", || second.meet(Now::read()).expect("a disk").then_some(()));
    let third =
        Store::open_beside(&options(directory.path(), &worths), Now::read()).expect("a store");
    assert!(second.is_owner() && !third.is_owner());
    assert_eq!(third.names(), [name]);
    drop(second);
    eventually("the directory is free", || third.meet(Now::read()).expect("a disk").then_some(()));
    drop(third);
    let again = open(directory.path(), &Worths::default(), Now::read());
    assert_eq!(again.names(), [name], "{HASH}");
}
