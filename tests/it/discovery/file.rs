//! `file_targets`: a file that changes while it is followed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

const KIND: SourceKind = SourceKind::File;

/// A file that lists targets in the form that its extension asks for.
struct List {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl List {
    fn new(extension: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(format!("targets.{extension}"));
        Self { directory, path }
    }

    fn text(&self, origins: &[&Origin]) -> String {
        let list = addresses(origins);
        match self.path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => serde_json::json!([{ "targets": list, "labels": {} }]).to_string(),
            Some("yaml" | "yml") => {
                let items = list.iter().map(|target| format!("    - '{target}'\n"));
                format!("- targets:\n{}", items.collect::<String>())
            }
            _ => format!("# ours\n\n{}\n", list.join("\n")),
        }
    }

    fn write(&self, origins: &[&Origin]) {
        fs::write(&self.path, self.text(origins)).expect("written");
    }

    /// Puts another file in its place, as editors and deployments do.
    fn replace(&self, text: &str) {
        let mut new = tempfile::NamedTempFile::new_in(self.directory.path()).expect("a file");
        new.write_all(text.as_bytes()).expect("written");
        new.persist(&self.path).expect("renamed");
    }
}

fn source(path: &Path) -> String {
    format!("file_targets: {{path: '{}'}}", path.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_targets_is_followed_in_place_and_by_rename() {
    let (a, b, c) = (origin(1000).await, origin(2000).await, origin(3000).await);
    for extension in ["txt", "json", "yaml", "yml"] {
        let list = List::new(extension);
        list.write(&[&a]);
        let edge = Edge::start(&group(&source(&list.path)));
        finds(&edge, &[1000], &[2000]).await;
        list.replace(&list.text(&[&a, &b]));
        finds(&edge, &[1000, 2000], &[]).await;
        list.write(&[&b]);
        finds(&edge, &[2000], &[1000]).await;
        list.replace(&list.text(&[&c]));
        finds(&edge, &[3000], &[1000, 2000]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_makes_no_sense_takes_no_target_away() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    for extension in ["txt", "json", "yaml"] {
        let list = List::new(extension);
        list.write(&[&a]);
        let edge = Edge::start(&group(&source(&list.path)));
        finds(&edge, &[1000], &[]).await;
        // Half of a list is none: what it names is not taken either.
        let whole = list.text(&[&b]);
        let half = if extension == "txt" { whole.replace(':', ";") } else { whole };
        list.replace(&format!("{half}- no port: ["));
        keeps(&edge, KIND, 1, &[1000]).await;
        assert!(!lists(&edge, 2000));
        fs::remove_file(&list.path).expect("removed");
        keeps(&edge, KIND, 1, &[1000]).await;
        list.write(&[&b]);
        finds(&edge, &[2000], &[1000]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_takes_no_target_away() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    let list = List::new("txt");
    list.write(&[&a]);
    let edge = Edge::start(&group(&source(&list.path)));
    finds(&edge, &[1000], &[]).await;
    fs::remove_file(&list.path).expect("removed");
    fs::create_dir(&list.path).expect("a directory");
    keeps(&edge, KIND, 1, &[1000]).await;
    fs::remove_dir(&list.path).expect("removed");
    fs::write(&list.path, vec![b'\n'; (16 << 20) + 1]).expect("written");
    keeps(&edge, KIND, 1, &[1000]).await;
    list.replace(&list.text(&[&b]));
    finds(&edge, &[2000], &[1000]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_in_place_of_the_file_holds_nothing_up() {
    let a = origin(1000).await;
    let list = List::new("txt");
    let made = std::process::Command::new("mkfifo").arg(&list.path).status();
    assert!(made.expect("mkfifo runs").success());
    let targets = format!("static_targets: {{targets: ['{}']}}", a.address());
    let edge = Edge::start(&group(&format!("{targets}, {}", source(&list.path))));
    finds(&edge, &[1000], &[]).await;
    keeps(&edge, KIND, 1, &[1000]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn static_targets_need_no_file() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    let list = List::new("not-there-yet");
    let targets = format!("static_targets: {{targets: ['{}']}}", a.address());
    let edge = Edge::start(&group(&format!("{targets}, {}", source(&list.path))));
    finds(&edge, &[1000], &[2000]).await;
    list.write(&[&b]);
    finds(&edge, &[1000, 2000], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_transfer_of_a_removed_target_finishes() {
    let content = Content::new(1, 6000);
    let a = Origin::run(Program::Sidecar, &[(&full(1000), content)]).await;
    let list = List::new("txt");
    list.write(&[&a]);
    let edge = Edge::start(&group(&source(&list.path)));
    edge.knows(&a).await;
    a.fail(Fault::Drip { bytes: 100, pause: Duration::from_millis(30) });
    let address = edge.address;
    let download = tokio::spawn(Ask::get(format!("/{}", full(1000))).send(address));
    eventually("the download began", || async { a.asked("GET", &full(1000)) > 0 }).await;
    list.write(&[]);
    finds(&edge, &[], &[1000]).await;
    assert!(!download.is_finished(), "the transfer still runs");
    assert!(download.await.expect("no panic").body == content.all());
}
