//! Files that the configuration names and whose content is followed: certificates and keys of
//! listeners, lists of networks, users and tokens.
//!
//! Where one changes, the text of the configuration that is followed is read again with all of its
//! files, as by a reload: all of it is good and taken, or nothing is changed. The file of the
//! configuration itself is not looked at; half of an edit in it is nobody's wish.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

use super::reload::Reloader;
use crate::config::Stamp;

/// Time between two looks. Who writes a certificate and then its key has as long for both.
const LOOK: Duration = Duration::from_secs(1);

/// The service that looks at the files.
pub struct Files(pub(super) Arc<Reloader>);

type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

/// What to do after a look at the files.
#[derive(Debug, Default)]
struct Follower {
    /// What was seen at the last look.
    seen: Stamps,
    /// What could not be taken, and is not tried again as it is.
    refused: Option<Stamps>,
}

impl Follower {
    /// Whether the files, which were `read` as they were then and are so `now`, are to be read
    /// again: once nobody is about to write them any more.
    fn judge(&mut self, read: &Stamps, now: Stamps) -> bool {
        let is_still = self.seen == now;
        self.seen = now;
        is_still && self.seen != *read && self.refused.as_ref() != Some(&self.seen)
    }

    fn refuse(&mut self) {
        self.refused = Some(self.seen.clone());
    }
}

#[async_trait]
impl BackgroundService for Files {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut follower = Follower::default();
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let config = self.0.live.load_full();
            let read = config.config.source.files.clone();
            if read.is_empty() {
                continue;
            }
            let paths: Vec<PathBuf> = read.keys().cloned().collect();
            let look = move || {
                let stamp = |path: PathBuf| {
                    let stamp = Stamp::of(&path);
                    (path, stamp)
                };
                paths.into_iter().map(stamp).collect()
            };
            // A disk that hangs holds up this loop alone.
            let Ok(now) = tokio::task::spawn_blocking(look).await else { continue };
            if follower.judge(&read, now) && self.0.read_files_again().await.is_err() {
                follower.refuse();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamps(all: &[(&str, Option<u64>)]) -> Stamps {
        let stamp = |length| Stamp { length, ..Stamp::default() };
        all.iter().map(|(path, length)| (PathBuf::from(path), length.map(stamp))).collect()
    }

    #[test]
    fn files_are_read_again_once_they_are_left_alone() {
        let old = stamps(&[("cert", Some(1)), ("key", Some(1))]);
        let half = stamps(&[("cert", Some(2)), ("key", Some(1))]);
        let new = stamps(&[("cert", Some(2)), ("key", Some(2))]);
        let gone = stamps(&[("cert", Some(1)), ("key", None)]);
        let mut follower = Follower::default();
        let mut judge = |read: &Stamps, now: &Stamps| follower.judge(read, now.clone());
        assert!(!judge(&old, &old) && !judge(&old, &old));
        assert!(!judge(&old, &half) && !judge(&old, &new), "somebody writes");
        assert!(judge(&old, &new));
        assert!(!judge(&new, &new) && !judge(&new, &new), "taken");
        assert!(!judge(&new, &gone) && judge(&new, &gone), "a file that is gone is told");
    }

    #[test]
    fn what_could_not_be_taken_is_not_tried_again_as_it_is() {
        let (old, bad, good) =
            (stamps(&[("a", Some(1))]), stamps(&[("a", Some(2))]), stamps(&[("a", Some(3))]));
        let mut follower = Follower::default();
        follower.judge(&old, bad.clone());
        assert!(follower.judge(&old, bad.clone()));
        follower.refuse();
        assert!(!follower.judge(&old, bad.clone()) && !follower.judge(&old, bad));
        assert!(!follower.judge(&old, good.clone()) && follower.judge(&old, good));
        assert!(!follower.judge(&old, old.clone()) && !follower.judge(&old, old.clone()));
    }
}
