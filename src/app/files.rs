//! Files that the configuration names and whose content is followed: certificates and keys of
//! listeners, lists of networks, users and tokens.
//!
//! Where one changes, the text of the configuration that is followed is read again with all of its
//! files, as by a reload: all of it is good and taken, or nothing is changed. The file of the
//! configuration itself is not looked at; half of an edit in it is nobody's wish.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

use super::reload::Reloader;
use crate::config::Stamp;

/// Time between two looks. Who writes a certificate and then its key has as long for both.
const LOOK: Duration = Duration::from_secs(1);

/// How long what was not taken is left alone as it is.
const REST: Duration = Duration::from_secs(60);
/// After so many looks a file is read although somebody writes it again and again.
const RESTLESS: u32 = 5;

/// The service that looks at the files.
pub struct Files(pub(super) Arc<Reloader>);

type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

/// What to do after a look at the files.
#[derive(Debug, Default)]
struct Follower {
    /// What was seen at the last look.
    seen: Stamps,
    /// What could not be taken, and is not tried again at once as it is.
    refused: Option<(Stamps, Instant)>,
    /// Looks in a row at which something had changed.
    restless: u32,
}

impl Follower {
    /// Whether the files, which were `read` as they were then and are so `now`, are to be read
    /// again: once nobody is about to write them any more.
    fn judge(&mut self, read: &Stamps, files: Stamps, now: Instant) -> bool {
        self.restless = if self.seen == files { 0 } else { self.restless + 1 };
        self.seen = files;
        let is_still = self.restless == 0 || self.restless >= RESTLESS;
        let rests = |(stamps, until): &(Stamps, Instant)| *stamps == self.seen && now < *until;
        is_still && self.seen != *read && !self.refused.as_ref().is_some_and(rests)
    }

    /// What was seen last was not taken: by its own fault, or by that of something else, which may
    /// be mended while nothing here changes.
    fn refuse(&mut self, now: Instant) {
        self.refused = Some((self.seen.clone(), now + REST));
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
            let Ok(files) = tokio::task::spawn_blocking(look).await else { continue };
            if self.0.is_draining() {
                return;
            }
            if follower.judge(&read, files, Instant::now())
                && self.0.read_files_again().await.is_err()
            {
                follower.refuse(Instant::now());
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
        let start = Instant::now();
        let mut judge = |read: &Stamps, now: &Stamps| follower.judge(read, now.clone(), start);
        assert!(!judge(&old, &old) && !judge(&old, &old));
        assert!(!judge(&old, &half) && !judge(&old, &new), "somebody writes");
        assert!(judge(&old, &new));
        assert!(!judge(&new, &new) && !judge(&new, &new), "taken");
        assert!(!judge(&new, &gone) && judge(&new, &gone), "a file that is gone is told");
    }

    #[test]
    fn what_could_not_be_taken_is_tried_again_when_it_changes_or_after_a_rest() {
        let [old, bad, good] = [1, 2, 3].map(|length| stamps(&[("a", Some(length))]));
        let start = Instant::now();
        let mut follower = Follower::default();
        follower.judge(&old, bad.clone(), start);
        assert!(follower.judge(&old, bad.clone(), start));
        follower.refuse(start);
        let soon = start + REST / 2;
        assert!(
            !follower.judge(&old, bad.clone(), soon) && !follower.judge(&old, bad.clone(), soon)
        );
        assert!(follower.judge(&old, bad, start + REST), "what else was wrong may be mended");
        assert!(!follower.judge(&old, good.clone(), soon) && follower.judge(&old, good, soon));
        assert!(
            !follower.judge(&old, old.clone(), soon) && !follower.judge(&old, old.clone(), soon)
        );
    }

    #[test]
    fn what_never_rests_is_read_all_the_same() {
        let start = Instant::now();
        let read = stamps(&[("a", Some(0))]);
        let mut follower = Follower::default();
        let judged: Vec<bool> = (1..=8)
            .map(|length| follower.judge(&read, stamps(&[("a", Some(length))]), start))
            .collect();
        assert_eq!(judged, [false, false, false, false, true, true, true, true]);
    }
}
