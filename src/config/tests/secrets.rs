//! `etag_secret` and `etag_secret_file`.

use super::LEAST;
use crate::config::{Key, parse};

const DIGITS: &str = "00112233445566778899aabbccddeeff";

fn found(text: &str) -> Result<Option<Key>, String> {
    let config = parse(&format!("{text}\n{LEAST}"));
    config.map(|config| config.etag_secret).map_err(|problems| format!("{problems:?}"))
}

#[test]
fn the_secret_of_tags_is_given_here_or_in_a_file() {
    let key = Key::parse(DIGITS).expect("32 digits");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let in_file = format!("etag_secret_file: '{}'", file.path().display());
    std::fs::write(file.path(), format!(" {DIGITS}\n")).expect("written");
    assert_eq!(found(""), Ok(None));
    assert_eq!(found("etag_secret: null\netag_secret_file: null"), Ok(None));
    assert_eq!(found(&format!("etag_secret: '{DIGITS}'")), Ok(Some(key)));
    assert_eq!(found(&in_file), Ok(Some(key)));

    let wrong = |text: &str, part: &str| {
        let problems = found(text).expect_err(text);
        assert!(problems.contains(part) && !problems.contains("hunter2"), "{problems}");
    };
    let digits = "openssl rand -hex 16";
    for value in ["'hunter2'", "''", "'0x112233445566778899aabbccddeeff'"] {
        wrong(&format!("etag_secret: {value}"), digits);
    }
    wrong("etag_secret: 1111223344556677", digits);
    wrong(&format!("etag_secret: '{DIGITS}'\n{in_file}"), "contradicts `etag_secret`");
    wrong("etag_secret_file: /etc/snapedge/none", "cannot read `/etc/snapedge/none`");
    std::fs::write(file.path(), "hunter2").expect("written");
    wrong(&in_file, digits);
    std::fs::write(file.path(), "\n").expect("written");
    wrong(&in_file, "is empty");
}
