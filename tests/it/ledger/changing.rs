//! Files that change while somebody reads them: they are not ours, and anything may happen to them.

use super::*;
use crate::support::full;

const OTHER: Content = Content::framed(8, LARGE.len);

/// Begins a download and takes its head, and no more than what came with that.
async fn begun(edge: &Edge, name: &str) -> (Answer, TcpStream) {
    let (answer, stream) = get(name).begin(edge.address).await;
    assert_eq!((answer.status, answer.length()), (200, LARGE.len), "{}", answer.head);
    (answer, stream)
}

async fn large(settings: &str) -> (Shelf, Edge, String) {
    let (shelf, name) = (Shelf::new(), full(1000));
    shelf.put(&name, LARGE);
    let edge = edge(settings, &shelf, &[&name]).await;
    (shelf, edge, name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_truncated_is_a_short_body() {
    for left in [0, LARGE.len / 2, LARGE.len - 1] {
        let (shelf, edge, name) = large(LISTED_ONCE).await;
        let (mut answer, mut stream) = begun(&edge, &name).await;
        let file = File::options().write(true).open(shelf.at(&name)).expect("open");
        file.set_len(left).expect("cut");
        rest(&mut answer, &mut stream).await;
        assert_eq!(answer.ended, Ended::Short, "{left}");
        assert!(LARGE.matches(0, &answer.body), "{left}: what came is right");
        // The process lives, and what is there now is no whole archive.
        let now = edge.ask(head(&name)).await;
        assert_eq!((now.status, now.length()), (404, 0), "{left}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_to_is_never_a_mixture() {
    let (shelf, edge, name) = large(LISTED_ONCE).await;
    let (mut answer, mut stream) = begun(&edge, &name).await;
    std::fs::write(shelf.at(&name), OTHER.all()).expect("written in its place");
    rest(&mut answer, &mut stream).await;
    assert_eq!(answer.ended, Ended::Short);
    assert!(LARGE.matches(0, &answer.body), "no byte of the other one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_removed_is_read_to_its_end() {
    let (shelf, edge, name) = large(QUICK).await;
    let (mut answer, mut stream) = begun(&edge, &name).await;
    shelf.take(&name);
    forgets(&edge, &name).await;
    assert_eq!(edge.ask(get(&name).from(2)).await.status, 404);
    rest(&mut answer, &mut stream).await;
    assert_whole(&answer, LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_replaced_is_another_copy() {
    // Whether it was listed again makes no difference.
    for settings in [LISTED_ONCE, QUICK] {
        let (shelf, edge, name) = large(settings).await;
        let (mut answer, mut stream) = begun(&edge, &name).await;
        let old = answer.header("etag").expect("a tag").to_owned();
        let start = get(&name).from(3).with("range", "bytes=0-999");
        assert_eq!(edge.ask(start).await.status, 206);
        shelf.put(&name, OTHER);
        if settings == QUICK {
            let archive = name.parse().expect("a name");
            let new = std::fs::metadata(shelf.at(&name)).expect("a file").modified().expect("one");
            edge.sees("the other one", |view| {
                view.sources(&archive).iter().any(|source| source.listed.modified == Some(new))
            })
            .await;
        }
        rest(&mut answer, &mut stream).await;
        assert_whole(&answer, LARGE);

        // As wget goes on, without a word of which copy it has a part of.
        let blind = edge.ask(get(&name).from(3).with("range", "bytes=1000-")).await;
        assert_eq!(blind.status, 503, "{}", blind.head);
        let bound = get(&name).with("range", "bytes=1000-").with("if-range", old);
        let whole = edge.ask(bound).await;
        assert_whole(&whole, OTHER);
        // Somebody else has no bytes of the old one.
        let part = edge.ask(get(&name).from(2).with("range", "bytes=1000-1999")).await;
        assert_eq!(part.status, 206);
        assert!(part.body == OTHER.bytes(1000, 2000));
        // Who begins anew goes on with the new one.
        assert_whole(&edge.ask(get(&name)).await, OTHER);
        let part = edge.ask(get(&name).with("range", "bytes=1000-1999")).await;
        assert_eq!(part.status, 206);
        assert!(part.body == OTHER.bytes(1000, 2000));
    }
}

/// Two files of one name, length and second.
#[tokio::test(flavor = "multi_thread")]
async fn copies_of_one_second_are_told_apart() {
    let (shelf, name) = (Shelf::new(), full(1000));
    let (old, new) = (Content::framed(1, 5000), Content::new(2, 5000));
    let at = |nanoseconds| std::time::UNIX_EPOCH + Duration::new(1_790_000_000, nanoseconds);
    let set = |nanoseconds| {
        let file = File::options().write(true).open(shelf.at(&name)).expect("open");
        file.set_modified(at(nanoseconds)).expect("set");
    };
    shelf.put(&name, old);
    set(1000);
    let edge = edge(LISTED_ONCE, &shelf, &[&name]).await;
    let first = edge.ask(get(&name)).await;
    assert_whole(&first, old);
    let part = |range: &str| get(&name).from(3).with("range", format!("bytes={range}"));
    assert_eq!(edge.ask(part("0-999")).await.status, 206);
    shelf.put(&name, new);
    set(2000);
    assert_eq!(edge.ask(part("1000-")).await.status, 503);
    let second = edge.ask(get(&name)).await;
    assert_whole(&second, new);
    assert_eq!(first.header("last-modified"), second.header("last-modified"));
    assert_ne!(first.header("etag"), second.header("etag"));
}
