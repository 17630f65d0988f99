//! Tries the seeds of the fuzzer, and what it found that was mended, with every run of the tests.

#![allow(clippy::expect_used, reason = "a test that cannot read the seeds has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
pub mod fuzz;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds")
}

/// The names of what is in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder of the package");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string());
    names.map(|name| name.expect("UTF-8")).collect()
}

#[test]
fn every_property_holds_for_its_seeds() {
    for (name, property) in fuzz::ALL {
        let seeds = folder().join(name);
        let files = names(&seeds);
        assert!(files.len() > 2, "{name} has seeds");
        for file in files {
            // Said where one fails, which it does by panicking.
            println!("{name}/{file}");
            property(&fs::read(seeds.join(file)).expect("a seed"));
        }
    }
}

#[test]
fn every_property_has_a_target_and_a_folder_of_seeds() {
    let properties: BTreeSet<String> = fuzz::ALL.iter().map(|(name, _)| (*name).into()).collect();
    assert_eq!(names(&folder()), properties);
    let targets = names(&folder().with_file_name("fuzz_targets"));
    let stems = targets.iter().map(|name| name.trim_end_matches(".rs").to_owned());
    assert_eq!(stems.collect::<BTreeSet<_>>(), properties);
    let manifest = fs::read_to_string(folder().with_file_name("Cargo.toml")).expect("a manifest");
    for name in properties {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}
